"""Names of files for addresses: readable, and valid and different on every file system."""

import re
from hashlib import sha256
from urllib.parse import parse_qsl, unquote

MAX_LENGTH = 60
"""Characters of a part of a path."""
_UNSAFE = re.compile(
    r"[^A-Za-z0-9._=-]+|^\.+|\.+$|\.{2,}|^(?:aux|con|nul|prn|com\d|lpt\d)(?=\.|$)|\.(?=(?:html|json|webp)$)", re.I
)
"""Also Windows' names of devices, and ends of files, which a folder must not have where a file has that name."""


class Names:
    """The file of each address, relative to the site's folder. The same address has one file, and two addresses never
    share one, also where upper and lower case are one."""

    def __init__(self) -> None:
        self.file_of: dict[str, str] = {}
        self._file_names: set[str] = set()

    def add(self, address: str, end: str) -> str:
        """The file of an address without `/api/v1`, such as `/features/12?modality=text`; `end` is its extension."""
        if address not in self.file_of:
            name = plain_name(address)
            file = f"{name}{end}"
            if file.lower() in self._file_names:
                file = f"{name}-{_digest(address)}{end}"
            self._file_names.add(file.lower())
            self.file_of[address] = file
        return self.file_of[address]


def plain_name(address: str) -> str:
    """`features/12--text` for `/features/12?modality=text`."""
    path, _, query = address.partition("?")
    name = "/".join(_part(part) for part in unquote(path).strip("/").split("/")) or "index"
    values = "-".join(value for key, value in sorted(parse_qsl(query)) if key != "v")
    return f"{name}--{_part(values)}" if values else name


def _part(text: str) -> str:
    safe = _UNSAFE.sub("-", text)
    return safe if safe == text and len(safe) <= MAX_LENGTH else f"{safe[:40]}-{_digest(text)}"


def _digest(text: str) -> str:
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:10]
