"""What people write, over the API: versions, conflicts, filters, search, lists, marks."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from backend.annotations.marks import Judged, precision, suggest
from backend.app import create_app
from backend.settings import Settings
from tests.helpers.json_api import API, get
from tests.helpers.synthetic import word_feature

DOG, CAT = word_feature("dog"), word_feature("cat")


@pytest.fixture
def client(store_path: Path, tmp_path: Path) -> Iterator[TestClient]:
    """A server of its own, with nothing written."""
    settings = Settings(stores=[store_path], live=False, annotations=f"sqlite:///{tmp_path / 'notes.sqlite'}")
    with TestClient(create_app(settings), raise_server_exceptions=False) as running:
        yield running


def put(client: TestClient, path: str, body: dict[str, Any], version: int | str | None = None) -> Any:
    headers = {} if version is None else {"If-Match": version if isinstance(version, str) else f'"{version}"'}
    return client.put(f"{API}/annotations{path}", json=body, headers=headers)


def samples(client: TestClient, n: int) -> list[str]:
    return [one["sample_id"] for one in get(client, "/samples", limit=n)["items"]]


def test_a_public_demo_shows_what_was_written_and_takes_nothing(client: TestClient, store_path: Path) -> None:
    put(client, f"/features/{DOG}", {"label": "a dog"}, 0)
    url = str(client.app.state.saevx.slots[0].store.annotations.database.url)  # type: ignore[attr-defined]
    settings = Settings(stores=[store_path], live=False, annotations=url, read_only=True)
    with TestClient(create_app(settings)) as public:
        assert get(public, f"/features/{DOG}")["own_label"] == "a dog"
        form = {"kind": "feature", "key": str(DOG), "do": "save", "label": "a cat", "version": "1"}
        for reply in (
            put(public, f"/features/{DOG}", {"label": "a cat"}, 1),
            public.delete(f"{API}/annotations/features/{DOG}", headers={"If-Match": "1"}),
            put(public, "/lists/x", {"features": [1]}, 0),
            public.post("/annotate", data=form),
        ):
            assert reply.status_code == 403 and "--read-only" in reply.text, reply.url
        assert get(public, f"/features/{DOG}")["own_label"] == "a dog"
    with TestClient(create_app(Settings(stores=[store_path], live=False, read_only=True))) as public:
        assert "--read-only" in put(public, f"/features/{DOG}", {"label": "a cat"}, 0).json()["detail"]


def test_writing_reading_and_deleting(client: TestClient) -> None:
    at = f"/features/{DOG}"
    empty = get(client, f"/annotations{at}")
    assert (empty["version"], empty["deleted"], empty["tags"]) == (0, True, [])
    body = {"label": " a dog ", "tags": ["animal", " big   one ", "Animal"], "author": "Ann"}
    reply = put(client, at, body, 0)
    assert reply.status_code == 200 and reply.headers["etag"] == '"1"'
    one = reply.json()
    assert (one["label"], one["tags"], one["author"], one["note"]) == ("a dog", ["animal", "big one"], "Ann", "")
    assert put(client, at, {"note": "sure?"}, 1).json()["label"] == "a dog", "what is left out stays"
    listed = get(client, "/features", ids=DOG)["items"][0]
    assert (listed["own_label"], listed["tags"], listed["reviewed"]) == ("a dog", ["animal", "big one"], False)
    assert get(client, at)["own_label"] == "a dog" and get(client, f"/features/{CAT}")["own_label"] is None
    assert client.delete(f"{API}/annotations{at}", headers={"If-Match": "2"}).json()["deleted"] is True
    assert get(client, at)["own_label"] is None
    history = get(client, "/annotations/history", kind="feature", key=str(DOG))["items"]
    assert [(v["version"], v["deleted"]) for v in history] == [(3, True), (2, False), (1, False)]
    again = put(client, at, {"restore": 2}, 3).json()
    assert (again["label"], again["note"], again["version"]) == ("a dog", "sure?", 4)


def test_a_conflict_is_told_before_anything_is_overwritten(client: TestClient) -> None:
    at = f"/features/{DOG}"
    put(client, at, {"label": "dog", "author": "Ann"}, 0)
    unread = put(client, at, {"label": "hound", "author": "Bob"})
    assert unread.status_code == 428 and "If-Match" in unread.json()["detail"]
    reply = put(client, at, {"label": "hound", "author": "Bob"}, 0)
    body = reply.json()
    assert reply.status_code == 409 and reply.headers["content-type"] == "application/problem+json"
    assert body["detail"].startswith("Ann changed this after you opened it")
    assert body["current"]["body"]["label"] == "dog" and body["yours"]["label"] == "hound"
    assert get(client, f"/annotations{at}")["label"] == "dog"
    assert put(client, at, {"label": "hound", "author": "Bob"}, body["current"]["version"]).status_code == 200
    history = get(client, "/annotations/history", kind="feature", key=str(DOG))["items"]
    assert [(v["author"], v["body"]["label"]) for v in history] == [("Bob", "hound"), ("Ann", "dog")]
    added = put(client, at, {"add_tags": ["x"], "remove_tags": ["y"]})
    assert added.status_code == 200 and added.json()["tags"] == ["x"] and added.json()["label"] == "hound"
    assert put(client, at, {"label": "any"}, "*").status_code == 200
    assert put(client, at, {"label": "any"}, "x").status_code == 422


@pytest.mark.parametrize(
    ("tags", "status"),
    [('"1"', 200), ('W/"1"', 200), ("1", 200), ("*", 200), ('"7", "1"', 200), ('"1" , W/"7"', 200), ('"7", "8"', 409),
     ('"*"', 422), ('"1', 422), ('"1", *', 422), ('"1",', 422), ("-1", 422), ("", 428)],
)  # fmt: skip
def test_a_write_names_the_versions_that_it_may_overwrite(client: TestClient, tags: str, status: int) -> None:
    """Tags, weak ones, and lists of them as RFC 9110 has them; "*" in quotes is a tag and not the asterisk."""
    at = f"/features/{DOG}"
    put(client, at, {"label": "dog"}, 0)
    assert put(client, at, {"label": "hound"}, tags).status_code == status
    assert get(client, f"/annotations{at}")["label"] == ("hound" if status == 200 else "dog")
    if status != 200:
        assert client.delete(f"{API}/annotations{at}", headers={"If-Match": tags}).status_code == status


def test_several_headers_are_one_list(client: TestClient) -> None:
    at = f"/features/{DOG}"
    put(client, at, {"label": "dog"}, 0)
    headers = [("If-Match", '"7"'), ("If-Match", '"1"')]
    assert client.put(f"{API}/annotations{at}", json={"label": "hound"}, headers=headers).status_code == 200


def test_lists_follow_tags_reviews_and_words(client: TestClient) -> None:
    ids = samples(client, 30)
    before = client.get(f"{API}/features").headers["etag"]
    for feature in (DOG, CAT):
        put(client, f"/features/{feature}", {"add_tags": ["Pet"]})
    put(client, f"/features/{CAT}", {"reviewed": True, "label": "whiskers", "note": "zebra"}, 1)
    put(client, f"/sample?id={ids[3]}", {"tags": ["odd"], "note": "zebra crossing", "reviewed": True}, 0)
    assert client.get(f"{API}/features", headers={"If-None-Match": before}).status_code == 200
    features = {"pet": {DOG, CAT}, "PET": {DOG, CAT}, "none": set()}
    for tag, wanted in features.items():
        assert {one["id"] for one in get(client, "/features", tag=tag)["items"]} == wanted
    total = get(client, "/features")["total"]
    assert [one["id"] for one in get(client, "/features", reviewed=True)["items"]] == [CAT]
    assert get(client, "/features", reviewed=False)["total"] == total - 1
    assert [one["id"] for one in get(client, "/features", q="whisk")["items"]] == [CAT]
    assert [one["id"] for one in get(client, "/features", q="zebra", tag="pet")["items"]] == [CAT]
    for query in ({"tag": "odd"}, {"reviewed": True}, {"q": "zebra"}, {"q": "zebra", "min_length": 1}):
        assert [one["sample_id"] for one in get(client, "/samples", **query)["items"]] == [ids[3]], query
    assert get(client, "/samples", reviewed=False)["total"] == get(client, "/samples")["total"] - 1
    assert get(client, "/samples", reviewed=False, min_length=0)["total"] == get(client, "/samples")["total"] - 1
    hits = get(client, "/search", q="zebra")
    assert hits["features"][0]["id"] == CAT and hits["features"][0]["own_label"] == "whiskers"
    assert hits["samples"][0]["sample_id"] == ids[3] and hits["n_samples"] == 1
    assert client.get(f"{API}/export?tag=odd&format=ids").text.split() == [ids[3]]
    table = client.get(f"{API}/features.csv?tag=pet&sort=id").text.splitlines()
    assert [line.endswith(",Pet,True") for line in table[1:]] == [one == CAT for one in sorted((DOG, CAT))]
    assert get(client, "/annotations/tags")["items"][0] == {"tag": "Pet", "n_features": 2, "n_samples": 0}
    assert get(client, "/annotations", tag="pet")["total"] == 2 and get(client, "/annotations", q="zebra")["total"] == 2


def test_a_page_is_the_next_one_after_more_was_reviewed(client: TestClient) -> None:
    """Whoever reviews a list page by page misses nothing and is not sent back to its beginning."""
    for path, name in (("/features", "id"), ("/samples", "sample_id")):
        first = get(client, path, reviewed=False, limit=5)
        for one in first["items"]:
            at = f"/features/{one['id']}" if name == "id" else f"/sample?id={one[name]}"
            put(client, at, {"reviewed": True}, 0)
        following = get(client, path, reviewed=False, limit=5, cursor=first["next"])
        assert [one[name] for one in following["items"]] == [
            one[name] for one in get(client, path, limit=10)["items"][5:]
        ]


def test_all_that_was_written_page_by_page(client: TestClient) -> None:
    for feature in range(7):
        put(client, f"/features/{feature}", {"note": "n", "author": "Ann" if feature % 2 else "Bob"}, 0)
    first = get(client, "/annotations", limit=3)
    second = get(client, "/annotations", limit=3, cursor=first["next"])
    assert [one["key"] for one in [*first["items"], *second["items"]]] == ["6", "5", "4", "3", "2", "1"]
    assert [one["key"] for one in get(client, "/annotations", author="Ann")["items"]] == ["5", "3", "1"]


def test_lists_of_features_and_samples(client: TestClient) -> None:
    ids = samples(client, 3)
    reply = put(client, "/lists/dogs", {"title": "Dogs", "features": [DOG], "pair": {"sample_id": ids[0]}}, 0)
    assert reply.status_code == 200 and reply.json()["name"] == "dogs"
    put(client, "/lists/dogs", {"add_features": [CAT, DOG], "add_samples": ids[:2]})
    one = put(client, "/lists/dogs", {"remove_features": [DOG]}).json()
    assert (one["features"], one["samples"], one["pair"]["sample_id"]) == ([CAT], ids[:2], ids[0])
    assert [each["name"] for each in get(client, "/annotations/lists")["items"]] == ["dogs"]
    assert put(client, "/lists/dogs", {"features": [10**6]}, "*").status_code == 404
    assert put(client, "/lists/dogs", {"add_samples": ["no such"]}).json()["detail"].startswith("No sample 'no such'")
    assert put(client, "/lists/No Good", {}).status_code == 422
    assert client.delete(f"{API}/annotations/lists/dogs", headers={"If-Match": "3"}).status_code == 200
    assert client.get(f"{API}/annotations/lists/dogs").status_code == 404


def test_saved_filters(client: TestClient) -> None:
    body = {"title": "Mine", "page": "/features", "query": "verdict=dead&sort=id"}
    assert put(client, "/filters/mine", body, 0).status_code == 200
    assert put(client, "/filters/mine", {**body, "page": "//evil"}, 1).status_code == 422
    assert [one["query"] for one in get(client, "/annotations/filters", page="/features")["items"]] == [body["query"]]
    assert get(client, "/annotations/filters", page="/samples")["total"] == 0
    assert client.delete(f"{API}/annotations/filters/mine", headers={"If-Match": "1"}).json()["total"] == 0


def test_marks_give_a_precision_and_a_threshold(client: TestClient) -> None:
    pairs = get(client, "/samples", sort="mismatch", order="desc", limit=40)["items"]
    flag = next(one for one in get(client, "/flags")["items"] if one["name"] == "mismatch")
    for i, one in enumerate(pairs[:12]):
        reply = client.put(f"{API}/annotations/marks/mismatch", params={"id": one["sample_id"]}, json={"right": i < 8})
        assert reply.status_code == 200
    answer = get(client, "/annotations/marks/mismatch")
    assert len(answer["items"]) == 12 and sum(one["right"] for one in answer["items"]) == 8
    judged = [Judged(one["score"], one["right"]) for one in answer["items"]]
    above = [one for one in judged if one.score > flag["threshold"]]
    assert (answer["precision"]["n"], answer["precision"]["n_right"]) == (len(above), sum(one.right for one in above))
    limit = answer["suggestion"]["threshold"]
    taken = [one.right for one in judged if one.score > limit]
    assert taken == [True] * 8 and answer["suggestion"]["value"] == 1
    exported = client.get(f"{API}/filter", params={"require": f"mismatch:{limit!r}", "format": "ids"}).text.split()
    scores = {one["sample_id"] for one in get(client, "/samples", flag="mismatch", threshold=limit, limit=500)["items"]}
    assert set(exported) == scores >= {one["sample_id"] for one in pairs[:8]}
    gone = client.delete(f"{API}/annotations/marks/mismatch", params={"id": pairs[0]["sample_id"]}).json()
    assert len(gone["items"]) == 11


def test_precision_by_hand() -> None:
    marks = [Judged(score, score > 4) for score in range(10)]
    share = precision(marks, 2.5)
    assert (share.n, share.n_right) == (7, 5)
    z, p, n = 1.959963984540054, 5 / 7, 7
    middle, half = (p + z * z / 2 / n), z * (p * (1 - p) / n + z * z / 4 / n / n) ** 0.5
    assert share.low == pytest.approx((middle - half) / (1 + z * z / n))
    assert share.high == pytest.approx((middle + half) / (1 + z * z / n))
    best = suggest(marks)
    assert best is not None and best.threshold == 4.5 and best.value == 1
    assert suggest(marks[:9]) is None, "too few marks"
    assert suggest([Judged(one.score, False) for one in marks]) is None
    everything = suggest([Judged(one.score, True) for one in marks])
    assert everything is not None and everything.n == 10
    assert precision([], 0).value is None


def test_a_name_in_the_cookie_and_hostile_text(client: TestClient) -> None:
    client.cookies.set("saevx_author", "%C3%84nn%00e")
    text = "<script>alert(1)</script>\0 '\" \u202e"
    one = put(client, f"/features/{DOG}", {"label": text, "note": text}, 0).json()
    assert one["author"] == "Änne" and one["label"] == text.replace("\0", "").strip()
    for wrong in ({"label": "x" * 201}, {"tags": ["a,b"]}, {"tags": [" "]}, {"nonsense": 1}, {"tags": "x"}):
        reply = put(client, f"/features/{DOG}", wrong, 1)
        assert reply.status_code == 422 and reply.json()["errors"], wrong


def test_without_a_place_to_write_everything_else_works(store_path: Path) -> None:
    settings = Settings(stores=[store_path], live=False, annotations="sqlite:////proc/nothing/here.sqlite")
    with TestClient(create_app(settings)) as client:
        reply = put(client, f"/features/{DOG}", {"label": "x"}, 0)
        sentence = "Annotations are read-only: /proc/nothing/here.sqlite cannot be written. Give --annotations"
        assert reply.status_code == 403 and reply.json()["detail"].startswith(sentence)
        for path in ("/annotations", f"/annotations/features/{DOG}", "/features?tag=x", "/annotations/lists"):
            assert client.get(API + path).status_code == 200


def test_the_store_itself_never_changes(store_path: Path, tmp_path: Path) -> None:
    store = shutil.copytree(store_path, tmp_path / "store")
    before = {path: path.stat().st_mtime_ns for path in store.rglob("*")}
    with TestClient(create_app(Settings(stores=[store], live=False))) as client:
        assert put(client, f"/features/{DOG}", {"label": "x"}, 0).status_code == 200
        assert put(client, f"/features/{10**6}", {"label": "x"}, 0).status_code == 404
    assert {path: path.stat().st_mtime_ns for path in store.rglob("*")} == before
    assert (tmp_path / "store.annotations.sqlite").is_file()
    with TestClient(create_app(Settings(stores=[store], live=False))) as client:
        assert get(client, f"/features/{DOG}")["own_label"] == "x"


def test_a_page_of_another_site_writes_nothing(client: TestClient) -> None:
    headers = {"If-Match": "0", "Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"}
    reply = client.put(f"{API}/annotations/features/{DOG}", json={"label": "x"}, headers=headers)
    assert reply.status_code == 403 and get(client, f"/annotations/features/{DOG}")["version"] == 0


def test_an_export_leaves_out_exactly_the_pairs_that_were_marked_right(client: TestClient) -> None:
    """Whatever their threshold; those marked wrong and not marked stay. A mark that is taken back counts no more."""
    ids = [one["sample_id"] for one in get(client, "/samples", sort="mismatch", order="desc", limit=6)["items"]]
    for at, sample in enumerate(ids):
        mark = {"right": at < 5, "author": "ana"}
        assert client.put(f"{API}/annotations/marks/mismatch", params={"id": sample}, json=mark).is_success
    client.delete(f"{API}/annotations/marks/mismatch", params={"id": ids[4]})
    every = client.get(f"{API}/filter", params={"format": "ids"}).text.split()
    left = client.get(f"{API}/filter", params={"format": "ids", "without_right": "mismatch"})
    assert left.text.split() == [one for one in every if one not in ids[:4]]
    assert "-not-marked-mismatch.txt" in left.headers["content-disposition"]
    only = client.get(f"{API}/filter", params={"format": "ids", "only_right": "mismatch"}).text.split()
    assert sorted(only) == sorted(ids[:4])
    choice = {"without_right": "mismatch", "flags": "empty-text", "by": "pooled-cosine", "keep": 50}
    preview = get(client, "/filter/preview", **choice)
    filters = {"without_right": ["mismatch"], "flags": ["empty-text"], "by": "pooled-cosine", "keep": 50}
    assert preview["filters"] == filters
    again = client.get(f"{API}/filter", params={**preview["filters"], "format": "ids"}).text.split()
    assert len(again) == preview["n_kept"] and not set(again) & set(ids[:4])
    page = client.get("/quality?flag=mismatch&only_right=mismatch", headers={"accept": "text/html"}).text
    assert "Export all but the 4 marked" in page and ">flag </span>right<" in page and "without_right=mismatch" in page
    others = client.get("/quality?flag=empty-text", headers={"accept": "text/html"}).text
    assert "export-but-right" not in others
