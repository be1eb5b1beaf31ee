"""Each dependency has its line in docs/dependencies.md, and what is installed is what the locks name by checksum."""

import base64
import hashlib
import json
import re
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

from precompute.demo import assemble
from precompute.errors import SaevxError
from tests.supply.dependencies import LOCK, NPM_LOCK, PAGE, ROOT, direct, locked, render, table


def test_the_page_is_rendered_from_the_locks() -> None:
    assert PAGE.read_text("utf-8") == render(), "stale: run python -m tests.supply.dependencies"


def test_every_direct_dependency_has_a_line_and_no_other() -> None:
    lines = {group: [name for name in names if name != "released"] for group, names in table().items()}
    assert {group: sorted(names) for group, names in direct().items()} == {
        group: sorted(names) for group, names in lines.items()
    }
    assert all(len(one) == 3 and all(one) for names in table().values() for one in names.values() if type(one) is list)


def test_every_package_of_the_lock_has_checksums() -> None:
    names = re.findall(r"^([\w.-]+)==", LOCK.read_text("utf-8"), re.M)
    python = locked()
    assert sorted(map(canonicalize_name, names)) == sorted(python.keys() - {"torch"})
    assert all(one.hashes for name, one in python.items() if name != "torch")
    assert python["torch"].hashes == ()  # each index has builds of its own


def test_every_npm_package_has_a_checksum() -> None:
    packages = json.loads(NPM_LOCK.read_text("utf-8"))["packages"]
    for path, one in packages.items():
        if path:
            algorithm, _, digest = one["integrity"].partition("-")
            assert algorithm == "sha512" and len(base64.b64decode(digest)) == hashlib.sha512().digest_size, path


def test_set_up_and_the_image_install_by_checksum() -> None:
    for name in ("Makefile", "Dockerfile"):
        text = (ROOT / name).read_text("utf-8")
        assert "--no-deps --require-hashes -r requirements.lock" in text, name
        assert "npm ci" in text or "--prefix frontend ci" in text, name


@pytest.mark.parametrize("which", assemble.SHA256, ids=lambda one: one[1])
def test_changed_weights_of_the_demo_are_refused(
    which: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert assemble.package_file(which).is_file()
    package = tmp_path / which[0]
    (package / which[1]).parent.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / which[1]).write_bytes(b"other weights")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(SaevxError, match="is not the file the demo was made with"):
        assemble.package_file(which)
