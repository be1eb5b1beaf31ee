"""The two layouts of the map: the switch in Chromium, what it keeps, areas that are of one layout, stores without."""

import json
import re
import shutil
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from playwright.sync_api import BrowserContext, Page, expect

from backend.app import create_app
from backend.settings import Settings
from precompute.store import mapfile


def drawn(page: Page) -> None:
    expect(page.get_by_test_id("map-canvas")).to_have_attribute("data-drawn", re.compile(r"\d"))


def test_the_switch_keeps_what_holds_on_both(context: BrowserContext) -> None:
    page = context.new_page()
    page.goto("/map?view=0.4,0.4,3")
    drawn(page)
    page.get_by_test_id("colour-omega").click()
    page.get_by_test_id("map-rare").click()
    page.get_by_test_id("layout-profile").click()
    expect(page).to_have_url(re.compile(r"layout=profile&colour=omega&hide=rare$"))
    drawn(page)
    expect(page.get_by_test_id("layout-profile")).to_have_attribute("aria-current", "true")
    expect(page.get_by_text("are alike")).to_be_visible()

    page.get_by_test_id("map-canvas").focus()
    page.keyboard.press("l")
    page.keyboard.press("Enter")  # all that is in view
    expect(page).to_have_url(re.compile("area=profile_"))
    total = page.get_by_test_id("area").get_by_role("heading").inner_text()
    page.reload()
    drawn(page)
    expect(page.get_by_test_id("area").get_by_role("heading")).to_have_text(total)
    page.get_by_test_id("layout-decoder").click()
    expect(page).to_have_url(re.compile(r"/map\?colour=omega&hide=rare$"))
    expect(page.get_by_test_id("area")).to_be_hidden()
    page.go_back()
    expect(page.get_by_test_id("layout-profile")).to_have_attribute("aria-current", "true")
    expect(page.get_by_test_id("area").get_by_role("heading")).to_have_text(total)


@pytest.mark.parametrize(
    ("lacks", "path", "says"),
    [(mapfile.NAME, "/map", "map-absent"), (mapfile.PROFILE_NAME, "/map?layout=profile", "lacks-layout")],
)
def test_a_store_without_a_map_says_so(pages_app: FastAPI, tmp_path: Path, lacks: str, path: str, says: str) -> None:
    old = tmp_path / "old"
    shutil.copytree(pages_app.state.saevx.default.path, old)
    (old / lacks).unlink()
    manifest = json.loads((old / "manifest.json").read_text())
    del manifest["files"][lacks], manifest["sizes"]
    (old / "manifest.json").write_text(json.dumps(manifest))
    with TestClient(create_app(Settings(stores=[old], live=False)), headers={"Accept": "text/html"}) as client:
        page, usual = client.get(path).text, client.get("/map").text
    assert f'data-testid="{says}"' in page and 'data-testid="map-strongest"' in page
    assert [f'data-testid="{says}"' in usual, "map/index.js" in usual] == [says == "map-absent", says != "map-absent"]
