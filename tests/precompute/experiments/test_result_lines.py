"""Result files that grow line by line: a killed run goes on, and a file of somebody else's stays as it is."""

from pathlib import Path

import pytest

from precompute.errors import SaevxError
from precompute.experiments.result_lines import append_line, read_lines


def test_half_a_line_is_written_again(tmp_path: Path) -> None:
    path = tmp_path / "new" / "r.jsonl"
    assert read_lines(path) == []
    append_line(path, {"about": "é"})
    with path.open("a") as file:
        file.write('{"accuracy": 0.')
    assert read_lines(path) == [{"about": "é"}]
    append_line(path, {"accuracy": 0.5})
    assert path.read_text(encoding="utf-8") == '{"about": "é"}\n{"accuracy": 0.5}\n'


@pytest.mark.parametrize(
    "content", [b"notes", b"notes\n", b"{\n", b"[1]\n", b"1\n", b"\xff\n", b'{"a": 1}', b"[" * 9999 + b"\n", b"\n"]
)
def test_another_file_is_refused_and_stays(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_bytes(content)
    with pytest.raises(SaevxError, match="is no result file of this experiment: choose another --out"):
        read_lines(path)
    assert path.read_bytes() == content
