"""Addresses in replies, and sample ids in addresses.

Addresses keep the proxy's prefix, the store, and the content id. A sample id is whatever the data has: a path, a URL,
`..`, a line break, three thousand letters. Most ids stand in the path unchanged, `/samples/coco/17.jpg`. Clients,
proxies or our own routes would read some ids differently; such an id is written as `~` and its UTF-8 in URL-safe base64
without padding: `/samples/~YS9pbWFnZQ` for `a/image`. A query parameter can carry any id, so `/sample?id=…` takes every
id unchanged.
"""

import base64
import binascii
import inspect
import re
from collections.abc import Callable, Iterable
from functools import wraps
from typing import Annotated, Any, get_type_hints
from urllib.parse import quote, unquote, urlencode

from fastapi import APIRouter, HTTPException, Path, Query, Request
from pydantic import AfterValidator

from backend.problems import http_status
from backend.stores import OpenStore, State

IMMUTABLE = "public, max-age=31536000, immutable"
PARTS = ("activations", "features", "image", "nearest", "why")
"""Last parts of the addresses below the address of a sample."""
MAX_PLAIN_LENGTH = 500
"""Characters of an id that stands in the path unchanged."""
_MARK = "~"
_SIMPLE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{,200}")
"""Ids of which neither `sample_key` nor quoting changes anything."""
_MAX_LENGTH = 20_000  # more than a server accepts in an address


def sample_key(sample_id: str) -> str:
    """How addresses name a sample: its id if a path can carry it, otherwise the encoded id."""
    return sample_id if _is_plain(sample_id) else _MARK + _encode_id(sample_id)


def sample_of(key: str) -> str:
    """The id that an address names. A key that `sample_key` cannot have returned stands for itself."""
    if not key.startswith(_MARK):
        return key
    try:
        sample_id = base64.b64decode(key[1:] + "=" * (-len(key[1:]) % 4), altchars=b"-_", validate=True).decode()
    except (ValueError, binascii.Error):
        return key
    return sample_id if sample_id and sample_key(sample_id) == key else key


def sample_path(sample_id: str) -> str:
    """The path of a sample below the root of the server or the API: `/samples/…`."""
    if _SIMPLE.fullmatch(sample_id):  # as most are
        return f"/samples/{sample_id}"
    return f"/samples/{quote(sample_key(sample_id))}"


def _encode_id(sample_id: str) -> str:
    return base64.urlsafe_b64encode(sample_id.encode("utf-8", "surrogatepass")).decode().rstrip("=")


def _is_plain(sample_id: str) -> bool:
    parts = sample_id.split("/")
    return (
        sample_id.isprintable()  # some programs end a path at a line break, others drop it
        and sample_id == sample_id.strip()
        and not sample_id.startswith(_MARK)
        and "\\" not in sample_id  # some programs read it as a slash
        and unquote(sample_id) == sample_id  # some programs decode twice
        and not {"", ".", ".."} & set(parts)  # resolved by clients, merged by proxies
        and (len(parts) == 1 or parts[-1] not in PARTS)
        and len(sample_id) <= MAX_PLAIN_LENGTH
    )


InPath = Annotated[
    str,
    Path(max_length=_MAX_LENGTH, description="The sample's id, encoded if a path cannot carry it (docs/api.md)."),
    AfterValidator(sample_of),
]
InQuery = Annotated[
    str, Query(alias="id", min_length=1, max_length=_MAX_LENGTH, description="The sample's id, unchanged.")
]


def base_path(request: Request) -> str:
    """Prefix of every link: the path under which a proxy shows the server."""
    return str(request.scope.get("root_path", "")).rstrip("/")


def uploaded_url(request: Request, hash: str) -> str:
    """Address of an uploaded image."""
    return f"{base_path(request)}/api/v1/images/{quote(hash)}"


def uploaded_image(request: Request, hash: str, size: tuple[int, int]) -> dict[str, Any]:
    """An uploaded image as `schemas.live.OwnImageRef` has it."""
    width, height = size
    return {"hash": hash, "url": uploaded_url(request, hash), "width": width, "height": height}


class ImageLinks:
    """Addresses of the images of samples, for one request and store."""

    def __init__(self, request: Request, store: OpenStore) -> None:
        state: State = request.app.state.saevx
        self.base = base_path(request)
        self.version = store.content_id[:12]
        self.store = None if store.name == state.default_name else store.name
        self.of_store = f"&{urlencode({'store': self.store})}" if self.store else ""

    def cache_control(self, version: str | None) -> str:
        """For ever at an address with this store's version; any other may be of a store that was replaced."""
        return IMMUTABLE if version == self.version else "no-cache"

    def image(self, sample_id: str, index: int) -> str:
        """Address of a sample's image; `&size=` and `&crop=` may be added to it."""
        number = f"&image={index}" if index else ""
        return f"{self.base}/api/v1{sample_path(sample_id)}/image?v={self.version}{number}{self.of_store}"

    def images(self, item: dict[str, Any]) -> dict[str, Any]:
        """`item` with its stored `images` as `{url, width, height}`."""
        sample_id = item["sample_id"]
        images = [
            {"url": self.image(sample_id, index), "width": image["width"], "height": image["height"]}
            for index, image in enumerate(item["images"])
        ]
        return {**item, "images": images}

    def all_images(self, items: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
        return [self.images(item) for item in items]


def check_feature(store: OpenStore, feature: int) -> None:
    """Raise HTTP 404 if the store has no such feature."""
    if not 0 <= feature < store.reader.n_features:
        last = store.reader.n_features - 1
        raise HTTPException(404, f"There is no feature {feature}: store {store.name} has features 0 to {last}.")


def check_sample(store: OpenStore, sample_id: str) -> int:
    """The sample's row, or HTTP 404."""
    with http_status(404):
        return store.reader.samples.row(sample_id)


def add_sample_route(
    router: APIRouter, part: str, summary: str, **options: Any
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Serve an endpoint about one sample at two addresses, `/samples/{sample_id}` and `/sample?id=…`, each followed by
    `part`. The endpoint's parameter `sample_id` is the id."""

    def add(endpoint: Callable[..., Any]) -> Callable[..., Any]:
        router.get(f"/samples/{{sample_id:path}}{part}", summary=summary, **options)(endpoint)
        router.get(f"/sample{part}", summary=f"{summary}, by query parameter", **options)(with_query_id(endpoint))
        return endpoint

    return add


def with_query_id(endpoint: Callable[..., Any]) -> Callable[..., Any]:
    """The same endpoint with the sample's id as the query parameter `id` instead of in the path."""
    hints = get_type_hints(endpoint, include_extras=True) | {"sample_id": InQuery}
    signature = inspect.signature(endpoint)
    parameters = [parameter.replace(annotation=hints[name]) for name, parameter in signature.parameters.items()]

    if inspect.iscoroutinefunction(endpoint):

        @wraps(endpoint)
        async def by_id(**arguments: Any) -> Any:
            return await endpoint(**arguments)
    else:

        @wraps(endpoint)
        def by_id(**arguments: Any) -> Any:
            return endpoint(**arguments)

    by_id.__name__ += "_by_id"
    by_id.__signature__ = signature.replace(parameters=parameters, return_annotation=hints["return"])  # type: ignore[attr-defined]
    return by_id
