"""What tests of live requests over HTTP share."""

import json
import time
from typing import Any

from fastapi.testclient import TestClient

API = "/api/v1"


def wait_ready(client: TestClient) -> None:
    end = time.monotonic() + 60
    while client.get("/readyz").status_code != 200:
        assert time.monotonic() < end, client.get("/readyz").text
        time.sleep(0.05)


def upload(data: bytes) -> dict[str, Any]:
    return {"image": ("picture.png", data, "image/png")}


def events(reply: Any) -> list[tuple[str, dict[str, Any]]]:
    """Server-sent events of a whole reply."""
    blocks = [block for block in reply.text.split("\n\n") if block.strip()]
    result = []
    for block in blocks:
        fields = dict(line.split(": ", 1) for line in block.splitlines())
        result.append((fields["event"], json.loads(fields["data"])))
    return result
