"""Addresses that replies carry: they keep the proxy's prefix, the store, and the content id."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from urllib.parse import urlencode

from fastapi import HTTPException, Request

from backend.deps import OpenStore, State, base_path
from backend.sample_ids import sample_path
from precompute.errors import SaevxError
from precompute.store.opening import StoreUnreadable


class Links:
    """Links of one request to one store."""

    def __init__(self, request: Request, store: OpenStore) -> None:
        state: State = request.app.state.saevx
        self.base = base_path(request)
        self.version = store.content_id[:12]
        self.store = None if store.name == state.default_name else store.name
        self.of_store = f"&{urlencode({'store': self.store})}" if self.store else ""

    def image(self, sample_id: str, index: int) -> str:
        """Address of a sample's picture; `&size=` and `&crop=` may be added to it."""
        which = f"&image={index}" if index else ""
        return f"{self.base}/api/v1{sample_path(sample_id)}/image?v={self.version}{which}{self.of_store}"

    def images(self, item: dict[str, Any]) -> dict[str, Any]:
        """`item` with its stored `images` turned into `{url, width, height}`."""
        sample_id = item["sample_id"]
        shown = [
            {"url": self.image(sample_id, index), "width": one["width"], "height": one["height"]}
            for index, one in enumerate(item["images"])
        ]
        return {**item, "images": shown}

    def all_images(self, items: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
        return [self.images(item) for item in items]


def check_feature(store: OpenStore, feature: int) -> None:
    """HTTP 404 where the store has no such feature."""
    if not 0 <= feature < store.store.n_features:
        last = store.store.n_features - 1
        raise HTTPException(404, f"No feature {feature}: store {store.name} has 0 to {last}.")


def check_sample(store: OpenStore, sample_id: str) -> int:
    """The sample's row, or HTTP 404."""
    try:
        return store.store.samples.row(sample_id)
    except StoreUnreadable:
        raise
    except SaevxError as error:
        raise HTTPException(404, str(error)) from error
