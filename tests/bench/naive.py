"""The way of the paper's released code, re-created: token by token in Python, every activation in dense lists.

Nothing of it is used by the pass; it is what the pass is measured against, and ω must come out the same.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from precompute.model.batch import IMAGE, TEXT
from precompute.sae.encode import Scale
from precompute.sae.sae import SaeV


class Token(NamedTuple):
    """A counted token and all its F activations."""

    row: int
    position: int
    modality: int
    hidden: list[float]
    stored: list[float]


def tokens(sae: SaeV, hidden: list[Tensor], modality: list[NDArray[np.uint8]], scale: Scale) -> list[Token]:
    """Every token of text and image encoded by itself.

    Args:
        hidden: h [s, d] of each sample. modality: [s] of each.
    """
    results = []
    for row, (hidden_sd, kind_s) in enumerate(zip(hidden, modality, strict=True)):
        for position in range(len(kind_s)):
            kind = int(kind_s[position])
            hidden_d = hidden_sd[position].float()
            if kind not in (TEXT, IMAGE) or float(hidden_d.norm()) > scale.sink_norm[kind]:
                continue
            stored = (sae.encode(hidden_d[None])[0] * 2.0**scale.log2).half().tolist()
            results.append(Token(row, position, kind, hidden_d.to(torch.bfloat16).double().tolist(), stored))
    return results


def omega(results: list[Token], delta: NDArray[np.float64], unit: float, k: int) -> NDArray[np.float64]:
    """ω `paired` of every feature: of all tokens above δ the best of each sample and modality, k of each, mean cosine.

    Args:
        delta: float64 [F] in z. unit: z of one stored unit.
    """
    result = np.full(len(delta), np.nan)
    for feature, limit in enumerate(delta.tolist()):
        sides: dict[int, dict[int, Token]] = {TEXT: {}, IMAGE: {}}
        firing = [token for token in results if token.stored[feature] * unit > limit]
        for token in sorted(firing, key=lambda t, f=feature: (-t.stored[f], t.row, t.position)):
            sides[token.modality].setdefault(token.row, token)
        text, image = (list(side.values())[:k] for side in sides.values())
        if min(len(text), len(image)) < k:
            continue
        cosines = []
        for a, b in zip(text, image, strict=True):
            dot = sum(x * y for x, y in zip(a.hidden, b.hidden, strict=True))
            lengths = sum(x * x for x in a.hidden) * sum(y * y for y in b.hidden)
            cosines.append(dot / lengths**0.5)
        result[feature] = sum(cosines) / k
    return result
