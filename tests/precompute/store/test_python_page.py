"""Every block of docs/python.md runs on a real store, and arrays have the type and shape that the page says."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from precompute.store.reader import Store

PAGE = (Path(__file__).parents[3] / "docs" / "python.md").read_text("utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.S)


@pytest.fixture(scope="module")
def names(made_up: Store, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the blocks define, run one after the other as a notebook does."""
    folder = tmp_path_factory.mktemp("notebook")
    (folder / "demo").mkdir()
    (folder / "demo" / "store").symlink_to(made_up.path)
    defined: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for block in BLOCKS:
            exec(compile(block, "docs/python.md", "exec"), defined)
    return defined


def test_the_blocks_run_and_read_something(names: dict[str, Any]) -> None:
    assert len(names["items"]) == 200 and names["page"].next is None
    lists = [names[name] for name in ("flagged", "dogs", "not_dense", "pairs", "rejected")]
    assert all(0 < len(one.items) <= one.total for one in lists)
    assert len(names["chosen"]) and len(names["worst"]) == 10
    assert names["heat"].max() == pytest.approx(names["example"]["activation"])
    assert names["z_of_best"].max() >= names["heat"].max()
    assert len(names["image_features"]) == len(names["image_maxima"]) > 0


def test_arrays_have_the_type_and_shape_that_the_page_says(names: dict[str, Any]) -> None:
    t, e = len(names["token_id"]), len(names["feature"])
    sizes = {"F": names["store"].n_features, "N": names["store"].n_samples, "t": t, "t+1": t + 1, "e": e}
    sizes["d"] = names["store"].summary["d_model"]
    typed = re.findall(r"^(\w+) = .*  # (\w+) \[(.+)\]$", PAGE, re.M)
    for name, dtype, axes in typed:
        shape = tuple(sizes[axis] if axis in sizes else int(axis) for axis in axes.split(", "))
        assert (names[name].dtype, names[name].shape) == (np.dtype(dtype), shape), name
    assert len(typed) == PAGE.count("  # ") > 10


def test_the_table_names_what_exists(made_up: Store) -> None:
    rows = re.findall(r"^\| `store\.(\w+)` \| (.*) \|$", PAGE, re.M)
    for noun, columns in rows:
        for name in re.findall(r"`(\w+)`", columns):
            assert hasattr(type(getattr(made_up, noun)), name), (noun, name)
    public = {noun for noun, value in vars(made_up).items() if type(value).__module__.startswith("precompute.store.")}
    assert public - {"_core"} <= {noun for noun, _ in rows}
    for noun, columns in rows:
        if noun not in ("events", "map"):  # their arrays are described in docs/store.md
            methods = {name for name in vars(type(getattr(made_up, noun))) if not name.startswith("_")}
            assert methods <= {*re.findall(r"`(\w+)`", columns), "reason", "raised"}, (noun, methods)
