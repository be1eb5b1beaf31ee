"""The JSON API as tests ask it: one answer, or all pages of a list."""

from typing import Any

from fastapi.testclient import TestClient

API = "/api/v1"


def get(client: TestClient, path: str, **params: Any) -> Any:
    reply = client.get(API + path, params=params)
    assert reply.status_code == 200, reply.text
    return reply.json()


def walk(client: TestClient, path: str, **params: Any) -> list[Any]:
    """A list page by page; checks `total`, and so that no item comes twice."""
    items: list[Any] = []
    cursor: str | None = ""
    while cursor is not None:
        page = get(client, path, **params, **({"cursor": cursor} if cursor else {}))
        items, cursor = items + page["items"], page["next"]
    assert len(items) == page["total"]
    return items
