"""Flags together, and what a filter keeps, against sets made from the list of samples."""

import csv
import io
import json
from typing import Any

import pyarrow.parquet as pq
import pytest
from fastapi.testclient import TestClient

from precompute.store.schema import FLAGS
from tests.helpers.json_api import API, get


def samples(client: TestClient, **params: Any) -> list[str]:
    return [one["sample_id"] for one in get(client, "/samples", limit=500, **params)["items"]]


@pytest.mark.parametrize("moved", [None, 0.5])
def test_overlap_counts_pairs_with_both_flags(client: TestClient, moved: float | None) -> None:
    overlap = get(client, "/flags/overlap", **({"flags": f"mismatch:{moved}"} if moved else {}))
    having = {
        name: set(samples(client, flag=name, **({"threshold": moved} if moved and name == "mismatch" else {})))
        for name in FLAGS
    }
    assert [one.partition(":")[0] for one in overlap["flags"]] == list(FLAGS)
    assert overlap["counts"] == [[len(having[a] & having[b]) for b in FLAGS] for a in FLAGS]
    assert overlap["n_flagged"] == len(set().union(*having.values()))
    both = f"{overlap['flags'][0]},unsupported"
    assert set(samples(client, flags=both)) == having["mismatch"] & having["unsupported"] != set()


def test_a_filter_leaves_out_and_requires_flags(client: TestClient) -> None:
    everything, bad = samples(client), set(samples(client, flag="mismatch"))
    for options, expected in (
        ({"flags": "mismatch"}, [one for one in everything if one not in bad]),
        ({"require": "mismatch"}, [one for one in everything if one in bad]),
        ({"require": "mismatch", "flags": "mismatch:0.1"}, []),
    ):
        lines = [json.loads(line) for line in client.get(f"{API}/filter", params=options).text.splitlines()]
        assert [line["id"] for line in lines] == expected
        assert not any("random" in line or "cosine" in line for line in lines)  # nothing ranked them
        preview = get(client, "/filter/preview", **options)
        assert preview["n_kept"] == preview["matching"] == len(expected) and preview["ids"] == expected[:20]
        assert preview["total"] == len(everything) and preview["cut"] is None


@pytest.mark.parametrize("options", [{"by": "pooled-cosine", "keep": 30, "flags": "mismatch"}, {"require": "blank"}])
def test_every_format_holds_the_same_pairs(client: TestClient, options: dict[str, Any]) -> None:
    bodies = {
        name: client.get(f"{API}/filter", params={**options, "format": name})
        for name in ("jsonl", "csv", "parquet", "ids")
    }
    lines = [json.loads(line) for line in bodies["jsonl"].text.splitlines()]
    rows = list(csv.DictReader(io.StringIO(bodies["csv"].text)))
    table = pq.read_table(io.BytesIO(bodies["parquet"].content)).to_pylist()
    assert bodies["ids"].text.split() == [one["id"] for one in lines] == [one["id"] for one in rows]
    assert [one["id"] for one in table] == [one["id"] for one in lines] and lines
    preview = get(client, "/filter/preview", **options)
    for name, reply in bodies.items():
        ending = "txt" if name == "ids" else name
        assert reply.headers["content-disposition"] == f'attachment; filename="{preview["file"]}.{ending}"'
        assert int(reply.headers["x-kept-count"]) == preview["n_kept"] == len(lines)
    for line, row, item in zip(lines, rows, table, strict=True):
        assert set(line) <= set(row) and list(row) == list(item)
        for name, value in line.items():
            if name == options.get("by"):
                assert float(row[name]) == item[name] == value
            elif value is None:
                assert item[name] is None and row[name] == ""
            else:
                assert item[name] == (value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
                assert row[name] == item[name]
    if "by" in options:
        assert preview["cut"] == min(line["pooled-cosine"] for line in lines)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({}, "synthetic"),
        ({"flags": "mismatch:0.917"}, "synthetic-not-mismatch-0.917"),
        ({"flags": "all"}, "synthetic-not-flagged"),
        ({"flags": "blank:0.1,dark,tiny,blurred", "require": "mismatch:0.5"}, "synthetic-mismatch-0.5-not-4-flags"),
        ({"by": "cosine", "keep": 12.5}, "synthetic-cosine-12.5"),
        ({"by": "cosine"}, "synthetic-cosine-50"),
    ],
)
def test_a_file_is_named_by_what_it_holds(client: TestClient, options: dict[str, Any], name: str) -> None:
    assert get(client, "/filter/preview", **options)["file"] == name


@pytest.mark.parametrize(
    ("path", "options", "words"),
    [
        ("/filter", {"keep": 20}, "name a score"),
        ("/filter", {"require": "ugly"}, "Unknown flag"),
        ("/filter/preview", {"flags": "dark:x"}, "no flag with a threshold"),
        ("/flags/overlap", {"flags": "ugly:1"}, "Unknown flag"),
        ("/samples", {"flags": "ugly"}, "Unknown flag"),
    ],
)
def test_wrong_choices_are_one_sentence(client: TestClient, path: str, options: dict[str, Any], words: str) -> None:
    reply = client.get(f"{API}{path}", params=options)
    assert reply.status_code in (400, 422) and words in reply.json()["detail"]
