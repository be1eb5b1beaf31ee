"""Which patch of an image each token of a model stands for, found by changing the image."""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from precompute.geometry import View, patch_box
from precompute.model.batch import IMAGE, Pair
from precompute.model.mllm import Mllm


def noisy(image: Image.Image, box: Sequence[float], seed: int) -> Image.Image:
    """The picture with noise inside the box, shrunk by a quarter: coarse and glaring, so that no resizing averages
    it away."""
    x0, y0, x1, y1 = box
    trim_x, trim_y = (x1 - x0) / 8, (y1 - y0) / 8
    left, top = round(x0 + trim_x), round(y0 + trim_y)
    right, bottom = max(round(x1 - trim_x), left + 1), max(round(y1 - trim_y), top + 1)
    grain = np.random.default_rng(seed).integers(0, 2, (3, 3, 3), dtype=np.uint8) * 255
    noise = Image.fromarray(grain).resize((right - left, bottom - top), Image.Resampling.NEAREST)
    result = image.copy()
    result.paste(noise, (left, top))
    return result


def patches(views: Sequence[View], size: tuple[int, int]) -> list[tuple[int, tuple[float, ...]]]:
    """View and box of every image token, in token order."""
    return [
        (v, patch_box(view, row, col, size))
        for v, view in enumerate(views)
        for row in range(view.rows)
        for col in range(view.cols)
    ]


def embeddings(mllm: Mllm, images: Sequence[Image.Image | list[Image.Image]]) -> Tensor:
    """[n, p, d] what the language model is given at the IMAGE tokens of each picture, or list of pictures; all of
    one size.

    Chameleon is given codes, which noise moves by leaps or not at all: there, what its encoder makes of each
    square before the nearest code is chosen."""
    batch = mllm.prepare([Pair("", image if isinstance(image, list) else [image]) for image in images])
    outputs: list[Tensor] = []
    if mllm.family == "chameleon":
        handle = mllm.model.model.vqmodel.quant_conv.register_forward_hook(
            lambda module, args, output: outputs.append(output.flatten(2).mT)
        )
    else:
        handle = mllm.decoder.register_forward_pre_hook(
            lambda module, args, kwargs: outputs.append(kwargs["inputs_embeds"]), with_kwargs=True
        )
    try:
        mllm.hidden(batch)
    finally:
        handle.remove()
    if mllm.family == "chameleon":
        return outputs[0]
    at = torch.from_numpy(batch.modality_bs == IMAGE)
    return outputs[0][at].view(len(images), -1, outputs[0].shape[-1])
