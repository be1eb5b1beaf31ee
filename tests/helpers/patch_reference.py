"""The patch scores and the masks of pixels, computed naively."""

from __future__ import annotations

from typing import Any

import numpy as np

from precompute.geometry import View, patch_box
from precompute.model.batch import IMAGE, SINK, TEXT
from precompute.patches import ranking as patches

Array = Any


def naive(offset_t: Array, feature_e: Array, z_e: Array, modality_t: Array, omega_f: Array) -> dict[str, list[float]]:
    """The four scores of every image token, feature by feature."""
    events = [
        [(int(feature_e[e]), float(z_e[e])) for e in range(offset_t[t], offset_t[t + 1])]
        for t in range(len(modality_t))
    ]
    on_text = {k for t, own in enumerate(events) if modality_t[t] == TEXT for k, _ in own}
    result: dict[str, list[float]] = {name: [] for name in patches.SCORES}
    for t, own in enumerate(events):
        if modality_t[t] in (IMAGE, SINK):
            result["l0"].append(len(own))
            result["l1"].append(sum(z for _, z in own))
            result["cooccurring-l0"].append(sum(k in on_text for k, _ in own))
            result["cosine"].append(sum(float(omega_f[k]) for k, _ in own if not np.isnan(omega_f[k])))
    return result


def naive_masks(views: list[View], kept_p: Array, sizes: list[tuple[int, int]]) -> list[Array]:
    """Pixel by pixel: does its middle lie in the box of a patch kept?"""
    boxes: list[list[tuple[float, ...]]] = [[] for _ in sizes]
    p = 0
    for view in views:
        for row in range(view.rows):
            for col in range(view.cols):
                if kept_p[p]:
                    boxes[view.image].append(patch_box(view, row, col, sizes[view.image]))
                p += 1
    masks = []
    for (width, height), own in zip(sizes, boxes, strict=True):
        mask = np.zeros((height, width), dtype=bool)
        for y in range(height):
            for x in range(width):
                mask[y, x] = any(x0 <= x + 0.5 < x1 and y0 <= y + 0.5 < y1 for x0, y0, x1, y1 in own)
        masks.append(mask)
    return masks
