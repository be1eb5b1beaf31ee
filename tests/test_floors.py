"""The floors of pyproject.toml lie above the holes that are known, and the tested set of versions satisfies each."""

import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.supply.dependencies import locked

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
ASKED = [Requirement(one) for one in PROJECT["dependencies"]] + [
    Requirement(one) for extra in PROJECT["optional-dependencies"].values() for one in extra
]
LOCKED = {name: one.version for name, one in locked().items()}
SAFE = {
    "torch": "2.10",
    "transformers": "5.3",
    "datasets": "4.0",
    "pyarrow": "23.0.1",
    "starlette": "1.3.1",
    "h11": "0.16",
    "python-multipart": "0.0.30",
    "jinja2": "3.1.6",
    "pillow": "13.0",
    "tqdm": "4.66.3",
    "requests": "2.33",
    "urllib3": "2.7",
    "ray": "2.56",
}
"""The first version without a known vulnerability, by package; pyproject.toml names the holes."""


def floor(name: str) -> Version:
    requirement = next(one for one in ASKED if canonicalize_name(one.name) == name)
    return max(Version(part.version) for part in requirement.specifier if part.operator in (">=", "=="))


@pytest.mark.parametrize("name", SAFE)
def test_no_version_with_a_known_hole_is_allowed(name: str) -> None:
    assert floor(name) >= Version(SAFE[name])


@pytest.mark.parametrize("requirement", ASKED, ids=lambda one: one.name)
def test_the_lock_satisfies_what_is_asked_for(requirement: Requirement) -> None:
    if requirement.marker is not None and not requirement.marker.evaluate():
        pytest.skip("not for this system")
    locked = LOCKED[canonicalize_name(requirement.name)]
    assert requirement.specifier.contains(locked, prereleases=True), f"{requirement} and {requirement.name}=={locked}"


@pytest.mark.parametrize("name", SAFE)
def test_what_is_installed_here_has_no_known_hole(name: str) -> None:
    assert Version(version(name)) >= Version(SAFE[name])
