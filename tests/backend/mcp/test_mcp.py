"""`saevx mcp` as an agent sees it: the SDK's own client, over HTTP and over standard input and output."""

import asyncio
import base64
import io
import json
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from mcp import Client, ClientSession, StdioServerParameters, stdio_client
from PIL import Image

from backend.mcp.images import EDGE, GAP, Tile, panel
from backend.mcp.server import attach
from backend.settings import Settings
from tests.helpers.in_process import apart
from tests.helpers.running import Running

ROOT = Path(__file__).parents[3]
Call = Callable[..., Awaitable[Any]]


@pytest.fixture(scope="module")
def server(made: Path) -> Iterator[Running]:
    running = Running(Settings(stores=[made / "store"], device="cpu"))
    attach(running.app)
    with running:
        yield running


def call_tool(server: Running, tool: str, arguments: dict[str, Any]) -> Any:
    async def call() -> Any:
        async with Client(f"{server.url}/mcp") as client:
            return await client.call_tool(tool, arguments)

    return apart(asyncio.run, call())


def ask(server: Running, tool: str, **arguments: Any) -> Any:
    """The result of one call: its structure, or its content where it has none."""
    result = call_tool(server, tool, arguments)
    assert not result.is_error, result.content
    return result.structured_content or result.content


def refusal(server: Running, tool: str, **arguments: Any) -> str:
    result = call_tool(server, tool, arguments)
    assert result.is_error
    return str(result.content[0].text)


async def rank_dogs(call: Call) -> list[tuple[float, int]]:
    """Five features of dogs, by name or because they fire where a caption has one, and by how much steering with each
    changes the answer."""
    ids = [one["id"] for one in (await call("search_words", words="dog", limit=5))["features"]]
    for sample in (await call("list_samples", words="dog", limit=5))["items"]:
        groups = (await call("get_sample", sample_id=sample["sample_id"]))["features"]
        ids += [one["id"] for group in groups.values() for one in group]
    ranking = []
    for id in list(dict.fromkeys(ids))[:5]:
        answer = await call("steer", feature=id, sample_id="pair-3", strength=4, max_tokens=6)
        assert set(answer) >= {"default", "steered", "mean_kl"}
        ranking.append((answer["mean_kl"], id))
    return sorted(ranking, reverse=True)


@pytest.fixture(scope="module")
def ranking(server: Running) -> list[tuple[float, int]]:
    """Over HTTP."""

    async def run() -> list[tuple[float, int]]:
        async with Client(f"{server.url}/mcp") as client:
            return await rank_dogs(lambda name, **given: structure(client.call_tool(name, given)))

    return apart(asyncio.run, run())


def test_a_client_ranks_five_dog_features_over_http(ranking: list[tuple[float, int]]) -> None:
    assert ranking[0][0] > 0 and len({id for _, id in ranking}) == 5


def test_a_client_ranks_five_dog_features_over_standard_input(made: Path, ranking: list[tuple[float, int]]) -> None:
    """The same store in another process gives the same ranking."""
    command = ["-m", "backend.cli", "mcp", str(made / "store"), "--device", "cpu"]

    async def run() -> list[tuple[float, int]]:
        started = StdioServerParameters(command=sys.executable, args=command, cwd=ROOT)
        async with stdio_client(started) as (read, write), ClientSession(read, write) as session:
            await session.initialize()
            return await rank_dogs(lambda name, **given: structure(session.call_tool(name, given)))

    assert [id for _, id in apart(asyncio.run, run())] == [id for _, id in ranking]


def test_the_page_shows_a_client_that_works(server: Running, capsys: pytest.CaptureFixture[str]) -> None:
    block = (ROOT / "docs" / "mcp.md").read_text("utf-8").split("```python\n")[1].split("```")[0]
    apart(exec, compile(block.replace("http://127.0.0.1:8000", server.url), "docs/mcp.md", "exec"), {})
    assert capsys.readouterr().out.startswith("[(")


async def structure(result: Awaitable[Any]) -> Any:
    answer = await result
    assert not answer.is_error, answer.content
    return answer.structured_content


def test_every_tool_and_every_argument_is_described(server: Running) -> None:
    async def tools() -> Any:
        async with Client(f"{server.url}/mcp") as client:
            return (await client.list_tools()).tools

    listed = apart(asyncio.run, tools())
    assert len(listed) == 13
    page = (ROOT / "docs" / "mcp.md").read_text("utf-8")
    for tool in listed:
        assert tool.description and "\n" not in tool.description
        assert f"`{tool.name}`" in page
        for name, schema in tool.input_schema["properties"].items():
            assert schema.get("description"), f"{tool.name}: {name}"


def test_the_reads_agree_with_the_api(server: Running) -> None:
    def api(path: str) -> Any:
        return server.get(f"/api/v1{path}").json()

    listed = ask(server, "list_features", sort="n_samples", limit=5)
    assert [one["id"] for one in listed["items"]] == [
        one["id"] for one in api("/features?sort=n_samples&order=desc&limit=5")["items"]
    ]
    more = ask(server, "list_features", sort="n_samples", limit=5, cursor=listed["next"])
    assert not {one["id"] for one in more["items"]} & {one["id"] for one in listed["items"]}
    best = listed["items"][0]["id"]
    one, whole = ask(server, "get_feature", feature=best), api(f"/features/{best}")
    assert one["n_samples"] == whole["n_samples"]
    assert [n["id"] for n in one["neighbours"]["decoder"]] == [n["id"] for n in whole["neighbours"]["decoder"]]
    examples = ask(server, "feature_examples", feature=best, limit=3)["items"]
    expected = api(f"/features/{best}/examples?modality=image&limit=3")["items"]
    assert [e["sample_id"] for e in examples] == [e["sample_id"] for e in expected]
    sample = ask(server, "get_sample", sample_id="pair-3")
    assert sample["text"] == api("/sample?id=pair-3")["text"]
    assert ask(server, "list_samples", words="dog")["total"] == api("/samples?q=dog")["total"]
    assert len(ask(server, "list_flags")["flags"]) == len(api("/flags")["items"])
    assert ask(server, "list_pairs", limit=3)["total"] == api("/cooccurrence?limit=3")["total"]
    assert ask(server, "about_store")["n_features"] == api("/store")["n_features"]


def test_a_search_by_image_gives_what_the_sample_itself_gives(server: Running) -> None:
    """The file of a sample's image, sent as base64."""
    data = base64.b64encode(server.get("/api/v1/sample/image?id=pair-3").content).decode()
    by_image = ask(server, "search_image", image_base64=data)["features"]
    by_sample = ask(server, "search_image", sample_id="pair-3")["features"]
    near = {one["id"] for one in by_image} & {one["id"] for one in by_sample}
    assert len(near) >= len(by_sample) / 2


def test_images_come_as_png(server: Running) -> None:
    best = ask(server, "list_features", sort="density_image", limit=1)["items"][0]["id"]
    for tool, given in (("feature_image", {"limit": 4}), ("sample_image", {"sample_id": "pair-3"})):
        image, text = ask(server, tool, feature=best, **given)
        assert image.mime_type == "image/png" and text.text
        Image.open(io.BytesIO(base64.b64decode(image.data))).verify()


def test_the_heat_lies_on_the_patch_that_fires() -> None:
    """A grey image of 64 × 64, of whose 2 × 2 patches the one at row 0, column 1 fires."""
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), (128, 128, 128)).save(buffer, "PNG")
    grid = {"box": [0, 0, 64, 64], "rows": 2, "cols": 2, "values": [[0, 3.0], [0, 0]]}
    png = panel([Tile(buffer.getvalue(), (64, 64), grid, None, "3")] * 4, 3.0)
    with Image.open(io.BytesIO(png)) as opened:
        drawn = np.asarray(opened)
    assert drawn.shape[1] == 3 * (EDGE + GAP) + GAP
    changed = np.abs(drawn[GAP : GAP + 64, GAP : GAP + 64].astype(int) - 128).sum(-1) > 20
    assert changed[4:28, 36:60].all() and not changed[4:60, 4:28].any() and not changed[36:60, 36:60].any()


def test_attention_can_be_frozen_while_steering(server: Running) -> None:
    """As by the API, whose answer it repeats; free attention lets another part of the change through."""
    change = {"id": 5, "mode": "add", "strength": 6}
    kl = {}
    for attention in ("free", "frozen"):
        arguments = {"sample_id": "pair-3", "max_tokens": 6, "attention": attention}
        answer = ask(server, "steer", feature=5, strength=6, **arguments)
        assert answer["attention"] == attention
        reply = server.post("/api/v1/steer", json={**arguments, "features": [change]}).text
        done = json.loads(reply.split("event: done\ndata: ")[1].split("\n")[0])
        assert answer["steered"] == done["text"]["steered"]
        assert answer["mean_kl"] == float(f"{done['mean_kl']:.4g}")
        kl[attention] = answer["mean_kl"]
    assert kl["free"] != kl["frozen"]
    assert "attention: Input should be" in refusal(server, "steer", feature=5, attention="cold")


def test_what_is_wrong_is_one_sentence(server: Running) -> None:
    assert refusal(server, "get_feature", feature=10**6).startswith("There is no feature 1000000:")
    assert refusal(server, "get_sample", sample_id="nobody").count(".") == 1
    assert "sort: Input should be" in refusal(server, "list_features", sort="beauty")
    assert refusal(server, "search_image", image_base64="§").startswith("image_base64 is not base64")
    assert "\n" not in refusal(server, "steer", feature=1, strength=900)
    for tool in ("get_sample", "sample_image", "search_image"):
        text = refusal(server, tool, sample_id="x" * 20_000)
        assert text.startswith("No sample 'xxx") and text.endswith("take an id from the list of samples.")
        assert len(text) < 700, "an agent reads every word"


def test_behind_a_proxy_that_lets_people_in(made: Path) -> None:
    settings = Settings(stores=[made / "store"], live=False, trust_proxy_auth="X-User", root_path="/saevx")
    running = Running(settings, ready=False)
    attach(running.app)
    arguments = {"name": "about_store", "arguments": {}}
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": arguments}
    headers = {"accept": "application/json, text/event-stream"}
    with running:
        assert httpx.post(f"{running.url}/mcp", json=body, headers=headers).status_code == 401
        reply = httpx.post(f"{running.url}/mcp", json=body, headers={**headers, "X-User": "ada"}).json()
        assert not reply["result"].get("isError"), reply
        assert json.loads(reply["result"]["content"][0]["text"])["n_samples"] == 40


def test_the_token_of_the_server_is_needed(made: Path) -> None:
    running = Running(Settings(stores=[made / "store"], live=False, token="12345678"), ready=False)
    attach(running.app)
    body = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
    headers = {"accept": "application/json, text/event-stream"}
    with running:
        assert httpx.post(f"{running.url}/mcp", json=body, headers=headers).status_code == 401
        headers["authorization"] = "Bearer 12345678"
        assert httpx.post(f"{running.url}/mcp", json=body, headers=headers).status_code == 200
