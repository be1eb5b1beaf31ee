"""A stored sample's pair, read again from the data that the store was made of.

A store keeps thumbnails, not the images. Where its events were left out they are computed again from the original, and
only from that: a pair is taken when its text and the SHA-256 of its image files are the store's.
"""

import threading
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from precompute.data.batches import shuffle_images
from precompute.data.disk.row_table import SampleIds
from precompute.data.images import open_image
from precompute.data.records import BadRow, Columns, Row
from precompute.data.rows import read
from precompute.errors import SaevxError
from precompute.live.engine import encode_pair
from precompute.model.batch import Pair
from precompute.model.mllm import Mllm
from precompute.sae.sae import SaeV
from precompute.store.events import SampleEvents
from precompute.store.opening import run_path
from precompute.store.reader import Store


class Originals:
    """The data of one store; it is looked for when first asked, and its ids are then held (about 200 bytes each)."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.lock = threading.Lock()

    def _place(self) -> str:
        """Where run.json says the data lies; else the folder `data` beside the store, so that a demo can be moved."""
        folder, sibling = run_path(self.store.path, "data"), self.store.path.resolve().parent / "data"
        if folder and (Path(folder).exists() or not Path(folder).is_absolute()):
            return folder
        if sibling.exists():
            return str(sibling)
        raise SaevxError(f"its data is no longer at {folder}" if folder else "nothing says where its data lies")

    @cached_property
    def _rows(self) -> tuple[Sequence[Row], dict[str, int]]:
        """The rows of the data, and the position of each id among them."""
        options = self.store.manifest["options"]
        folder = run_path(self.store.path, "image_folder")
        columns = Columns(
            options.get("image_column"),
            options.get("text_column"),
            options.get("id_column"),
            options.get("text_side", "chosen"),
            Path(folder) if folder else None,
            options.get("split", "train"),
            anywhere=options.get("allow_outside", True),  # stores made before there was the option read them
        )
        rows = read(self._place(), columns).rows
        if options.get("shuffle_images"):
            rows = shuffle_images(rows, int(options["seed"]))
        return rows, {sample_id: at for at, sample_id in enumerate(SampleIds(rows))}

    def pair(self, row: int) -> Pair:
        """The pair of a sample as the pass saw it.

        Raises:
            SaevxError: with the reason as a clause: the data is gone, or is no longer what the store was made of.
        """
        original = self.store.samples.original(row)
        if not original["sha256"]:
            return Pair(original["text"])
        with self.lock:  # the data is read once, whoever asks first
            rows, place_of = self._rows
            if original["sample_id"] not in place_of:
                raise SaevxError("the data no longer has it")
            row_of_data = rows[place_of[original["sample_id"]]]
        try:
            images = [open_image(image) for image in row_of_data.images]
        except BadRow as error:
            raise SaevxError(str(error)) from error
        if row_of_data.text != original["text"] or [image.sha256 for image in images] != original["sha256"]:
            raise SaevxError("its text or image is no longer the one that the store was made of")
        return Pair(row_of_data.text, [image.image for image in images])

    def events(self, row: int, mllm: Mllm, sae: SaeV) -> SampleEvents:
        """What fires in a sample, computed again by the code of the pass. Alone in its batch: the last bits of a sum
        can differ from those of the pass.

        Raises:
            SaevxError: as `pair`; or the model reads other tokens than the store has.
        """
        encoded_pair = encode_pair(mllm, sae, self.store.manifest, self.pair(row))
        tokens = self.store.events.tokens(row)
        if not np.array_equal(encoded_pair.token_id_t, tokens.token_id_t):
            raise SaevxError("the model reads other tokens in it than the store has")
        return encoded_pair.events(self.store.scale_log2)
