"""The multimodal model: pairs in, the residual stream after layer L out (METHOD, *Notation*: h_t).

`transformers` Auto classes are the only door; what differs between families is in geometry/. Code from a
model's folder is never run.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import lru_cache
from pathlib import Path
from typing import Any, Self, Unpack

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from precompute.errors import PairError, SaevxError, first_line
from precompute.geometry import Layout
from precompute.model.batch import IMAGE, SPECIAL, TEXT, Batch, Pair
from precompute.model.chat_template import WORKER, TemplateError, render
from precompute.model.forward_errors import forward_errors
from precompute.model.hooks import bfloat16_products, capture
from precompute.model.loading import Loading, Parts, check_place, load_parts, needs_all_layers
from precompute.model.patterns import no_panic
from precompute.model.processor import check_processor, media_marks, process
from precompute.utils.reading import reading
from precompute.utils.tensors import on_float64_device
from precompute.utils.token_text import text_of_token

_MARK = "\u2983\u2984"
"""Stands in for the pair's text while the template is rendered; no template holds it."""


class Mllm:
    """A multimodal (or text-only) language model, read at one layer.

    Attributes:
        template: the template around a pair, with `{text}` where the text goes.
        family: name of the geometry.
        full: whether the layers above `layer` are loaded too.
    """

    def __init__(self, source: str, parts: Parts, *, layer: int, full: bool) -> None:
        self.source, self.layer, self.full = source, layer, full
        self.model, self.processor, self.multimodal, self.family, self.geometry, self.image_token_id = parts
        model, processor, multimodal, image_token_id = self.model, self.processor, self.multimodal, self.image_token_id
        self.tokenizer: Any = processor.tokenizer if multimodal else processor
        self.n_embeddings = int(model.get_input_embeddings().weight.shape[0])
        pad = self.tokenizer.pad_token_id
        if pad is None or pad >= self.n_embeddings:  # what stands there is masked
            self.tokenizer.pad_token = self.tokenizer.eos_token
        self.d_model = int(model.config.get_text_config().hidden_size)
        self.context = int(getattr(model.config.get_text_config(), "max_position_embeddings", 0) or 1 << 30)
        """Most tokens of a pair."""
        self.processing = threading.Lock()
        """A tokenizer serves one thread at a time, and a server tokenises while the model writes."""
        self.media_marks: dict[str, str] = media_marks(processor, image_token_id) if multimodal else {}
        self.special_ids = np.array(sorted(set(self.tokenizer.all_special_ids)), dtype=np.int64)
        prefix, suffix = self._template_parts(1 if multimodal else 0, False)
        self.template = f"{prefix}{{text}}{suffix}"

    @classmethod
    def load(cls, name_or_dir: str | Path, *, layer: int, full: bool = False, **loading: Unpack[Loading]) -> Self:
        """Load a transformers folder or hub id.

        Args:
            layer: L, counted from 0.
            full: False loads layers 0…L only: enough for `hidden`, not for `nll`, steering or generation.
            loading: keywords of `Loading`, such as `device`.

        Raises:
            SaevxError: no such model, an unknown family, a layer it does not have, a device that is not there.
        """
        source = str(name_or_dir)
        check_place(source)
        WORKER.start()  # its libraries load while the model does
        parts = load_parts(source, layer=layer, full=full, **loading)
        with reading(f"The model {source}", source):  # its template is rendered here
            mllm = cls(source, parts, layer=layer, full=full)
            check_processor(mllm)
            return mllm

    @property
    def device(self) -> torch.device:
        """Where input tensors go."""
        return self.model.get_input_embeddings().weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.model.dtype

    # ---- pairs → tensors

    @lru_cache(maxsize=16)  # noqa: B019 (one or two models a process)
    def _template_parts(self, n_images: int, generate: bool) -> tuple[str, str]:
        """Template before and after the text. Rendered once with a mark in the text's place, so that the text
        can neither be mistaken for the template nor change it."""
        source = self.processor if getattr(self.processor, "chat_template", None) else self.tokenizer
        if template := getattr(source, "chat_template", None):
            content: Any = [{"type": "image"}] * n_images + [{"type": "text", "text": _MARK}]
            if source is self.tokenizer:
                content = self._image_marks(n_images) + _MARK
            messages = [{"role": "user", "content": content}]
            text = render(template, messages, generate=generate, **self.tokenizer.special_tokens_map)
            if text.count(_MARK) == 1:
                prefix, _, suffix = text.partition(_MARK)
                return prefix, suffix
        return self._image_marks(n_images), ""

    def _image_marks(self, n_images: int) -> str:
        return f"{self.processor.image_token}\n" * n_images if n_images else ""

    def prepare(self, pairs: Sequence[Pair], *, generate: bool = False) -> Batch:
        """Pairs in the model's own chat template (else `<image>\\n{text}`), as tensors on the model's device.

        Text tokens are those whose characters lie in the pair's own text; the template, padding and the
        tokenizer's special tokens are SPECIAL. A pair has the same tokens whatever other pairs are in the batch.

        Args:
            generate: end with the template's generation prompt, for an answer to be written.

        Raises:
            PairError: images for a text-only model; a text that holds the model's image token; a pair longer than the
                model's context; whatever the model's processor refuses.
            SaevxError: image tokens that the geometry does not account for.
        """
        images = [image for pair in pairs for image in pair.images]
        if images and not self.multimodal:
            raise PairError("its image cannot be read: this model reads text only", "choose a multimodal model")
        for pair in pairs:
            self.check_text(pair.text)
        try:
            around = [self._template_parts(len(pair.images), generate) for pair in pairs]
        except TemplateError as error:
            raise PairError(f"the model's processor refuses it in its chat template ({first_line(error)})") from error
        texts = [prefix + pair.text + suffix for pair, (prefix, suffix) in zip(pairs, around, strict=True)]
        bos = self.tokenizer.bos_token
        # A template may bring its own begin-of-sequence token. The texts, which may hold one, do not decide this.
        adds_bos = not (bos and self.template.startswith(bos))
        with self.processing:
            inputs, grown_b = process(
                self.processor, self.tokenizer, pairs, texts, multimodal=self.multimodal, add_special_tokens=adds_bos
            )
        offset_bs2 = inputs.pop("offset_mapping").numpy()
        ids_bs = inputs["input_ids"].numpy()
        last_id = int(ids_bs.max(initial=0, where=ids_bs != self.image_token_id))
        if last_id >= self.n_embeddings:
            raise PairError(
                f"the model's processor refuses it (its token {last_id} has no place among the model's "
                f"{self.n_embeddings} embeddings)",
                "copy the files of the model's tokenizer again",
            )
        length_b = inputs["attention_mask"].sum(dim=1).numpy().astype(np.int64)
        self.check_length(int(length_b.max(initial=0)))
        begin_b = np.array([len(prefix) for prefix, _ in around]) + np.array(grown_b)
        end_b = begin_b + np.array([len(pair.text) for pair in pairs])
        start_bs, stop_bs = offset_bs2[..., 0], offset_bs2[..., 1]
        real_bs = np.arange(ids_bs.shape[1]) < length_b[:, None]
        own_bs = (start_bs >= begin_b[:, None]) & (stop_bs <= end_b[:, None]) & (stop_bs > start_bs)
        modality_bs = np.full(ids_bs.shape, SPECIAL, dtype=np.uint8)
        modality_bs[own_bs & real_bs & ~np.isin(ids_bs, self.special_ids)] = TEXT
        image_bs = real_bs & (ids_bs == (-1 if self.image_token_id is None else self.image_token_id))
        views = []
        for b, pair in enumerate(pairs):
            at = np.flatnonzero(image_bs[b])
            layout = self._layout(pair, len(at))
            modality_bs[b, at] = np.where(layout.mark_n, SPECIAL, IMAGE)
            views.append(layout.views)
        return Batch({k: v.to(self.device) for k, v in inputs.items()}, modality_bs, views, length_b)

    def check_text(self, text: str) -> None:
        """Raises PairError where a text holds one of the model's own marks for images, videos or sound."""
        for mark, medium in self.media_marks.items():
            if mark in text:
                raise PairError(f"its text holds {mark}, the model's mark for {medium}", "remove it")

    def check_length(self, n_tokens: int, n_new: int = 0) -> None:
        """Raises PairError where a pair, with so many new tokens, is longer than the model's context."""
        if n_tokens + n_new > self.context:
            growth = f" and would grow by {n_new}" if n_new else ""
            raise PairError(
                f"it has {n_tokens} tokens{growth}, more than the model's context of {self.context}", "shorten it"
            )

    def _layout(self, pair: Pair, n_tokens: int) -> Layout:
        layout = self._geometry_of([image.size for image in pair.images], n_tokens)
        if len(layout.mark_n) != n_tokens:
            raise SaevxError(
                f"The model has {n_tokens} image tokens where geometry {self.family!r} counts "
                f"{len(layout.mark_n)}: correct it in precompute/geometry, or run with --geometry square."
            )
        return layout

    def _geometry_of(self, sizes: Sequence[tuple[int, int]], n_tokens: int) -> Layout:
        try:
            return self.geometry(self.processor, self.model.config, list(sizes), n_tokens)
        except SaevxError:
            raise
        except Exception as error:  # the sizes that a family's own resizing does not take
            listing = ", ".join(f"{width} × {height}" for width, height in sizes)
            reason = f"the model's processor refuses its image of {listing} pixels ({first_line(error)})"
            raise PairError(reason, "crop it or send another") from error

    def n_image_tokens(self, sizes: Sequence[tuple[int, int]]) -> int:
        """Tokens that images of these sizes (width, height) become, without looking at pixels, for planning; 0 where
        only the tokens themselves can tell. Raises PairError for sizes that the processor refuses."""
        return 0 if self.family == "square" else len(self._geometry_of(sizes, 0).mark_n)

    def n_text_tokens(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """[n] tokens of texts without the template, for planning."""
        with self.processing, no_panic():
            ids = self.tokenizer(list(texts), add_special_tokens=False)["input_ids"] if texts else []
        return np.array([len(ids_of_text) for ids_of_text in ids], dtype=np.int64)

    def text_of(self, token_ids: Sequence[int]) -> str:
        """Tokens as one text, special ones left out. Safe while another thread is in `prepare`."""
        with self.processing:
            text: str = self.tokenizer.decode(token_ids, skip_special_tokens=True)
        return text

    # ---- tensors → residual stream

    @property
    def decoder(self) -> Any:
        """The language model's stack: has `layers` and the final `norm`."""
        return self.model.get_decoder()

    def decoder_layer(self) -> nn.Module:
        """Layer L, whose output is h."""
        return self.decoder.layers[self.layer]

    def hidden(self, batch: Batch) -> Tensor:
        """h [b, s, d] in the model's dtype: layer L's own output, never after the final norm."""
        with forward_errors(), capture(self.decoder_layer()) as outputs, self._only_to_layer(), torch.inference_mode():
            self.model.base_model(**self.causal_inputs(batch), use_cache=False)
        return outputs[0]

    def hidden_and_nll(self, batch: Batch, *, quick: bool = False) -> tuple[Tensor, NDArray[np.float64]]:
        """`hidden`, and the mean cross-entropy in nats [b] of each pair's text tokens given what stands before
        them (METHOD, `caption-nll`); nan without text. Needs the whole model.

        Args:
            quick: a float32 model on a CPU with bfloat16 units may use them above layer L; h does not change by a bit.
        """
        if not self.full:
            raise SaevxError("The caption's cross-entropy needs the whole model: load it with full=True.")
        text_bs = torch.from_numpy(batch.modality_bs == TEXT).to(self.device)
        text_bs[:, 0] = False  # nothing predicts the first token
        columns = text_bs.any(dim=0).nonzero()
        first = int(columns[0]) if len(columns) else text_bs.shape[1]
        keep = text_bs.shape[1] - first + 1
        last = self.last_positions(text_bs.shape[1], keep)
        rounding = self._rounded_above() if quick else nullcontext()
        with forward_errors(), capture(self.decoder_layer()) as outputs, rounding, torch.inference_mode():
            output = self.model(**self.causal_inputs(batch), use_cache=False, logits_to_keep=last)
            logits_bsv = output.logits[:, -keep:-1]
            text_bs = text_bs[:, first:]
            target_n = batch.inputs["input_ids"][:, first:][text_bs]
            loss_n = nn.functional.cross_entropy(logits_bsv[text_bs].float(), target_n, reduction="none")
            loss_n, text_bs = on_float64_device(loss_n), on_float64_device(text_bs)
            total_b = torch.zeros(len(text_bs), dtype=torch.float64, device=loss_n.device)
            total_b.index_add_(0, text_bs.nonzero()[:, 0], loss_n.double())
        n_b = text_bs.sum(dim=1).double()
        mean_b: NDArray[np.float64] = (total_b / n_b).cpu().numpy()
        return outputs[0], mean_b

    def last_positions(self, n_positions: int, keep: int) -> Any:
        """`logits_to_keep` for the last `keep` of `n_positions` tokens, of a model that runs all layers on all."""
        if needs_all_layers(self.model.config.get_text_config()):
            # With a number, such a model runs its upper layers on these tokens only; with places, on all.
            return torch.arange(n_positions - keep, n_positions, device=self.device)
        return keep

    def causal_inputs(self, batch: Batch) -> dict[str, Tensor]:
        """The batch's inputs as the model is called with them."""
        # Padding is on the right, so the causal mask alone already hides it; without an explicit mask SDPA
        # takes its fast path.
        inputs = {k: v for k, v in batch.inputs.items() if k != "attention_mask"}
        if "pixel_values" in inputs:
            inputs["pixel_values"] = inputs["pixel_values"].to(self.dtype)
        return inputs

    def _rounded_above(self) -> AbstractContextManager[None]:
        """Linear layers above layer L may round what they multiply to bfloat16, where this is a float32 model on a CPU.
        It is what every GPU run does from the first layer on, and a mean cross-entropy bears it."""
        if self.device.type != "cpu" or self.dtype != torch.float32:
            return nullcontext()
        modules = [self.model.get_output_embeddings(), *self.decoder.layers[self.layer + 1 :]]
        return bfloat16_products(modules)

    @contextmanager
    def _only_to_layer(self) -> Iterator[None]:
        """A whole model is run to layer L only."""
        decoder = self.decoder
        layers = decoder.layers
        decoder.layers = layers[: self.layer + 1]
        try:
            yield
        finally:
            decoder.layers = layers

    # ---- words

    def token_text(self, token_id: int) -> str:
        """The token as text: a word's first piece keeps its space, bytes of a character are marks (token_text.py)."""
        return self._piece(self.tokenizer.convert_ids_to_tokens(int(token_id)))

    def vocabulary(self) -> list[str]:
        """`token_text` of every id of the embedding, "" for unused ones."""
        token_ids = list(range(self.n_embeddings))
        return [self._piece(token) for token in self.tokenizer.convert_ids_to_tokens(token_ids)]

    def _piece(self, token: str | None) -> str:
        return "" if token is None else text_of_token(token, self.tokenizer.convert_tokens_to_string)

    def logit_lens_weights(self) -> tuple[Tensor | None, Tensor]:
        """Weight of the final norm [d] (None without one) and the unembedding W_U [V, d], float32 on the CPU.

        Of an RMSNorm the weight is what it makes of a vector of ones, whatever the family adds to it."""
        unembed_vd = self.model.get_output_embeddings().weight
        norm = getattr(self.decoder, "norm", None)
        weight_d = None
        if norm is not None:
            with torch.inference_mode():
                weight = norm.weight
                ones = torch.ones_like(weight, dtype=torch.float32)
                weight_d = (weight if getattr(norm, "bias", None) is not None else norm(ones)).float().cpu().clone()
        return weight_d, unembed_vd.detach().float().cpu()
