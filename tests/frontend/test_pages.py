"""Every page is whole without JavaScript: its main content stands in the HTML that the server sends."""

import html
import re
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from markupsafe import Markup

from backend.app import create_app
from backend.drawing.heat import HeatImage, TokenRun
from backend.drawing.links import Linked
from backend.drawing.parts import preview, tokens
from backend.pages.feature.examples import as_drawn, as_examples, example_card
from backend.pages.features import LIST_ROWS
from backend.schemas.features import Example
from backend.settings import Settings
from tests.helpers import synthetic
from tests.helpers.synthetic import word_feature

RED = word_feature("red")
CONTENT = {
    "/": ["totals", "rejected", "strip", "feature-card", "provenance", "front-search"],
    "/features": ["feature-table", "feature-row", "filters", "next-page"],
    "/map": ["map-panel", "map-canvas", "map-link", "map-search", "map-strongest"],
    "/map?of=samples": ["map-panel", "map-canvas", "map-link", "map-search", "map-of-features", "chosen"],
    "/map?of=samples&q=red&row=3&colour=blank": ["found", "found-list", "chosen-link", "map-flag"],
    f"/map?q=red&feature={RED}&colour=omega&hide=rare": ["found", "chosen", "map-strongest"],
    f"/features/{RED}": [
        "feature-label", "omega", "lift", "example", "histograms", "logits", "neighbours", "cooccurring", "family",
        "member", "near-copy", "factsheet-link",
        "pair-samples", "lens-raw", "vector", "summary", "snippet", "strip-image-0", "strip-text-0",
    ],
    f"/features/{RED}?modality=text&band=0": ["examples", "modality-text", "concordance"],
    f"/features/{RED}?modality=image&band=counter": ["counter-kind", "example", "band-counter"],
    f"/features/{RED}?tour=2": ["tour", "tour-show", "tour-back", "tour-next", "tour-leave"],
    f"/features/{RED}/factsheet": ["factsheet", "factsheet-svg", "citation", "factsheet-provenance"],
    f"/features/{RED}/partners": ["partner", "pair-sample"],
    f"/features/{RED}?modality=image&heat=spotlight": ["spotlight", "example"],
    "/rejected": ["rejected-table", "rejected-row", "reason-kinds", "json-link"],
    "/rejected?kind=no-text": ["empty", "reason-kinds"],
    "/samples": ["sample-grid", "sample-card"],
    "/samples?flag=mismatch&sort=pooled-cosine": ["sample-card"],
    "/search": ["search-form", "drop", "model-unavailable"],
    "/try": ["own-form", "own-text", "own-image", "own-unavailable", "drop"],
    "/search?q=red": ["word-features", "feature-card", "nearest-samples"],
    "/quality": ["flag-list", "threshold", "calibration", "flagged-samples", "keep-panel", "score-table"],
    "/quality?flag=blank&threshold=0.1&by=cosine&keep=20": ["flag-panel", "length-warning"],
    "/sae": ["sae-table", "sae-facts", "evaluation-empty", "training-empty"],
    "/cooccurrence": ["pair-table", "pair-row"],
    "/cooccurrence?min_support=1&sort=support": ["pair-row"],
    f"/steer?feature={RED}:add:2": ["steer", "model-unavailable"],
    "/explain": ["explain", "explain-ask", "explain-stage", "model-unavailable"],
    "/docs": ["operation"],
}  # fmt: skip


@pytest.mark.parametrize("path", CONTENT)
def test_page_has_its_content(client: TestClient, path: str) -> None:
    reply = client.get(path)
    assert reply.status_code == 200
    missing = [name for name in CONTENT[path] if f'data-testid="{name}"' not in reply.text]
    assert not missing


def test_sample_page(client: TestClient, sample_id: str) -> None:
    plain = client.get(f"/samples/{sample_id}").text
    for name in ("stage-image", "caption", "token", "scores", "group-both", "group-image_only", "group-text_only"):
        assert f'data-testid="{name}"' in plain
    assert plain.index("a share of its 99.9th percentile") < plain.index('data-testid="group-both"'), (
        "before its figures"
    )
    at_patch = client.get(f"/samples/{sample_id}?view=0&row=1&col=2").text
    assert "Here: row 1, column 2" in at_patch
    position = re.search(r'data-position="(\d+)"', plain)
    assert position
    at_token = client.get(f"/samples/{sample_id}?position={position[1]}").text
    assert 'data-testid="features-here"' in at_token


def test_a_chosen_feature_lights_the_picture_without_javascript(client: TestClient) -> None:
    example = client.get(f"/api/v1/features/{RED}/examples?modality=image&limit=1").json()["items"][0]
    page = client.get(f"/samples/{example['sample_id']}?feature={RED}").text
    heat = re.search(r'data-testid="heat">(.*?)</svg>', page, re.S)
    assert heat and 'class="h8"' in heat[1]
    assert re.search(r'class="tok a\d"[^>]*data-testid="token"[^>]*>red<', page) or "red" not in example["text"]


def test_an_example_says_how_much_of_it_fires_and_how_many_are_alike(client: TestClient) -> None:
    for modality, unit in (("image", "patches"), ("text", "tokens")):
        items = client.get(f"/api/v1/features/{RED}/examples?modality={modality}").json()["items"]
        cards = client.get(f"/features/{RED}?modality={modality}").text.split('data-testid="example"')[1:]
        assert len(cards) == len(items) > 3
        for card, one in zip(cards, items, strict=True):
            assert (f"{one['n_active']} {unit}" in card) == (one["n_active"] > 1)
            assert (f"+{one['n_same']} similar" in card) == (one["n_same"] > 0)
    assert any(one["n_same"] for one in items)


def test_the_page_of_a_feature_begins_with_what_it_is(client: TestClient) -> None:
    feature = client.get(f"/api/v1/features/{RED}").json()
    page = client.get(f"/features/{RED}").text
    line = re.search(r'data-testid="summary">(.*?)</p>', page)
    assert line
    sentence = re.sub(r"\s+", " ", re.sub("<[^>]+>", "", line[1]))
    text, image = feature["words"]["text"], feature["words"]["image"]
    assert text["word"] == image["word"] == "red"
    both_sides = f"text: red {text['n']}/{text['of']} · images: red {image['n']}/{image['of']}"
    assert sentence.startswith(f"{both_sides} · agreement ")
    assert f"name tested {feature['label_score']:.2f} · family of {feature['n_members']}" in sentence


def test_previous_and_next_follow_a_list_in_the_address(client: TestClient) -> None:
    for id, links in ((7, ["3"]), (3, ["7", "12"]), (12, ["3"])):
        page = client.get(f"/features/{id}?list=7,3,12&modality=text").text
        moves = re.findall(r'rel="(?:prev|next)" href="/features/(\d+)\?modality=text&amp;list=7,3,12"', page)
        assert moves == links
    assert "give at most" in client.get("/features/3?list=dog").text


def printed_by(source: str) -> list[tuple[Any, ...]]:
    """What a program prints, by call."""
    printed: list[tuple[Any, ...]] = []
    exec(source, {"print": lambda *values: printed.append(values)})
    return printed


def test_the_snippet_runs_and_prints_the_examples(client: TestClient, pages_app: FastAPI) -> None:
    store = pages_app.state.saevx.stores["synthetic"].path
    for query in ("modality=text", "modality=image&band=1", "modality=image&band=counter"):
        page = client.get(f"/features/{RED}?{query}").text
        code = re.search(r'data-testid="snippet">(.*?)</pre>', page, re.S)
        assert code
        printed = printed_by(html.unescape(code[1]).replace("path/of/the/store", str(store)))
        examples = client.get(f"/api/v1/features/{RED}/examples?{query}").json()["items"]
        assert [values[:2] for values in printed] == [(one["sample_id"], one["activation"]) for one in examples] != []


@pytest.mark.parametrize("query", ["modality=text", "modality=image&band=1", "band=counter"])
def test_examples_that_were_not_checked_are_drawn_as_checked_ones(client: TestClient, query: str) -> None:
    items = client.get(f"/api/v1/features/{RED}/examples?{query}").json()["items"]
    checked = [Example.model_validate(one) for one in items]
    assert items and as_drawn("title", as_examples(items), (1, 2)) == as_drawn("title", checked, (1, 2))


def test_the_place_of_a_card_has_only_what_is_known(client: TestClient) -> None:
    reply = client.get(f"/api/v1/features/{RED}/examples?modality=image&limit=1").json()["items"][0]
    one = Example.model_validate(reply).model_copy(update={"n_active": 3, "token": None})
    nowhere = one.model_copy(update={"patch": None})
    assert one.patch
    assert example_card(one, (1, 1))["where"] == f"row {one.patch.row}, column {one.patch.col} · 3 patches"
    assert example_card(nowhere, (1, 1))["where"] == "3 patches"
    assert example_card(nowhere.model_copy(update={"n_active": 1}), (1, 1))["where"] == ""


def test_a_feature_that_does_not_fire_in_a_sample_is_said_not_to(client: TestClient) -> None:
    example = client.get(f"/api/v1/features/{RED}/examples?modality=image&limit=1").json()["items"][0]
    assert 'data-testid="silent"' not in client.get(f"/samples/{example['sample_id']}?feature={RED}").text
    dead = client.get("/api/v1/features?verdict=dead&limit=1").json()["items"][0]["id"]
    assert 'data-testid="silent"' in client.get(f"/samples/{example['sample_id']}?feature={dead}").text
    of_dead = client.get(f"/features/{dead}").text
    assert "is active on no token of this data, so there is nothing to show" in of_dead and "on-the-map" not in of_dead
    for name in ("band-0", "spotlight", "snippet", "measure"):  # of examples that it does not have
        assert f'data-testid="{name}"' not in of_dead


def test_features_are_filtered_and_paged_by_the_address(client: TestClient) -> None:
    page = client.get("/features?q=red&sort=id&order=asc&fold=none").text
    rows = re.findall(r'data-testid="feature-row" data-feature="(\d+)"', page)
    expected = client.get(f"/api/v1/features?q=red&sort=id&order=asc&limit={LIST_ROWS}").json()["items"]
    assert rows == [str(one["id"]) for one in expected]
    first = client.get("/features?sort=id&order=asc").text
    following = re.search(r'rel="next" href="([^"]+)"', first)
    assert following
    second = client.get(following[1].replace("&amp;", "&")).text
    shown = [set(re.findall(r'feature-row" data-feature="(\d+)"', text)) for text in (first, second)]
    assert shown[1] and not shown[0] & shown[1]


def test_families_are_folded_by_the_address(client: TestClient) -> None:
    address = "/features?q=red&sort=id&order=asc&fold="
    every, folded = (client.get(f"{address}{fold}").text for fold in ("none", "families"))
    n_every, n_folded = (page.count('data-testid="feature-row"') for page in (every, folded))
    assert n_folded < n_every and 'data-testid="fold"' in every
    assert "fold=families" in folded.split('data-testid="feature-table"')[1]  # a new order keeps it
    family = re.search(r'href="([^"]*family=\d+)" data-testid="family-link"', folded)
    assert family is not None
    assert client.get(family[1].replace("&amp;", "&")).text.count('data-testid="feature-row"') > 1


def test_the_list_begins_with_one_line_for_each_name_most_evidence_first(client: TestClient) -> None:
    rows = re.findall(r'data-testid="feature-row" data-feature="(\d+)"', client.get("/features").text)
    query = "sort=match&order=desc&fold=names"
    items = client.get(f"/api/v1/features?{query}&limit={LIST_ROWS}").json()["items"]
    assert rows == [str(one["id"]) for one in items]
    names = [one["label"].split(",")[0] for one in items if (one["label_score"] or 0) >= 0.6]
    assert len(names) == len(set(names)) > 10
    assert f"/api/v1/features?{query}" in client.get("/features").text.replace("&amp;", "&")


def test_the_front_page_counts_flagged_pairs_once(client: TestClient) -> None:
    page, flags = client.get("/").text, client.get("/api/v1/flags").json()["items"]
    flagged = {s["sample_id"] for s in client.get("/api/v1/samples?limit=500").json()["items"] if s["flags"]}
    assert f"{len(flagged):,} flagged pairs, {sum(flag['count'] for flag in flags):,} flags" in page


def test_the_lens_shows_raw_logits_by_the_address_and_says_where_it_says_nothing(client: TestClient) -> None:
    logits = client.get(f"/api/v1/features/{RED}").json()["logits"]
    for kind in ("centred", "raw"):
        panel = client.get(f"/features/{RED}?lens={kind}").text.split('data-testid="logits"')[1]
        assert f"{logits[kind]['promoted'][0]['logit']:+.2f}" in panel and 'data-testid="lens-empty"' not in panel
    features = client.get("/api/v1/features?limit=200").json()["items"]
    silent = next(
        f["id"] for f in features if not client.get(f"/api/v1/features/{f['id']}").json()["logits"]["informative"]
    )
    assert "The lens says nothing of this feature" in client.get(f"/features/{silent}").text


def test_empty_form_fields_are_no_filter(client: TestClient) -> None:
    page = client.get("/features?q=&verdict=&min_omega=&min_lift=&max_density=&sort=id&order=asc")
    assert page.status_code == 200 and 'data-testid="feature-row"' in page.text


def test_moving_the_threshold_changes_the_flagged_samples(client: TestClient) -> None:
    def n_flagged(threshold: float) -> int:
        page = client.get(f"/quality?flag=mismatch&threshold={threshold}").text
        result = re.search(r'data-testid="flagged-count">([\d,]+)<', page)
        assert result
        return int(result[1].replace(",", ""))

    counts = [n_flagged(t) for t in (0.0, 0.5, 0.9, 2.0)]
    assert counts == sorted(counts, reverse=True) and counts[0] > counts[1] and counts[-1] == 0


def test_keep_share_matches_the_export(client: TestClient) -> None:
    page = client.get("/quality?by=pooled-cosine&keep=25").text
    remaining = re.search(r'data-testid="kept">([\d,]+)<', page)
    link = re.search(r'href="([^"]+)" data-testid="export-keep"', page)
    assert remaining and link
    lines = client.get(link[1].replace("&amp;", "&")).text.splitlines()
    assert len(lines) == int(remaining[1]) > 0


def test_export_follows_the_moved_threshold(client: TestClient) -> None:
    for query in ("", "&threshold=0.5", "&threshold=0.5&clean=1&keep=50"):
        page = client.get(f"/quality?flag=mismatch{query}").text
        over = re.search(r'data-testid="flagged-count">([\d,]+)<', page)
        link = re.search(r'href="([^"]+)" data-testid="export-flag"', page)
        keep = re.search(r'href="([^"]+)" data-testid="export-keep"', page)
        remaining = re.search(r'data-testid="kept">([\d,]+)<', page)
        assert over and link and keep and remaining
        total = client.get("/api/v1/samples?limit=1").json()["total"]
        lines = client.get(link[1].replace("&amp;", "&")).text.splitlines()
        assert len(lines) == total - int(over[1])
        assert len(client.get(keep[1].replace("&amp;", "&")).text.splitlines()) == int(remaining[1])


@pytest.mark.parametrize("path", ["/nowhere", "/features/999999", "/samples/no-such-sample"])
def test_missing_pages_are_designed(client: TestClient, path: str) -> None:
    reply = client.get(path)
    assert reply.status_code == 404 and 'data-testid="error-page"' in reply.text


def test_wrong_parameters_get_a_page_with_the_reason(client: TestClient) -> None:
    reply = client.get("/features?sort=nonsense")
    assert reply.status_code == 422 and "data-error" in reply.text and "sort" in reply.text
    assert "<h1>Invalid value</h1>" in reply.text
    report = client.get("/api/v1/samples?sort=nonsense&order=up").json()
    assert [error["where"] for error in report["errors"]] == ["sort", "order"], "several lists of choices are one"
    assert report["detail"].startswith("sort: choose 'row', 'cosine',") and " or 'few-features'; " in report["detail"]
    assert report["detail"].endswith("order: choose 'asc' or 'desc'")


def test_search_without_the_model_says_why(client: TestClient) -> None:
    reply = client.post("/search", data={"q": "red"}, files={"image": ("x.png", b"not a picture", "image/png")})
    assert reply.status_code in (422, 503) and 'data-testid="search-error"' in reply.text


def test_stores_and_prefix_stay_in_every_link(pages_app: FastAPI) -> None:
    """A second store and a path prefix: each link, script and picture of a page keeps both."""
    [first] = pages_app.state.saevx.stores.values()
    app = create_app(Settings(stores=[first.path, first.path], live=False, root_path="/tool"))
    with TestClient(app, headers={"Accept": "text/html"}) as client:
        page = client.get(f"/tool/features?store={first.name}-2").text
        links = re.findall(r'(?:href|src|action)="([^"#]+)"', page)
        assert links and all(link.startswith("/tool/") for link in links)
        inner = [link for link in links if re.match(r"/tool/(features|samples|api)\b.*\?", link)]
        assert inner and all(f"store={first.name}-2" in link for link in inner)
        assert 'data-testid="store-switcher"' in page
        folder = "/".join(first.path.resolve().parts[-2:])
        assert f">{first.name} ({folder})</option>" in page and f">{first.name}-2 ({folder})</option>" in page
        assert client.get("/tool/static/js/app.js").status_code == 200


def test_words_of_a_preview_are_hostile_text() -> None:
    attack = '"><script>alert(1)</script>'
    for drawn in (preview([], [attack]), preview([HeatImage(attack, None)], [])):
        assert isinstance(drawn, Markup) and "<script" not in drawn and "alert(1)" in drawn


def test_captions_are_hostile_text() -> None:
    attack = '"><script>alert(1)</script><img src=x onerror=alert(2)>'
    sample = {"sample_id": "a/b?c", "text": attack, "url": None, "value": None, "flags": [attack], "reason": ""}
    html = Linked(lambda path: path, str, {}).sample_card(sample) + tokens([TokenRun(False, attack, 0, 1.0, 3)])
    assert "<script" not in html and "<img src=x" not in html
    assert 'href="/samples/a/b%3Fc"' in html


def test_a_store_that_breaks_while_it_is_served_is_told_on_a_page(tmp_path: Path) -> None:
    """The page of an error must not need what is broken."""
    synthetic.write_store(tmp_path / "store", 20, 0)
    app = create_app(Settings(stores=[tmp_path / "store"], live=False))
    with TestClient(app, headers={"Accept": "text/html"}, raise_server_exceptions=False) as client:
        base = tmp_path / "store" / "store.sqlite"
        with base.open("r+b") as file:
            file.write(bytes(base.stat().st_size))
        for path, status, words in (("/features", 503, "is damaged"), ("/nowhere", 404, "There is nothing at")):
            reply = client.get(path)
            assert reply.status_code == status and 'data-testid="error-page"' in reply.text
            assert words in reply.text and "Traceback" not in reply.text
            assert "other-stores" not in reply.text and "`" not in reply.text
