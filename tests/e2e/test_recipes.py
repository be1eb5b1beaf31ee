"""Every block of docs/recipes.md runs against a real server with its model, from the first to the last."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from precompute.store.reader import Store
from tests.helpers.demo import Demo
from tests.helpers.servers import Server

PAGE = (Path(__file__).parents[2] / "docs" / "recipes.md").read_text("utf-8")


@pytest.fixture(scope="module")
def names(server: Server) -> dict[str, Any]:
    defined: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE, re.S):
        exec(compile(block.replace("http://127.0.0.1:8000", server.url), "docs/recipes.md", "exec"), defined)
    return defined


def test_the_recipes_read_what_the_store_holds(names: dict[str, Any], demo: Demo) -> None:
    store = Store.open(demo.store)
    assert "dog" in names["best"]["label"]
    assert names["examples"]["items"] and names["partners"]["items"]
    np.testing.assert_array_equal(names["raw_d"], store.directions.get(names["best"]["id"]).raw_d)
    flagged = {row["sample_id"] for row in store.samples.list(flag="mismatch", limit=500).items}
    exported = {json.loads(line)["id"] for line in names["lines"]}
    assert len(exported) == store.n_samples - len(flagged) and not exported & flagged


def test_the_recipes_use_the_model(names: dict[str, Any]) -> None:
    assert names["scored"]["scores"] and not names["scored"]["flags"]
    runs = names["answer"]["runs"]
    assert len(runs) == 4 and runs[0]["target"]["p_steered"] > runs[3]["target"]["p_steered"]
    assert names["why"]["raising"][0]["part"] > 0 and names["test"]["words"]
    assert names["written"].status_code == 200
