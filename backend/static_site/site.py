"""`saevx export`: follows the links of the application's own pages, and writes each page as a file."""

import asyncio
import heapq
import json
import os
import re
import shutil
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, parse_qsl, quote, urlencode

from fastapi import FastAPI

from backend.inside import request
from backend.static_site.html import SCRIPTS, StaticPage
from backend.static_site.names import Names
from precompute.options.static_site import StaticSiteOptions
from precompute.utils.command_line import from_environment
from precompute.utils.files import atomic_folder
from precompute.utils.ownership import creating
from precompute.utils.progress import human, progress_bar

FRONTEND = Path(__file__).resolve().parents[2] / "frontend"
STATES: dict[str, tuple[int, set[str]]] = {
    "": (0, set()), "features": (1, {"verdict", "cursor"}), "feature": (2, {"modality"}), "map": (3, set()),
    "cooccurrence": (3, set()), "pair": (4, {"a", "b", "kind"}), "quality": (3, {"flag"}), "sae": (3, set()),
    "rejected": (3, {"cursor", "kind"}), "method": (3, set()), "samples": (5, {"cursor"}), "sample": (6, set()),
}  # fmt: skip
"""Kind of page → when it is written, as pages written earlier decide which later ones there are; and the parameters by
which it has several states, each a file."""
IN_SCRIPTS = {"sample": {"f", "feature"}, "map": {"colour"}}
"""Parameters that a script answers, so that one file has all their states."""
N_AT_ONCE = 64
"""Features whose activations one request gives."""
SIGNIFICANT = 4
"""Digits of the activations of a sample."""


def kind_of(path: str) -> str:
    """Kind of the page at a path, as STATES names it; of others the path itself."""
    if path.startswith("/samples/"):
        return "sample"
    if re.fullmatch(r"/features/\d+", path):
        return "feature"
    return "pair" if path == "/cooccurrence/pair" else path.strip("/")


MAP_LABEL = (
    "Map of features. Arrow keys go from feature to feature, with Shift they move the map; plus and minus zoom, 0 "
    "shows the whole map, Enter opens the feature. The lists below name the strongest features."
)
"""What a screen reader says of the map: without a server there is no panel and no list of an area."""


class Site:
    """The files of one export.

    Args:
        app: the application over one store, without its model.
        folder: empty, to be filled.
    """

    def __init__(self, app: FastAPI, folder: Path, options: StaticSiteOptions) -> None:
        self.app, self.folder = app, folder
        self.names = Names()
        self.room = {"feature": options.features, "sample": options.samples, "pair": options.pairs}
        """Pages of a kind that may still come."""
        self.paths: set[str] = set()
        """Of the pages that count towards `room`."""
        self.queue: list[tuple[int, int, str]] = []
        self.pinned: dict[str, set[int]] = {}
        """Path of a sample → features that links to it show there."""
        self.order = count()
        self.progress = progress_bar("export", None, "files")

    async def write(self) -> None:
        """Write every page that can be reached from the front page, and what they show."""
        self.admit("/")
        while self.queue:
            address = heapq.heappop(self.queue)[2]
            await self.page(address)
            self.progress.total = len(self.names.file_of)
            self.progress.update()
        self.progress.close()
        copy_static(self.folder / "static")

    # ---- addresses

    def admit(self, address: str) -> str | None:
        """The file of a page, which is queued when it is first named; None for what the site does not have."""
        path, _, query = address.partition("?")
        kind, parameters = kind_of(path), dict(parse_qsl(query))
        if kind not in STATES:
            return None
        when, states = STATES[kind]
        if parameters.keys() <= IN_SCRIPTS.get(kind, set()):
            parameters = {}
        address = path + (f"?{urlencode(sorted(parameters.items()))}" if parameters else "")
        if address in self.names.file_of:
            return self.names.file_of[address]
        if not parameters.keys() <= states or not self._has_room(kind, address if kind == "pair" else path, parameters):
            return None
        heapq.heappush(self.queue, (when, next(self.order), address))
        return self.names.add(address, ".html")

    def _has_room(self, kind: str, page: str, parameters: dict[str, str]) -> bool:
        if kind in ("features", "samples"):  # another page of the list, as long as its items have room
            return "cursor" not in parameters or (self.room[kind[:-1]] > 0 and "verdict" not in parameters)
        if kind not in self.room or page in self.paths:
            return True
        if self.room[kind] <= 0:
            return False
        self.room[kind] -= 1
        self.paths.add(page)
        return True

    def resolver(self, page_file: str) -> Any:
        """The function that gives the place of an address as seen from the file `page_file`."""
        to_root = "../" * page_file.count("/")

        def resolve(address: str) -> str | None:
            if not address.startswith("/"):
                return address or None
            without_fragment, _, fragment = address.partition("#")
            path, _, query = without_fragment.partition("?")
            if path.startswith("/static/"):
                return to_root + path[1:]
            if path.startswith("/api/v1/samples/") and path.endswith("/image"):
                return to_root + quote(self.image(without_fragment))
            if (file := self.admit(without_fragment)) is None:
                return None
            if kind_of(path) == "sample" and (numbers := pinned_features(query)):
                self.pinned.setdefault(path, set()).update(numbers)
                fragment = f"f{numbers[0]}"
            return to_root + quote(file) + (f"#{fragment}" if fragment else "")

        return resolve

    # ---- files

    async def fetch(self, address: str) -> bytes:
        return (await request(self.app, "GET", address)).checked()

    def image(self, address: str) -> str:
        """The file of an image, which is queued."""
        name = address.removeprefix("/api/v1/samples").replace("/image?", "?", 1)
        if f"/images{name}" not in self.names.file_of:
            heapq.heappush(self.queue, (9, next(self.order), address))
        return self.names.add(f"/images{name}", ".webp")

    async def page(self, address: str) -> None:
        """Write one page or image."""
        body = await self.fetch(address)
        if address.startswith("/api/"):
            self.save(self.image(address), body)
            return
        file, page = self.names.file_of[address], body.decode()
        to_root = "../" * file.count("/")
        add = {"html": {"data-base": to_root.rstrip("/") or "."}}
        if kind_of(address) == "sample" and (data := await self.activations(address, page)):
            self.save(file.removesuffix("html") + "json", data)
            add["sample"] = {"data-activations": quote(file.rpartition("/")[2].removesuffix("html")) + "json"}
        if address == "/map":
            add["map"] = await self.map_files(page)
        self.save(file, StaticPage.convert(page, self.resolver(file), add).encode())

    def save(self, file: str, body: bytes) -> None:
        path = self.folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)

    async def activations(self, path: str, page: str) -> bytes | None:
        """The activations of all features that the page of a sample names, as the API gives them; None without any."""
        feature_ids = {int(number) for number in re.findall(r'data-feature="(\d+)"', page)}
        features = sorted(feature_ids | self.pinned.get(path, set()))
        result: dict[str, Any] | None = None
        for part in chunks(features, N_AT_ONCE):
            query = urlencode([("feature", number) for number in part])
            reply = await request(self.app, "GET", f"/api/v1{path}/activations?{query}")
            if reply.status != 200:  # the store does not hold them
                return None
            result = join_activations(result, json.loads(reply.body))
        return None if result is None else json.dumps(result, separators=(",", ":"), ensure_ascii=False).encode()

    async def map_files(self, page: str) -> dict[str, str]:
        """Write what the map's script reads; returns the attributes that tell it where."""
        address = re.search(r'data-url="([^"]+)"', page)
        if address is None:
            return {}
        url = address[1].replace("&amp;", "&")
        self.save("map/points.bin", await self.fetch(url))
        names = [name for name in re.findall(r'data-colour="(\w+)"', page) if name != "sample"]
        for name in dict.fromkeys(names):
            reply = await request(self.app, "GET", f"/api/v1/map/colours?by={name}")
            if reply.status == 200:
                self.save(f"map/{name}.bin", reply.body)
        paths = [address for address in self.names.file_of if kind_of(address) == "feature"]
        ids = sorted(int(path.rpartition("/")[2]) for path in paths)
        labels = [label for part in chunks(ids, 500) for label in await self.labels(part)]
        self.save("map/labels.json", json.dumps(labels, ensure_ascii=False).encode())
        return {"data-url": "map/points.bin", "data-files": "map/", "aria-label": MAP_LABEL}

    async def labels(self, ids: list[int]) -> list[dict[str, Any]]:
        """What the map names features with."""
        url = f"/api/v1/features?{urlencode({'ids': ','.join(map(str, ids)), 'limit': len(ids)})}"
        items = json.loads(await self.fetch(url))["items"]
        names = ("id", "label", "label_score", "description", "own_label", "verdict", "n_samples")
        return [{name: item[name] for name in names if name in item} for item in items]


def chunks(numbers: list[int], n: int) -> list[list[int]]:
    return [numbers[low : low + n] for low in range(0, len(numbers), n)]


def pinned_features(query: str) -> list[int]:
    """The features that a link to a sample shows there."""
    values = parse_qs(query)
    numbers = (values.get("f") or values.get("feature") or [""])[0]
    return [int(number) for number in numbers.split(",") if number.isdigit()]


def join_activations(total: dict[str, Any] | None, part: dict[str, Any]) -> dict[str, Any]:
    """Activations of more features of one sample, shortened to SIGNIFICANT digits."""
    for place in (*part["tokens"], *part["grids"]):
        place["values"] = shorten(place["values"])
    if total is None:
        return part
    total["features"] += part["features"]
    for name in ("tokens", "grids"):
        for place, new_place in zip(total[name], part[name], strict=True):
            place["values"] += new_place["values"]
    return total


def shorten(values: Any) -> Any:
    if isinstance(values, list):
        return [shorten(value) for value in values]
    return float(f"{values:.{SIGNIFICANT}g}") if values else 0


def copy_static(folder: Path) -> None:
    """Styles, the mark, and the scripts that work without a server with what they import."""
    source = FRONTEND / "static"
    for name in ("css", "img"):
        shutil.copytree(source / name, folder / name)
    todo, copied_scripts = [source / name for name in SCRIPTS], set[Path]()
    while todo:
        script = todo.pop()
        if script in copied_scripts:
            continue
        copied_scripts.add(script)
        target = folder / script.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(script, target)
        names = re.findall(r'(?:from|import) "(\.[^"]+)"', script.read_text(encoding="utf-8"))
        todo += [(script.parent / name).resolve() for name in names]


def export(options: StaticSiteOptions) -> str:
    """Write the site; returns one line about it.

    Raises:
        SaevxError: the store cannot be opened, or something is at `out` already.
    """
    from backend.app import create_app
    from backend.settings import ServerOptions, Settings

    # The environment of a server on the same machine says where its annotations are; no other setting is of use here.
    unset = ServerOptions(live=False).model_dump(exclude={"annotations"})
    settings = from_environment(Settings, **unset, stores=[options.store])
    with creating(options.out):
        app = create_app(settings)
        with atomic_folder(options.out) as folder:
            asyncio.run(Site(app, folder, options).write())
    sizes = [path.stat().st_size for path in options.out.rglob("*") if path.is_file()]
    n_pages = sum(1 for _ in options.out.rglob("*.html"))
    return f"{options.out}{os.sep}index.html: {n_pages:,} pages in {len(sizes):,} files, {human(sum(sizes))}"
