"""Sample ids in addresses. An id is whatever the data has: a path, a URL, `..`, a line break, three thousand letters.

Most ids stand in the path as they are, `/samples/coco/17.jpg`. One that a path cannot carry safely, because clients,
proxies or our own routes would read it as something else, is written `~` and its UTF-8 in URL-safe base64 without
padding: `/samples/~YS9pbWFnZQ` for `a/image`. As a query parameter an id has none of these troubles, so `/sample?id=…`
takes any as it is.
"""

from __future__ import annotations

import base64
import binascii
from typing import Annotated
from urllib.parse import quote, unquote

from fastapi import Path, Query
from pydantic import AfterValidator

PARTS = ("activations", "features", "image")
"""Last parts of the addresses below a sample's own."""
LONGEST_PLAIN = 500
"""Characters of an id that stands in the path as it is."""
_MARK = "~"
_LONGEST = 20_000  # what a server takes of an address is less


def sample_key(sample_id: str) -> str:
    """How addresses name a sample: its id where a path can carry that, else the id encoded."""
    return sample_id if _is_plain(sample_id) else _MARK + _encoded(sample_id)


def sample_of(key: str) -> str:
    """The id that an address names, encoded or as it is: what `sample_key` has not made stands for itself."""
    if not key.startswith(_MARK):
        return key
    try:
        sample_id = base64.b64decode(key[1:] + "=" * (-len(key[1:]) % 4), altchars=b"-_", validate=True).decode()
    except (ValueError, binascii.Error):
        return key
    return sample_id if sample_id and sample_key(sample_id) == key else key


def sample_path(sample_id: str) -> str:
    """The path of a sample, below the server's or the API's own: `/samples/…`."""
    return f"/samples/{quote(sample_key(sample_id))}"


def _encoded(sample_id: str) -> str:
    return base64.urlsafe_b64encode(sample_id.encode("utf-8", "surrogatepass")).decode().rstrip("=")


def _is_plain(sample_id: str) -> bool:
    parts = sample_id.split("/")
    return (
        sample_id.isprintable()  # line breaks end a path in some places and are dropped in others
        and sample_id == sample_id.strip()
        and not sample_id.startswith(_MARK)
        and "\\" not in sample_id  # some take it for a slash
        and unquote(sample_id) == sample_id  # some decode twice
        and not {"", ".", ".."} & set(parts)  # resolved by clients, merged by proxies
        and (len(parts) == 1 or parts[-1] not in PARTS)
        and len(sample_id) <= LONGEST_PLAIN
    )


InPath = Annotated[
    str,
    Path(max_length=_LONGEST, description="The sample's id, or as the API's links have it (docs/api.md)."),
    AfterValidator(sample_of),
]
InQuery = Annotated[str, Query(alias="id", min_length=1, max_length=_LONGEST, description="The sample's own id.")]
