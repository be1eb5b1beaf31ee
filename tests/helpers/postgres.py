"""A real PostgreSQL server for tests, from the system's package `postgresql`."""

import os
import pwd
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from tests.helpers.servers import free_port


def program(name: str) -> Path:
    """One of PostgreSQL's programs; without it the test is skipped, or fails where CI is set."""
    on_path = shutil.which(name)
    places = [Path(on_path)] if on_path else sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    if not places:
        message = f"no {name} on this machine: `apt-get install postgresql`"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return places[-1]


@contextmanager
def postgres() -> Iterator[str]:
    """The address of a server of its own, stopped with the block."""
    initdb, pg_ctl = program("initdb"), program("pg_ctl")
    folder = Path(tempfile.mkdtemp(prefix="saevx-postgres-"))
    as_user: dict[str, Any] = {"cwd": folder, "check": True, "stdout": subprocess.DEVNULL}
    if os.geteuid() == 0:  # the server refuses to run as root
        owner = next(entry for entry in pwd.getpwall() if entry.pw_name in ("postgres", "nobody"))
        os.chown(folder, owner.pw_uid, owner.pw_gid)
        as_user |= {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []}
    data, port = folder / "data", free_port()
    make = [initdb, "-D", data, "-U", "saevx", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]
    subprocess.run(make, **as_user)
    options = f"-k {folder} -p {port} -c listen_addresses=127.0.0.1 -c fsync=off"
    log = folder / "log"
    subprocess.run([pg_ctl, "-D", data, "-l", log, "-o", options, "-w", "start"], **as_user)
    try:
        yield f"postgresql://saevx@127.0.0.1:{port}/postgres"
    finally:
        subprocess.run([pg_ctl, "-D", data, "-m", "immediate", "stop"], **{**as_user, "check": False})
        shutil.rmtree(folder, ignore_errors=True)


def new_database(server: str) -> str:
    """The address of an empty database of the server with this address."""
    name = f"test_{uuid.uuid4().hex}"
    engine = create_engine(server.replace("postgresql:", "postgresql+psycopg:"), isolation_level="AUTOCOMMIT")
    with engine.connect() as conn:
        conn.execute(text(f"CREATE DATABASE {name}"))
    engine.dispose()
    return f"{server.rpartition('/')[0]}/{name}"
