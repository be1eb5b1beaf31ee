"""Dockerfile, docker-compose.yml and the systemd unit keep our rules, and name only options and files that exist.

Where `docker compose` or `systemd-analyze` is there, it checks them too. No image is built here.
"""

import ast
import fnmatch
import json
import re
import shlex
import shutil
import subprocess
from typing import Any

import pytest
import yaml

from backend.commands import Demo, Saevx, Serve
from backend.settings import Settings
from tests.supply.dependencies import ROOT

PINNED = re.compile(r"[\w./-]+:\d+(\.\d+)+-[\w.-]+")
SECRETS = re.compile(r"token|password|secret|key", re.I)


def instructions() -> list[tuple[str, str]]:
    """(instruction, arguments) of the Dockerfile, without comments, with lines joined."""
    lines = (ROOT / "Dockerfile").read_text("utf-8").splitlines()
    text = "\n".join(line for line in lines if not line.lstrip().startswith("#"))
    whole = re.sub(r"\\\n\s*", " ", text).splitlines()
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in whole if line.strip()]


def compose() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))


def test_the_image_has_pinned_bases_and_no_root() -> None:
    lines = instructions()
    names = [name for name, _ in lines]
    stages = [one.split() for name, one in lines if name == "FROM"]
    assert len(stages) == 3 and all(PINNED.fullmatch(stage[0]) for stage in stages), stages
    assert "ADD" not in names and names.count("ENTRYPOINT") == names.count("HEALTHCHECK") == 1
    last = lines[max(i for i, name in enumerate(names) if name == "FROM") :]
    users = [one for name, one in last if name == "USER"]
    assert users == ["saevx"] and [name for name, _ in last].index("USER") < [name for name, _ in last].index("CMD")
    assert not [one for name, one in lines if name in ("ENV", "ARG") and SECRETS.search(one)]


def test_the_image_installs_by_checksum_and_leaves_no_cache() -> None:
    runs = [one for name, one in instructions() if name == "RUN"]
    for one in runs:
        assert one.count("pip install") == one.count("--no-cache-dir"), one
        assert not re.search(r"curl|wget|apt-get|sudo", one), one
    assert any("--require-hashes" in one for one in runs) and any("npm ci" in one for one in runs)


def test_what_is_copied_exists_and_is_not_left_out() -> None:
    ignored = (ROOT / ".dockerignore").read_text("utf-8").split()
    for name, one in instructions():
        if name == "COPY" and not one.startswith("--from"):
            for source in one.split()[:-1]:
                assert (ROOT / source).exists(), source
                assert not any(fnmatch.fnmatch(source.removeprefix("./"), pattern) for pattern in ignored), source


def test_the_health_check_and_the_command_can_run() -> None:
    of = dict(instructions())
    check = json.loads(of["HEALTHCHECK"].partition("CMD ")[2])
    assert check[:2] == ["python", "-c"] and ast.parse(check[2])
    command = json.loads(of["CMD"])
    assert command[0] in Saevx.model_fields
    assert {one.removeprefix("--") for one in command if one.startswith("--")} <= Demo.model_fields.keys()


def test_compose_names_what_exists() -> None:
    content = compose()
    assert set(content["services"]) == {"explorer", "database", "precompute"}
    for name, one in content["services"].items():
        assert "build" in one or PINNED.fullmatch(one["image"]), name
        assert not one.get("privileged") and "no-new-privileges:true" in one["security_opt"], name
        assert all(str(port).startswith("127.0.0.1:") for port in one.get("ports", [])), name
        for volume in one.get("volumes", []):
            source = re.sub(r"\$\{\w+:-(\w+)\}", r"\1", volume).split(":")[0]
            assert source in content["volumes"], volume
        assert set(one.get("networks", [])) <= content["networks"].keys()
        own = {key for key in one.get("environment", {}) if key.startswith("SAEVX_")}
        assert {key.removeprefix("SAEVX_").lower() for key in own} <= Settings.model_fields.keys(), name
    default = re.match(r"\$\{\w+:-(.*)\}$", content["services"]["explorer"]["command"])
    assert default and shlex.split(default[1])[0] in Saevx.model_fields


def test_compose_keeps_the_database_apart_and_the_gpu_optional() -> None:
    services = compose()["services"]
    assert "ports" not in services["database"] and compose()["networks"]["annotations"]["internal"]
    assert services["explorer"]["depends_on"]["database"]["condition"] == "service_healthy"
    assert services["explorer"]["read_only"] and services["explorer"]["cap_drop"] == ["ALL"]
    assert services["precompute"]["profiles"] and services["precompute"]["build"]["args"] == {"COMPUTE": "cuda"}
    (device,) = services["precompute"]["deploy"]["resources"]["reservations"]["devices"]
    assert device["driver"] == "nvidia" and device["capabilities"] == ["gpu"]


def test_docker_compose_reads_it() -> None:
    docker = shutil.which("docker")
    command = [docker or "", "compose"]
    if docker is None or subprocess.run([*command, "version"], capture_output=True, check=False).returncode:
        pytest.skip("no docker compose on this machine")
    done = subprocess.run([*command, "config", "--quiet"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_unit_names_options_that_exist() -> None:
    text = (ROOT / "docs/deploy/saevx.service").read_text("utf-8")
    start = re.search(r"^ExecStart=(.*)$", text, re.M)
    assert start is not None
    words = shlex.split(start[1])
    assert words[1] in Saevx.model_fields
    options = {one.removeprefix("--").replace("-", "_") for one in words if one.startswith("--")}
    assert options <= Serve.model_fields.keys()
    assert "NoNewPrivileges=yes" in text and re.search(r"^User=(?!root)", text, re.M)


def test_systemd_reads_the_unit() -> None:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("no systemd-analyze on this machine")
    command = [program, "verify", "--man=no", str(ROOT / "docs/deploy/saevx.service")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    ours = [line for line in done.stderr.splitlines() if "saevx.service" in line and "not executable" not in line]
    assert not ours, ours
