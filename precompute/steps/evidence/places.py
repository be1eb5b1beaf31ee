"""Whether a feature is tied to a place in the image: to one patch place, row or column (METHOD *Pair evidence*)."""

from typing import NamedTuple

import numpy as np

from precompute.collect.entries import FRACTION_BITS
from precompute.store.schema import TIED
from precompute.utils.types import Array


class Places(NamedTuple):
    """Where on images the features fire. Rows and columns on which no image token lies are left out, so a grid coarser
    than 7 × 7 stays as it is."""

    name: Array
    """str [F]: "patch R,C", "row R" or "column C"; "" where a feature is tied to none."""
    share: Array
    """float64 [F]: of its activation in that place; else the largest share of a row or column. NaN where it fires on no
    image."""
    mean_frc: Array
    """float64 [F, R, C]: mean activation (z) over the image tokens of each place."""

    def columns(self) -> dict[str, Array]:
        """As the step saves them, each [F, …]."""
        return {"place": self.name, "place_share": self.share, "place_map": self.mean_frc}


def places(accum: dict[str, Array], unit: float, can_be_tied: Array) -> Places:
    """The places of all features.

    Args:
        accum: the pass's accumulators. unit: one stored unit in z. can_be_tied: bool [F], features on enough images.
    """
    has_cells = accum["cells"] > 0
    rows, columns = np.flatnonzero(has_cells.any(1)), np.flatnonzero(has_cells.any(0))
    sum_frc = accum["place"][:, rows][:, :, columns].astype(np.float64)
    n_tokens = accum["cells"][rows][:, columns]
    mean_frc = sum_frc * (unit * 2.0**-FRACTION_BITS) / np.maximum(n_tokens, 1)
    n = len(sum_frc)
    if not len(rows):
        return Places(np.full(n, "", "<U12"), np.full(n, np.nan), mean_frc)
    total = sum_frc.sum((1, 2))
    with np.errstate(invalid="ignore"):
        share_of = {
            "patch": sum_frc.reshape(n, -1) / total[:, None],
            "row": sum_frc.sum(2) / total[:, None],
            "column": sum_frc.sum(1) / total[:, None],
        }
    best_place = {kind: share_fp.argmax(1) for kind, share_fp in share_of.items()}
    best_share = {kind: share_fp.max(1) for kind, share_fp in share_of.items()}
    column_wins = best_share["column"] > best_share["row"]
    name = np.full(n, "", "<U12")
    share = np.where(column_wins, best_share["column"], best_share["row"])
    # A grid of one row, or one column, ties nothing to it.
    has_several = {"row": len(rows) > 1, "column": len(columns) > 1, "patch": len(rows) * len(columns) > 1}
    for k in np.flatnonzero(can_be_tied & (share >= TIED)).tolist():
        kinds = ("patch", "column", "row") if column_wins[k] else ("patch", "row", "column")
        kind = next((kind for kind in kinds if has_several[kind] and best_share[kind][k] >= TIED), None)
        if kind is not None:
            at, share[k] = int(best_place[kind][k]), best_share[kind][k]
            name[k] = f"patch {at // len(columns)},{at % len(columns)}" if kind == "patch" else f"{kind} {at}"
    return Places(name, share, mean_frc)
