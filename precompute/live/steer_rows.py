"""The rows of a steered batch, and the computation that they share.

Three rows: `DEFAULT` writes without steering, `STEERED` is steered, `CONTROL_ROW` is the unsteered model on the steered
text. `AllRows` runs each row through every layer: the reference, and the way of models that cannot share. `SharedRows`
computes once what is equal:

- up to the hook layer a row is its text alone: one row while the two texts are the same, then two;
- above it, CONTROL_ROW is DEFAULT while the texts are the same;
- positions of the prompt before the first steered one are those of DEFAULT. Where most are, the steered ones are
  packed behind DEFAULT's as further positions of one row, with a mask and positions of their own.

So the rows are separated at the hook layer, inside the model's own forward. The other inputs of the layers above it
(mask and positions) are the same for all rows, because all have the same length.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from precompute.model.mllm import Mllm

DEFAULT, STEERED, CONTROL_ROW = 0, 1, 2
ROLES = (DEFAULT, STEERED, CONTROL_ROW)
TEXT_OF = {DEFAULT: 0, STEERED: 1, CONTROL_ROW: 1}
"""The channel whose text a row is fed."""
SAME_FOR_ALL = {"attention_mask", "position_embeddings", "position_ids"}
WITHOUT_ROWS = {"hidden_states", "past_key_values", "use_cache", "output_attentions"}
PER_TOKEN = ("attention_mask", "position_ids", "token_type_ids", "mm_token_type_ids")
"""Inputs that `generate` has for every row of tokens."""


def why_not_shared(mllm: Mllm) -> str | None:
    """Why this model's rows cannot share layers; None where they can.

    A layer above the hook must take nothing that belongs to one row but h and its own cache of keys and values."""
    text_config = mllm.model.config.get_text_config()
    for layer in mllm.decoder.layers[mllm.layer + 1 :]:
        taken = {
            name for name, one in inspect.signature(layer.forward).parameters.items() if one.kind != one.VAR_KEYWORD
        }
        if strange := sorted(taken - SAME_FOR_ALL - WITHOUT_ROWS):
            return f"its layers also take {', '.join(strange)}"
    kinds = set(getattr(text_config, "layer_types", None) or ()) - {"full_attention", "sliding_attention"}
    if kinds:
        return f"it has layers of {', '.join(sorted(kinds))}"
    attention = getattr(text_config, "_attn_implementation", None)
    if attention not in ("sdpa", "eager"):
        return f"its attention is {attention}"
    deep = getattr(getattr(mllm.model.config, "vision_config", None), "deepstack_visual_indexes", None) or ()
    if mllm.layer < len(deep):
        return f"images are added after its layers up to {len(deep) - 1}"
    return None


class AllRows:
    """Every row goes through every layer."""

    def __init__(self) -> None:
        self.roles: list[int] = list(ROLES)
        """Rows above the hook layer, in order."""
        self.steers = True
        """Whether the steered text goes on."""

    @property
    def source(self) -> int:
        """Index, below the hook layer, of the row from which STEERED is computed."""
        return STEERED

    def inputs(self, inputs: Mapping[str, Tensor]) -> dict[str, Any]:
        """Inputs of `generate`, from the prompt's own."""
        return {name: torch.cat([one] * len(ROLES)) for name, one in inputs.items()}

    def expand_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Inputs of one step's forward."""
        return inputs

    def expand_hidden(self, hidden_bsd: Tensor) -> Tensor:
        """h below the hook layer → h above it, before steering."""
        return hidden_bsd

    def steered_positions(self, index_n: Tensor) -> tuple[int, Tensor]:
        """Row and columns of STEERED's positions in what `expand_hidden` returned."""
        return self.roles.index(STEERED), index_n

    def fit_layer_inputs(self, module: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Pre-hook of each layer above the hook layer."""
        return args, kwargs

    def logits(self, logits_bsv: Tensor) -> tuple[Tensor, dict[int, int]]:
        """Logits of the next token, float32 [r, V], and the index of each role's row."""
        return logits_bsv[:, -1].float(), {role: role for role in ROLES}

    def next_inputs(self, token: Mapping[int, int], live: Sequence[int], cache: Any) -> list[int]:
        """The tokens to feed next, one for each row below the hook layer.

        Args:
            token: chosen by each channel.
            live: channels that have not ended.
        """
        self.steers = STEERED in live
        return [token.get(TEXT_OF[role], 0) for role in ROLES]


class SharedRows(AllRows):
    """Rows that are equal are computed once.

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
        """Only during the prompt's forward; the cache is unpacked after it."""
        self.roles = [DEFAULT, STEERED]
        self.texts_differ = False
        """Whether the texts differ."""
        self.fitted: dict[str, tuple[Any, Any]] = {}

    @property
    def texts(self) -> list[int]:
        """The text of every row below the hook layer."""
        return sorted({TEXT_OF[role] for role in self.roles}) if self.texts_differ else [0]

    def below(self, role: int) -> int:
        """The row below the hook layer that a row above it is made of."""
        return self.texts.index(TEXT_OF[role]) if self.texts_differ else 0

    @property
    def source(self) -> int:
        return self.below(STEERED)

    def inputs(self, inputs: Mapping[str, Tensor]) -> dict[str, Any]:
        """As in `AllRows`."""
        return dict(inputs)

    def expand_hidden(self, hidden_bsd: Tensor) -> Tensor:
        """As in `AllRows`; the packed positions follow DEFAULT's, or each role gets a row."""
        self.fitted.clear()
        self.device = hidden_bsd.device
        if self.packed:
            return torch.cat([hidden_bsd, hidden_bsd[:, self.first :]], dim=1)
        return hidden_bsd[[self.below(role) for role in self.roles]]

    def steered_positions(self, index_n: Tensor) -> tuple[int, Tensor]:
        """As in `AllRows`."""
        if self.packed:
            return 0, index_n - self.first + self.length
        return super().steered_positions(index_n)

    def logits(self, logits_bsv: Tensor) -> tuple[Tensor, dict[int, int]]:
        """As in `AllRows`."""
        rv = logits_bsv[:, -1]
        if self.packed:
            two_only = logits_bsv.shape[1] == 2  # the model computed no other logits (`logits_to_keep`)
            rv = logits_bsv[0, [0, 1] if two_only else [self.length - 1, -1]]
        row = {role: at for at, role in enumerate(self.roles)}
        if not self.texts_differ:
            row[CONTROL_ROW] = row[DEFAULT]
        return rv.float(), row

    def next_inputs(self, token: Mapping[int, int], live: Sequence[int], cache: Any) -> list[int]:
        self.steers = STEERED in live
        if self.packed:
            self.unpack(cache)
        texts_differ = self.texts_differ or token[DEFAULT] != token[STEERED]
        roles = [role for role in (ROLES if texts_differ else self.roles) if TEXT_OF[role] in live]
        if texts_differ and (roles != self.roles or not self.texts_differ):
            self.regroup(roles, cache)
        return [token[text] for text in self.texts]

    def regroup(self, roles: list[int], cache: Any) -> None:
        """Rows come and go: the cache of keys and values follows."""
        above = [self.roles.index(role if role in self.roles else DEFAULT) for role in roles]
        old = [self.below(DEFAULT), self.below(STEERED)]
        self.roles, self.texts_differ = roles, True
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

    # ---- the other inputs of layers

    def expand_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        for name in PER_TOKEN:
            one = inputs.get(name)
            if isinstance(one, Tensor):
                inputs[name] = one.expand(*one.shape[:-2], len(self.texts), one.shape[-1])
        if self.packed and "logits_to_keep" in inputs:
            inputs["logits_to_keep"] = torch.tensor([self.length - 1, 2 * self.length - self.first - 1])
        return inputs

    def fit_layer_inputs(self, module: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        if len(args) > 1:
            parameters = list(inspect.signature(module.forward).parameters)
            args, kwargs = args[:1], {**dict(zip(parameters[1:], args[1:], strict=False)), **kwargs}
        edits: dict[str, Callable[[Any], Any]] = {
            "attention_mask": self.fit_mask,
            "position_embeddings": lambda pair: tuple(self.fit_embedding(one) for one in pair),
            "position_ids": self.fit_ids,
        }
        names = {name for name in edits if kwargs.get(name) is not None}
        if self.packed:
            names.add("attention_mask")
        return args, {**kwargs, **{name: self.once(name, kwargs.get(name), edits[name]) for name in names}}

    def once(self, name: str, value: Any, edit: Callable[[Any], Any]) -> Any:
        """The edited value. Layers of one kind get the same tensors, so one edit serves all of them in a forward."""
        key = f"{name} {id(value)}"
        if key not in self.fitted:
            self.fitted[key] = (value, edit(value))  # the value too, so that its id is not used again
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
