"""The rows of a steered batch, and the computation that they share.

A channel is a text that is being written. For each candidate the unchanged model writes one and the edited model
another, and the unchanged model reads the second too. So each row is a `Role`: an edit, or none, on the text of a
channel.
`AllRows` runs each role through every layer: the reference, and the way of models that cannot share. `SharedRows`
computes once what is equal:

- up to the hook layer a row is its text alone: one row for all channels whose texts are the same so far;
- above it, roles of the same edit and the same text are one row;
- positions of the prompt before the first steered one are those of the unchanged model. Where most are, the steered
  ones are packed behind its row as further positions, with a mask and positions of their own.

So the rows are separated at the hook layer, inside the model's own forward. The other inputs of the layers above it
(mask and positions) are the same for all rows, because all have the same length.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from precompute.model.mllm import Mllm


class Role(NamedTuple):
    """A row that is needed."""

    edit: int
    """From 1; 0 is the unchanged model."""
    channel: int
    """Whose text it reads."""


DEFAULT, STEERED, CONTROL_ROW = 0, 1, 2
"""Roles of a single candidate: both writers, and the unchanged model on the steered text."""
ROLES = (Role(0, 0), Role(1, 1), Role(0, 1))
SAME_FOR_ALL = {"attention_mask", "position_embeddings", "position_ids"}
WITHOUT_ROWS = {"hidden_states", "past_key_values", "use_cache", "output_attentions"}
PER_TOKEN = ("attention_mask", "position_ids", "token_type_ids", "mm_token_type_ids")
"""Inputs that `generate` has for every row of tokens."""


def why_not_shared(mllm: Mllm) -> str | None:
    """Why this model's rows cannot share layers; None where they can.

    A layer above the hook must take nothing that belongs to one row but h and its own cache of keys and values."""
    text_config = mllm.model.config.get_text_config()
    for layer in mllm.decoder.layers[mllm.layer + 1 :]:
        parameters = {
            name for name, p in inspect.signature(layer.forward).parameters.items() if p.kind != p.VAR_KEYWORD
        }
        if unknown_names := sorted(parameters - SAME_FOR_ALL - WITHOUT_ROWS):
            return f"its layers also take {', '.join(unknown_names)}"
    kinds = set(getattr(text_config, "layer_types", None) or ()) - {"full_attention", "sliding_attention"}
    if kinds:
        return f"it has layers of {', '.join(sorted(kinds))}"
    attention = getattr(text_config, "_attn_implementation", None)
    if attention not in ("sdpa", "eager"):
        return f"its attention is {attention}"
    layer_indexes = getattr(getattr(mllm.model.config, "vision_config", None), "deepstack_visual_indexes", None) or ()
    if mllm.layer < len(layer_indexes):
        return f"images are added after its layers up to {len(layer_indexes) - 1}"
    return None


class AllRows:
    """Every role goes through every layer.

    Args:
        roles: the rows that are needed.
    """

    def __init__(self, roles: Sequence[Role] = ROLES) -> None:
        self.roles = list(roles)
        self.rows = list(roles)
        """Rows above the hook layer, in order."""
        self.live = {role.channel for role in roles}
        """Channels that go on."""

    def source_index(self, row: Role) -> int:
        """Index, among the rows up to layer L, of the one that a row above it is computed from."""
        return self.rows.index(row)

    def at(self, role: Role) -> int | None:
        """Index of a role's row above the hook layer; None where its channel has ended."""
        return self.rows.index(role) if role.channel in self.live else None

    def twins(self) -> list[int]:
        """Of each row the index of that in which the unchanged model reads the same text; its own where none does."""
        row_of_channel = {row.channel: number for number, row in enumerate(self.rows) if not row.edit}
        return [row_of_channel.get(row.channel, number) for number, row in enumerate(self.rows)]

    def inputs(self, inputs: Mapping[str, Tensor]) -> dict[str, Any]:
        """Inputs of `generate`, from the prompt's own."""
        return {name: torch.cat([tensor] * len(self.roles)) for name, tensor in inputs.items()}

    def expand_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Inputs of one step's forward."""
        return inputs

    def expand_hidden(self, hidden_bsd: Tensor) -> Tensor:
        """h below the hook layer → h above it, before steering."""
        return hidden_bsd

    def positions(self, row: int, index_n: Tensor) -> tuple[int, Tensor]:
        """Row and columns of a row's positions in what `expand_hidden` returned."""
        return row, index_n

    def fit_layer_inputs(self, module: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Pre-hook of each layer above the hook layer."""
        return args, kwargs

    def logits(self, logits_bsv: Tensor) -> tuple[Tensor, dict[int, int]]:
        """Logits of the next token, float32 [r, V], and the index in them of each role that goes on, by its number."""
        at = {number: self.at(role) for number, role in enumerate(self.roles)}
        return self.last(logits_bsv).float(), {number: row for number, row in at.items() if row is not None}

    def last(self, logits_bsv: Tensor) -> Tensor:
        """[r, V]: of each row's last position."""
        return logits_bsv[:, -1]

    def next_inputs(self, token: Mapping[int, int], channels: Sequence[int], cache: Any) -> list[int]:
        """The tokens to feed next, one for each row below the hook layer.

        Args:
            token: chosen by each channel.
            channels: channels that have not ended.
        """
        self.live = set(channels)
        return [token.get(role.channel, 0) for role in self.roles]


class SharedRows(AllRows):
    """Rows that are equal are computed once.

    Args:
        layer: the hook layer.
        length: positions of the prompt.
        first: the first of them that may be steered.
        pack: pack the prompt's steered positions behind the first row, instead of giving each edit a row of its own.
    """

    def __init__(self, layer: int, length: int, first: int, *, pack: bool, roles: Sequence[Role] = ROLES) -> None:
        super().__init__(roles)
        self.layer, self.length, self.first = layer, length, first
        self.packed = pack
        """Only during the prompt's forward; the cache is unpacked after it."""
        self.text_of = dict.fromkeys(sorted(self.live), 0)
        """For each live channel the first one with the same text."""
        self.fitted: dict[str, tuple[Any, Any]] = {}
        self.arrange()

    def arrange(self) -> None:
        """The rows, from the texts: below the hook layer one for each text, above it one for each edit on each."""
        live_roles = [role for role in self.roles if role.channel in self.live]
        self.rows = list(dict.fromkeys(role._replace(channel=self.text_of[role.channel]) for role in live_roles))
        self.texts = sorted({row.channel for row in self.rows})

    def source_index(self, row: Role) -> int:
        return self.texts.index(row.channel)

    def at(self, role: Role) -> int | None:
        """As in `AllRows`."""
        if role.channel not in self.live:
            return None
        return self.rows.index(role._replace(channel=self.text_of[role.channel]))

    def inputs(self, inputs: Mapping[str, Tensor]) -> dict[str, Any]:
        """As in `AllRows`."""
        return dict(inputs)

    def expand_hidden(self, hidden_bsd: Tensor) -> Tensor:
        """As in `AllRows`; the packed positions follow the first row's, or each row gets one of its own."""
        self.fitted.clear()
        self.device = hidden_bsd.device
        if self.packed:
            return torch.cat([hidden_bsd] + [hidden_bsd[:, self.first :]] * self.n_packed, dim=1)
        return hidden_bsd[[self.source_index(row) for row in self.rows]]

    @property
    def n_packed(self) -> int:
        """How many rows are packed behind the first one."""
        return len(self.rows) - 1

    @property
    def tail(self) -> int:
        """Positions of each packed row."""
        return self.length - self.first

    def positions(self, row: int, index_n: Tensor) -> tuple[int, Tensor]:
        """As in `AllRows`."""
        if self.packed:
            return 0, index_n - self.first + self.length + (row - 1) * self.tail
        return row, index_n

    def last(self, logits_bsv: Tensor) -> Tensor:
        """As in `AllRows`."""
        if not self.packed:
            return logits_bsv[:, -1]
        at = self.last_packed()
        return logits_bsv[0, at] if logits_bsv.shape[1] > at[-1] else logits_bsv[0]  # only those (`logits_to_keep`)

    def last_packed(self) -> list[int]:
        """The last position of each row of a packed one."""
        return [self.length - 1 + row * self.tail for row in range(len(self.rows))]

    def next_inputs(self, token: Mapping[int, int], channels: Sequence[int], cache: Any) -> list[int]:
        """As in `AllRows`. Rows come and go with the texts: the cache of keys and values follows."""
        if self.packed:
            self.unpack(cache)
        rows, texts, text_of = self.rows, self.texts, self.text_of
        first: dict[tuple[int, int], int] = {}
        self.live = set(channels)
        self.text_of = {c: first.setdefault((text_of[c], token[c]), c) for c in sorted(channels)}
        self.arrange()
        old_texts = [texts.index(text_of[text]) for text in self.texts]
        old_rows = [rows.index(Role(row.edit, text_of[row.channel])) for row in self.rows]
        for number, layer in enumerate(cache.layers):
            picks, n = (old_texts, len(texts)) if number <= self.layer else (old_rows, len(rows))
            if picks != list(range(n)):
                layer.batch_select_indices(torch.tensor(picks))
        return [token[text] for text in self.texts]

    def unpack(self, cache: Any) -> None:
        """Rows of keys and values, of the packed one."""
        n, tail = self.n_packed, self.tail
        for layer in cache.layers[self.layer + 1 :]:
            tails = layer.keys[0, :, self.length :], layer.values[0, :, self.length :]
            layer.crop(-n * tail)
            layer.batch_repeat_interleave(n + 1)
            for row in range(1, n + 1):
                at = slice((row - 1) * tail, row * tail)
                layer.keys[row, :, self.first :], layer.values[row, :, self.first :] = (t[:, at] for t in tails)
        self.packed = False

    # ---- the other inputs of layers

    def expand_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        for name in PER_TOKEN:
            tensor = inputs.get(name)
            if isinstance(tensor, Tensor):
                inputs[name] = tensor.expand(*tensor.shape[:-2], len(self.texts), tensor.shape[-1])
        if self.packed and "logits_to_keep" in inputs:
            inputs["logits_to_keep"] = torch.tensor(self.last_packed())
        return inputs

    def fit_layer_inputs(self, module: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        if len(args) > 1:
            parameters = list(inspect.signature(module.forward).parameters)
            args, kwargs = args[:1], {**dict(zip(parameters[1:], args[1:], strict=False)), **kwargs}
        edits: dict[str, Callable[[Any], Any]] = {
            "attention_mask": self.fit_mask,
            "position_embeddings": lambda pair: tuple(self.fit_embedding(tensor) for tensor in pair),
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
        packed one, and of the rest only its own row's."""
        if mask is not None and not self.packed:
            return mask[:1]
        f, n = self.first, self.n_packed
        if mask is None:
            mask = torch.ones(1, 1, self.length, self.length, dtype=torch.bool, device=self.device).tril()
        mask_value = False if mask.dtype == torch.bool else torch.finfo(mask.dtype).min
        tail = mask[..., f:, f:]
        no_tail = torch.full_like(tail, mask_value)
        mask_of_texts = torch.cat([mask] + [torch.full_like(mask[..., f:], mask_value)] * n, dim=-1)
        mask_of_rows = [
            torch.cat([mask[..., f:, :f], no_tail, *(tail if i == row else no_tail for i in range(n))], dim=-1)
            for row in range(n)
        ]
        return torch.cat([mask_of_texts, *mask_of_rows], dim=-2)

    def fit_embedding(self, tensor: Tensor) -> Tensor:
        """cos or sin [b, s, head]."""
        tails = [tensor[..., self.first :, :]] * self.n_packed
        return torch.cat([tensor, *tails], dim=-2) if self.packed else tensor[..., :1, :, :]

    def fit_ids(self, ids: Tensor) -> Tensor:
        """[b, s]."""
        return torch.cat([ids, *[ids[..., self.first :]] * self.n_packed], dim=-1) if self.packed else ids[..., :1, :]
