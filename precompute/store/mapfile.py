"""`map.bin`: where every feature lies on the map, and its colours, as columns that a page reads without parsing; and
`sample_map.bin`, the same of samples.

Little-endian. 16 bytes of header: `SXM1` or `SXM2`, the number of features or samples as uint32, 8 zero bytes. Then so
many values of each column, one column after the other, in the order of the class; entry i is feature i or sample row i.
Seven bytes a feature, five a sample.
"""

import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np

from precompute.errors import SaevxError
from precompute.utils.files import atomic_write
from precompute.utils.types import Array

NAME = "map.bin"
PROFILE_NAME = "index/profile_map.bin"
LAYOUTS = {"decoder": NAME, "profile": PROFILE_NAME}
"""By what features lie together (`schema.NEIGHBOUR_SPACES`), and the file. The second has the same format; features
without a profile have no place in it either. Stores of older versions have the first alone, or none."""
ABSENT = "This store has no map: it was made by an older version. Run `saevx precompute` again to get one."
SAMPLES_NAME = "index/sample_map.bin"
NO_SAMPLES = (
    "This store has no map of samples, as an older version made it: run `saevx migrate STORE --out NEW` for a copy "
    "with one, or, while a store is unfinished, its `saevx precompute` command with `--only sample-map`."
)
HEADER = struct.Struct("<4sI8x")
FIELDS = {"x": "<u2", "y": "<u2", "verdict": "u1", "omega": "u1", "density": "u1"}
SAMPLE_FIELDS = {"x": "<u2", "y": "<u2", "source": "u1"}

NOWHERE = 65535  # x and y of a feature without a place: a dead one
LAST = 65534  # the larger side of the map spans 0 … LAST, the other lies in the middle
DECADES = 6  # of density: 10^-6 and all below is 1, everywhere is 255


class FeatureMap(NamedTuple):
    """The columns of all features as stored, each [F]."""

    x: Array
    """uint16: place from left to right; `NOWHERE` for a dead feature."""
    y: Array
    """uint16: place from top to bottom; `NOWHERE` for a dead feature."""
    verdict: Array
    """uint8: place in schema.VERDICTS."""
    omega: Array
    """uint8: 0 for none; else 1 … 255 for ω = −1 … 1, (v − 128) / 127."""
    density: Array
    """uint8: share of tokens, of the denser modality. 0 for never active; else 1 … 255 for 10^-6 … 1, logarithmic."""


class SampleMap(NamedTuple):
    """The columns of all samples as stored, each [N]."""

    x: Array
    """uint16: place from left to right; `NOWHERE` for a sample in which nothing fires."""
    y: Array
    """uint16: place from top to bottom; `NOWHERE` likewise."""
    source: Array
    """uint8: 0 where the layout gave the place; 1 where the sample was put beside a similar one."""


KINDS: dict[type, tuple[bytes, dict[str, str], str, str]] = {
    FeatureMap: (b"SXM1", FIELDS, ABSENT, "features"),
    SampleMap: (b"SXM2", SAMPLE_FIELDS, NO_SAMPLES, "samples"),
}
"""First bytes of the file, its columns, what to say where there is none, and of what it is a map."""


def quantise_places(place_n2: Array) -> Array:
    """uint16 [n, 2]: places scaled to 0 … LAST by the longer side of the map.

    Args:
        place_n2: float64 [n, 2].
    """
    if not len(place_n2):
        return np.zeros((0, 2), dtype=np.uint16)
    low, high = place_n2.min(0), place_n2.max(0)
    span = max(float((high - low).max()), 1e-30)
    centre = (low + high) / 2
    return np.rint(((place_n2 - centre) / span + 0.5) * LAST).astype(np.uint16)


def quantise_omega(omega: Array) -> Array:
    """uint8 [F] of float64 [F]: 0 for NaN, else ω in 255 steps."""
    is_known = ~np.isnan(omega)
    steps = np.rint(np.clip(np.where(is_known, omega, 0), -1, 1) * 127) + 128
    return np.where(is_known, steps, 0).astype(np.uint8)


def quantise_density(density: Array) -> Array:
    """uint8 [F] of float64 [F], shares of tokens: 0 for 0, else their logarithm in 255 steps."""
    steps = 1 + np.rint(254 * np.clip(1 + np.log10(np.maximum(density, 1e-30)) / DECADES, 0, 1))
    return np.where(density > 0, steps, 0).astype(np.uint8)


def write_map(path: Path, columns: FeatureMap | SampleMap) -> None:
    magic, fields, *_ = KINDS[type(columns)]
    parts = [np.ascontiguousarray(values, dtype=fields[name]) for name, values in columns._asdict().items()]
    with atomic_write(path) as file:
        file.write(b"".join([HEADER.pack(magic, len(columns.x)), *(part.tobytes() for part in parts)]))


def read_map(path: Path) -> FeatureMap:
    """Reads `map.bin`. Raises SaevxError where it is missing (an older store), or no such file."""
    return FeatureMap(*_columns(path, FeatureMap))


def read_sample_map(path: Path) -> SampleMap:
    """Reads `sample_map.bin`. Raises SaevxError as `read_map`."""
    return SampleMap(*_columns(path, SampleMap))


def _columns(path: Path, kind: type) -> list[Array]:
    magic, fields, absent, subject = KINDS[kind]
    if not path.is_file():
        raise SaevxError(absent)
    data = path.read_bytes()
    first, n = HEADER.unpack_from(data) if len(data) >= HEADER.size else (b"", 0)
    if first != magic or len(data) != HEADER.size + n * sum(np.dtype(kind).itemsize for kind in fields.values()):
        raise SaevxError(f"{path.name} is no map of {subject}, or is cut off.")
    at, columns = HEADER.size, []
    for kind_of_column in fields.values():
        columns.append(np.frombuffer(data, kind_of_column, n, at))
        at += columns[-1].nbytes
    return columns
