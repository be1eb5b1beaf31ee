"""The Python of the README runs, on a made-up store."""

import re

import pytest

from tests.helpers import synthetic
from tests.helpers.architecture import ROOT

MAX_LINES = 20


def test_the_python_of_the_readme_runs(
    tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S)
    assert len(blocks) == 1 and blocks[0].count("\n") <= MAX_LINES
    store = synthetic.small_store(tmp_path_factory)
    assert '"demo/store"' in blocks[0]
    exec(compile(blocks[0].replace('"demo/store"', repr(str(store))), "README.md", "exec"), {})
    assert "128 features, 80 samples" in capsys.readouterr().out
