"""The rows of a steered batch, and what they share.

Three rows: `DEFAULT` writes by itself, `STEERED` is hooked, `SHADOW` is the unsteered model fed the steered text.
`AllRows` runs each through every layer: the reference, and the way of models that cannot share. `SharedRows` runs
once what is equal:

- up to the hook layer a row is its text alone: one row while the two texts are the same, then two;
- above it, SHADOW is DEFAULT while the texts are the same;
- positions of the prompt before the first steered one are those of DEFAULT. Where most are, the steered ones are
  packed behind DEFAULT's as further positions of one row, with a mask and positions of their own.

So the rows part at the hook layer, inside the model's own forward. What layers above it are given beside h (mask and
positions) is the same for all rows, because all have the same length.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from precompute.model.mllm import Mllm

DEFAULT, STEERED, SHADOW = 0, 1, 2
ROLES = (DEFAULT, STEERED, SHADOW)
TEXT_OF = {DEFAULT: 0, STEERED: 1, SHADOW: 1}
"""The channel whose text a row is fed."""
SAME_FOR_ALL = {"attention_mask", "position_embeddings", "position_ids"}
WITHOUT_ROWS = {"hidden_states", "past_key_values", "use_cache", "output_attentions"}
PER_TOKEN = ("attention_mask", "position_ids", "token_type_ids", "mm_token_type_ids")
"""What `generate` keeps for every row of tokens."""


def why_not_shared(mllm: Mllm) -> str | None:
    """Why this model's rows cannot share layers; None where they can.

    A layer above the hook must take nothing that belongs to one row but h and its own cache of keys and values."""
    text_config = mllm.model.config.get_text_config()
    for layer in mllm.decoder.layers[mllm.layer + 1 :]:
        taken = {
            name for name, one in inspect.signature(layer.forward).parameters.items() if one.kind != one.VAR_KEYWORD
        }
        if strange := sorted(taken - SAME_FOR_ALL - WITHOUT_ROWS):
            return f"its layers are also given {', '.join(strange)}"
    kinds = set(getattr(text_config, "layer_types", None) or ()) - {"full_attention", "sliding_attention"}
    if kinds:
        return f"it has layers of {', '.join(sorted(kinds))}"
    attention = getattr(text_config, "_attn_implementation", None)
    if attention not in ("sdpa", "eager"):
        return f"its attention is {attention}"
    deep = getattr(getattr(mllm.model.config, "vision_config", None), "deepstack_visual_indexes", None) or ()
    if mllm.layer < len(deep):
        return f"pictures are added behind its layers up to {len(deep) - 1}"
    return None


class AllRows:
    """Every row goes through every layer."""

    def __init__(self) -> None:
        self.roles: list[int] = list(ROLES)
        """Rows above the hook layer, in order."""
        self.steers = True
        """Whether the steered text has not ended."""

    @property
    def source(self) -> int:
        """Below the hook layer, the row that STEERED is made of."""
        return STEERED

    def inputs(self, inputs: Mapping[str, Tensor]) -> dict[str, Any]:
        """What `generate` is given, of the prompt's own."""
        return {name: torch.cat([one] * len(ROLES)) for name, one in inputs.items()}

    def widen(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """What one step's forward is given."""
        return inputs

    def spread(self, hidden_bsd: Tensor) -> Tensor:
        """h below the hook layer → h above it, before steering."""
        return hidden_bsd

    def place(self, index_n: Tensor) -> tuple[int, Tensor]:
        """Row and columns, in what `spread` gave, of STEERED's positions."""
        return self.roles.index(STEERED), index_n

    def fit(self, module: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Pre-hook of each layer above the hook layer."""
        return args, kwargs

    def logits(self, logits_bsv: Tensor) -> tuple[Tensor, dict[int, int]]:
        """Of the next token [r, V], and which row is whose."""
        return logits_bsv[:, -1].float(), {role: role for role in ROLES}

    def go_on(self, token: Mapping[int, int], live: Sequence[int], cache: Any) -> list[int]:
        """The tokens to feed next, one for each row below the hook layer.

        Args:
            token: chosen by each channel.
            live: channels that have not ended.
        """
        self.steers = STEERED in live
        return [token.get(TEXT_OF[role], 0) for role in ROLES]


class SharedRows(AllRows):
    """What is equal runs once.

    Args:
        layer: the hook layer.
        length: positions of the prompt.
        first: the first of them that may be steered.
        pack: pack the prompt's steered positions behind DEFAULT's row, instead of giving STEERED a row of its own.
    """

    def __init__(self, layer: int, length: int, first: int, *, pack: bool) -> None:
        super().__init__()
        self.layer, self.length, self.first = layer, length, first
        self.packed = pack
        """Only while the prompt is on its way; the cache is unpacked behind it."""
        self.roles = [DEFAULT, STEERED]
        self.parted = False
        """Whether the texts differ."""
        self.fitted: dict[str, tuple[Any, Any]] = {}

    @property
    def texts(self) -> list[int]:
        """The text of every row below the hook layer."""
        return sorted({TEXT_OF[role] for role in self.roles}) if self.parted else [0]

    def below(self, role: int) -> int:
        """The row below the hook layer that a row above it is made of."""
        return self.texts.index(TEXT_OF[role]) if self.parted else 0

    @property
    def source(self) -> int:
        return self.below(STEERED)

    def inputs(self, inputs: Mapping[str, Tensor]) -> dict[str, Any]:
        return dict(inputs)

    def spread(self, hidden_bsd: Tensor) -> Tensor:
        self.fitted.clear()
        self.device = hidden_bsd.device
        if self.packed:
            return torch.cat([hidden_bsd, hidden_bsd[:, self.first :]], dim=1)
        return hidden_bsd[[self.below(role) for role in self.roles]]

    def place(self, index_n: Tensor) -> tuple[int, Tensor]:
        if self.packed:
            return 0, index_n - self.first + self.length
        return super().place(index_n)

    def logits(self, logits_bsv: Tensor) -> tuple[Tensor, dict[int, int]]:
        rv = logits_bsv[:, -1]
        if self.packed:
            kept = logits_bsv.shape[1] == 2
            rv = logits_bsv[0, [0, 1] if kept else [self.length - 1, -1]]
        row = {role: at for at, role in enumerate(self.roles)}
        if not self.parted:
            row[SHADOW] = row[DEFAULT]
        return rv.float(), row

    def go_on(self, token: Mapping[int, int], live: Sequence[int], cache: Any) -> list[int]:
        self.steers = STEERED in live
        if self.packed:
            self.unpack(cache)
        parted = self.parted or token[DEFAULT] != token[STEERED]
        roles = [role for role in (ROLES if parted else self.roles) if TEXT_OF[role] in live]
        if parted and (roles != self.roles or not self.parted):
            self.regroup(roles, cache)
        return [token[text] for text in self.texts]

    def regroup(self, roles: list[int], cache: Any) -> None:
        """Rows come and go: the cache of keys and values follows."""
        above = [self.roles.index(role if role in self.roles else DEFAULT) for role in roles]
        old = [self.below(DEFAULT), self.below(STEERED)]
        self.roles, self.parted = roles, True
        below = [old[text] for text in self.texts]
        for number, layer in enumerate(cache.layers):
            layer.batch_select_indices(torch.tensor(below if number <= self.layer else above))

    def unpack(self, cache: Any) -> None:
        """Two rows of the keys and values of the packed one."""
        for layer in cache.layers[self.layer + 1 :]:
            tails = layer.keys[0, :, self.length :], layer.values[0, :, self.length :]
            layer.crop(self.first - self.length)
            layer.batch_repeat_interleave(2)
            layer.keys[STEERED, :, self.first :], layer.values[STEERED, :, self.first :] = tails
        self.packed = False

    # ---- what layers are given beside h

    def widen(self, inputs: dict[str, Any]) -> dict[str, Any]:
        for name in PER_TOKEN:
            one = inputs.get(name)
            if isinstance(one, Tensor):
                inputs[name] = one.expand(*one.shape[:-2], len(self.texts), one.shape[-1])
        if self.packed and "logits_to_keep" in inputs:
            inputs["logits_to_keep"] = torch.tensor([self.length - 1, 2 * self.length - self.first - 1])
        return inputs

    def fit(self, module: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        if len(args) > 1:
            names = list(inspect.signature(module.forward).parameters)
            args, kwargs = args[:1], {**dict(zip(names[1:], args[1:], strict=False)), **kwargs}
        edits: dict[str, Callable[[Any], Any]] = {
            "attention_mask": self.fit_mask,
            "position_embeddings": lambda pair: tuple(self.fit_embedding(one) for one in pair),
            "position_ids": self.fit_ids,
        }
        given = {name for name in edits if kwargs.get(name) is not None}
        if self.packed:
            given.add("attention_mask")
        return args, {**kwargs, **{name: self.once(name, kwargs.get(name), edits[name]) for name in given}}

    def once(self, name: str, given: Any, edit: Callable[[Any], Any]) -> Any:
        """Layers of one kind are given the same tensors, so that one edit serves all of them in a forward."""
        key = f"{name} {id(given)}"
        if key not in self.fitted:
            self.fitted[key] = (given, edit(given))  # kept with it, lest another get its id
        return self.fitted[key][1]

    def fit_mask(self, mask: Tensor | None) -> Tensor:
        """[b, 1 or heads, queries, keys]; None is causal. A packed position sees what stands before the first
        packed one, and of the rest only packed ones."""
        if mask is not None and not self.packed:
            return mask[:1]
        f = self.first
        if mask is None:
            mask = torch.ones(1, 1, self.length, self.length, dtype=torch.bool, device=self.device).tril()
        shut = False if mask.dtype == torch.bool else torch.finfo(mask.dtype).min
        tail = mask[..., f:, f:]
        plain = torch.cat([mask, torch.full_like(mask[..., f:], shut)], dim=-1)
        packed = torch.cat([mask[..., f:, :f], torch.full_like(tail, shut), tail], dim=-1)
        return torch.cat([plain, packed], dim=-2)

    def fit_embedding(self, one: Tensor) -> Tensor:
        """cos or sin [b, s, head]."""
        return torch.cat([one, one[..., self.first :, :]], dim=-2) if self.packed else one[..., :1, :, :]

    def fit_ids(self, one: Tensor) -> Tensor:
        """[b, s]."""
        return torch.cat([one, one[..., self.first :]], dim=-1) if self.packed else one[..., :1, :]
