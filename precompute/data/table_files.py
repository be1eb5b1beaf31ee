"""Where tables come from: Parquet, CSV, text, and whatever else `datasets` opens.

`datasets` takes seconds to import, so it is imported only when there is a table.
"""

import glob
import json
import logging
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from precompute.data.arrow_tables import listing
from precompute.data.paths import check_files, choose_split
from precompute.data.records import Columns, Listing, Records, no_rows
from precompute.data.signatures import foreign_format
from precompute.data.table_faults import SEPARATORS, csv_header, difference_of, fault_of
from precompute.errors import SaevxError, causes

TABLES = {".parquet": "parquet", ".csv": "csv", ".tsv": "csv", ".txt": "text"}
"""Builder of `datasets` by a file's suffix."""
NAME_OF = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "bars"}
"""What may stand between the cells of a table."""
NUMBER = re.compile(r"-?(0|[1-9][0-9]{0,14})(\.[0-9]{1,15})?")
NO_ROWS = ("EmptyDataError", "SchemaInferenceError", "EmptyDatasetError")
NO_DATA = 'Instruction "train" corresponds to no data'
"""What `datasets` and pandas raise over data without a row."""
GENERATING = "An error occurred while generating the dataset"


def from_files(files: Sequence[Path], at: Path, columns: Columns) -> Listing:
    """Parquet, CSV, TSV or plain text, one row a line; `at` is the folder or the first of them."""
    name, source = (at.resolve().name if at.is_dir() else at.stem), str(at)
    folder = at if at.is_dir() else at.parent
    suffix = files[0].suffix.lower()
    with one_sentence(source):
        with_rows = [file for file in files if has_rows(file)]
    if not with_rows:
        raise no_rows(source)
    options: dict[str, Any] = {"encoding": "utf-8-sig"} if suffix == ".txt" else {}
    if suffix in SEPARATORS:
        with one_sentence(source):
            options = csv_options(with_rows, SEPARATORS[suffix])
    # A path is a pattern to `datasets`, and "::" in it a chain of file systems.
    names = [glob.escape(str(file.resolve())) for file in with_rows]
    dataset = load(TABLES[suffix], source, with_rows, data_files=names, split="train", **options)
    rows = listing(dataset, name, folder, [*files], columns)
    return replace(rows, records=partial(with_numbers, rows.records, columns)) if suffix in SEPARATORS else rows


def csv_options(files: Sequence[Path], separator: str) -> dict[str, Any]:
    """How CSVs are read: every cell as its text, so that an id keeps its zeros and the word NA is no missing cell.

    Raises:
        SaevxError: they are of several headers, and one of these has columns that cannot be told apart.
    """
    import datasets

    header = csv_header(files[0], separator)
    if len(header) == 1 and (other_separator := next((s for s in NAME_OF if s in header[0]), None)):
        raise SaevxError(
            f"{files[0]} has one column, {header[0][:80]!r}: save it with {NAME_OF[separator]} between the cells, not "
            f"{NAME_OF[other_separator]}."
        )
    names: list[str] = []
    for i, cell in enumerate(header):
        name = cell or f"Unnamed: {i}"
        while name in names:
            name = f"{name}.{i}"
        names.append(name)
    how: dict[str, Any] = {"sep": separator, "index_col": False, "keep_default_na": False, "na_values": [""]}
    if names != header:  # columns of one name, or of none
        if other := next((file for file in files if csv_header(file, separator) != header), None):
            raise SaevxError(f"{other} and {files[0]} have other columns, some without a name of their own: name them.")
        how |= {"header": 0, "names": names}
    for file in files:  # `datasets` would leave out columns that the first file lacks
        if sorted(columns := csv_header(file, separator)) != sorted(header):
            raise SaevxError(difference_of(files[0], header, file, columns))
    return {**how, "features": datasets.Features(dict.fromkeys(names, datasets.Value("string")))}


def with_numbers(records: Callable[[], Records], columns: Columns) -> Records:
    """Records of a CSV with numbers where a cell is written as JSON would write the number; ids and texts stay."""
    as_text = {name.lower() for name in ("id", "text", "caption", columns.id, columns.text) if name}
    for place, record in records():
        if isinstance(record, dict):
            record = {key: value if key.lower() in as_text else number_of(value) for key, value in record.items()}
        yield place, record


def number_of(value: Any) -> Any:
    """The number that a text is, else the value itself."""
    if not isinstance(value, str) or not NUMBER.fullmatch(value):
        return value
    return float(value) if "." in value else int(value)


def has_rows(file: Path) -> bool:
    """Whether a table has a row; those without one stop `datasets`.

    Raises:
        SaevxError: it is something else than its name says.
        OSError, ValueError: it cannot be read.
    """
    if (file_format := foreign_format(file)) is not None:
        raise SaevxError(f"{file} is {file_format}.")
    if file.suffix.lower() == ".parquet":
        from pyarrow import parquet

        return bool(parquet.read_metadata(file).num_rows)
    with file.open("rb") as lines:
        n = sum(1 for _ in islice((line for line in lines if line.strip(b"\xef\xbb\xbf\r\n\t ")), 2))
    return n > (file.suffix.lower() != ".txt")  # a first line names the columns


def from_folder(folder: Path, columns: Columns) -> Listing:
    """What `datasets` has saved, or any folder that it knows to read."""
    source, name = str(folder), folder.resolve().name
    has_splits = (folder / "dataset_dict.json").is_file() and not (folder / "state.json").is_file()
    if has_splits:
        with one_sentence(source):
            splits = json.loads((folder / "dataset_dict.json").read_text("utf-8"))["splits"]
            split = folder / choose_split(splits, source, columns)  # one split alone: an empty one cannot be opened
            check_files(folder, [split], columns.anywhere)  # the file may name any path
            folder = split
    if (folder / "state.json").is_file():
        with one_sentence(source):
            names = [f["filename"] for f in json.loads((folder / "state.json").read_text("utf-8"))["_data_files"]]
            if not names:
                raise no_rows(source)
            check_files(folder, [folder / name for name in names], columns.anywhere)
        return replace(listing(load(None, str(folder)), name, folder, None, columns), has_splits=has_splits)
    if set("*?[") & set(str(folder.resolve())):
        return from_files(of_one_kind(folder), folder, columns)
    if (files := csv_files(folder, columns)) is not None:
        return replace(from_files(files, folder, columns), has_splits=True)
    splits = load(str(folder.resolve()), source)
    rows = listing(splits[choose_split(list(splits), source, columns)], name, folder, None, columns)
    return replace(rows, has_splits=True)


def csv_files(folder: Path, columns: Columns) -> list[Path] | None:
    """The files of the split in a folder of CSVs; None in one of something else. `datasets` finds them; it would read
    them with pandas' guesses, which take NA for a missing cell and the first cell of a row that is too long for its
    number."""
    import datasets

    with one_sentence(str(folder)):
        builder = datasets.load_dataset_builder(str(folder.resolve()))
    if builder.name != "csv":
        return None
    files = builder.config.data_files
    return [Path(file) for file in files[choose_split(list(files), str(folder), columns)]]


def of_one_kind(folder: Path) -> list[Path]:
    """The tables of a folder whose path `datasets` would take for a pattern: the file that describes its images, else
    all.

    Raises:
        SaevxError: there is none, or they are of several formats.
    """
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    if not files:
        raise no_rows(folder)
    files = [path for path in files if path.suffix.lower() in TABLES]
    files = [path for path in files if path.stem == "metadata"] or files
    if len({path.suffix.lower() for path in files}) != 1:
        raise SaevxError(
            f"{folder} holds no table, or tables of several formats, and `datasets` takes *, ? and [ in a folder's "
            "name for a pattern: rename the folder, or name one file."
        )
    return files


def from_hub(name: str, columns: Columns) -> Listing:
    """`OWNER/NAME`, or `OWNER/NAME:CONFIG`."""
    repo, _, config = name.partition(":")
    options: dict[str, Any] = {"name": config} if config else {}
    splits = load(repo, name, **options)
    dataset = splits[choose_split(list(splits), name, columns)]
    from huggingface_hub.constants import HF_HUB_CACHE

    cache = Path(HF_HUB_CACHE) / f"datasets--{repo.replace('/', '--')}"  # into which `datasets` downloads its files
    return replace(listing(dataset, repo.rpartition("/")[2], cache, None, columns), has_splits=True)


def load(builder: str | None, source: str, files: Sequence[Path] = (), **options: Any) -> Any:
    """`load_dataset(builder)`, or `load_from_disk(source)` where that is None.

    Args:
        files: as of `one_sentence`.
    """
    import datasets
    from pandas.errors import ParserWarning  # type: ignore[import-untyped]

    if Path(source).exists() and "::" in str(Path(source).resolve()):
        raise SaevxError(f"{source} has a :: in its name, which `datasets` takes for a chain of archives: rename it.")
    datasets.disable_progress_bars()
    level = datasets.logging.get_verbosity()
    datasets.logging.set_verbosity(logging.CRITICAL)  # what it logs of an error is said below
    try:
        with one_sentence(source, files), warnings.catch_warnings():
            warnings.simplefilter("error", ParserWarning)  # of pandas, where it drops cells
            return datasets.load_from_disk(source) if builder is None else datasets.load_dataset(builder, **options)
    finally:
        datasets.logging.set_verbosity(level)


@contextmanager
def one_sentence(source: str, files: Sequence[Path] = ()) -> Iterator[None]:
    """Turns whatever a table's library raises into one sentence with the cause.

    Args:
        files: of the table, in which the cause is looked for.
    """
    try:
        yield
    except SaevxError:
        raise
    except Exception as error:  # builders raise whatever their format's library raises
        for cause in causes(error, explicit=True):
            if type(cause).__name__ in NO_ROWS or NO_DATA in str(cause):
                raise no_rows(source) from error
            if isinstance(cause, UnicodeDecodeError):
                byte = f"{cause.object[cause.start]:#04x}"
                raise SaevxError(f"{source} is not text in UTF-8 (it has a byte {byte}): save it as UTF-8.") from error
        with suppress(OSError, ValueError):
            if files and (fault := fault_of(files)) is not None:
                raise SaevxError(fault) from error
        raise SaevxError(
            f"There is no data at {source} that can be read ({cause_of(error)}): give an imagefolder, JSONL, Parquet, "
            "WebDataset tars or a data set of the hub."
        ) from error


def cause_of(error: BaseException) -> str:
    """What an error says beyond that there was one, else what the one that it was raised from says."""
    for cause in causes(error, explicit=True):
        if words := " ".join(str(cause).replace(GENERATING, "").split()):
            return words[:200]
    return type(error).__name__
