"""Families that show the tower the full image once; neighbouring patches may be merged into one token."""

import math
from collections.abc import Sequence
from typing import Any

from precompute.geometry.base import Layout, Size, View, full_image, plain_layout, resized_size


def qwen_vl(processor: Any, config: Any, sizes: Sequence[Size], n_tokens: int) -> Layout:
    """Qwen2.5-VL and Qwen3-VL: stretched to whole merged patches at about its own size.

    The tower's windows are put back in row order before the tokens leave it."""
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

    images = processor.image_processor
    cell_size = images.patch_size * images.merge_size
    views = []
    for i, (width, height) in enumerate(sizes):
        if images.do_resize:
            low, high = images.size["shortest_edge"], images.size["longest_edge"]  # areas in pixels
            out_h, out_w = smart_resize(height, width, cell_size, min_pixels=low, max_pixels=high)
        else:
            out_h, out_w = height, width
        views.append(View(out_h // cell_size, out_w // cell_size, full_image((width, height)), i))
    return plain_layout(views)


def fixed_square(processor: Any, config: Any, sizes: Sequence[Size], n_tokens: int) -> Layout:
    """Gemma 3, which stretches the image, and Chameleon, which takes the middle of it: always the same square of
    tokens. Gemma 3's pan-and-scan crops are off, as its processor has them off."""
    side = math.isqrt(processor.image_seq_length)
    return plain_layout(
        [View(side, side, resized_size(processor.image_processor, size)[1], i) for i, size in enumerate(sizes)]
    )


def gemma4(processor: Any, config: Any, sizes: Sequence[Size], n_tokens: int) -> Layout:
    """Gemma 4: stretched to as many whole pools of patches as its budget of tokens holds at about its own shape."""
    from transformers.models.gemma4.image_processing_pil_gemma4 import get_aspect_ratio_preserving_size

    images = processor.image_processor
    pool = int(images.pooling_kernel_size)
    pixels = pool * int(images.patch_size)
    views = []
    for i, (width, height) in enumerate(sizes):
        out_h, out_w = height, width
        if images.do_resize:
            out_h, out_w = get_aspect_ratio_preserving_size(
                height, width, int(images.patch_size), int(images.max_soft_tokens) * pool**2, pool
            )
        views.append(View(out_h // pixels, out_w // pixels, full_image((width, height)), i))
    return plain_layout(views)
