"""`--labeller URL`: names of features written by a model behind an OpenAI-compatible API; off by default.

It is shown the evidence that the keyword labels rest on: marked tokens, images with the patch marked, their
captions, promoted tokens. What it replies is untrusted text: cleaned, shortened and never markup.
"""

import base64
import io
import json
import os
import re
import threading
import unicodedata
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from precompute.errors import SaevxError
from precompute.store.events import patches
from precompute.store.making.unfinished import Collected
from precompute.store.schema import IMAGE, TEXT
from precompute.utils.progress import progress_bar, say
from precompute.utils.token_text import join

Content = list[dict[str, Any]]

KEY = "SAEVX_LABELLER_KEY"
MAX_LABEL = 60
MAX_REPLY = 1 << 20
"""Bytes read of a reply."""
TIMEOUT_S = 60.0
WORKERS = 8
MAX_FAILURES_IN_A_ROW = 20
"""Failures in a row after which the rest is not asked any more."""
N_TOKENS, N_IMAGES, CONTEXT_TOKENS = 10, 4, 8
SYSTEM_PROMPT = (
    "You name features of a sparse autoencoder inside a multimodal language model. Reply with the name alone: "
    "what the examples share, in one to six words, no sentence, no explanation."
)


def check_url(url: str) -> None:
    """Raises SaevxError for an address that is not HTTP's."""
    if not re.match(r"https?://[^/]", url):
        raise SaevxError(f"--labeller takes an address such as http://localhost:8000/v1, not {url!r}.")


class Labeller:
    """A model that names features.

    Plain HTTP and not huggingface_hub's InferenceClient (2.4): without a key of ours it sends the user's Hugging Face
    token to whatever address is named, and takes no `token=False`. Refusing this machine's own server under
    HF_HUB_OFFLINE and reading replies of any length can be changed for the whole process alone (`set_client_factory`),
    which would lift the offline mode of all downloads too. And it does not list an address's models.

    Attributes:
        model: its name, for the manifest.
    """

    def __init__(self, url: str, model: str | None = None) -> None:
        check_url(url)
        self.url = url.rstrip("/")
        self.model = model or self._first_model()

    def _first_model(self) -> str:
        """The first model that the server lists; "" where it does not say."""
        try:
            return clean(str(self._call("models", None)["data"][0]["id"]), 200)
        except (OSError, HTTPException, ValueError, LookupError, TypeError):
            return ""

    def _call(self, path: str, body: dict[str, Any] | None) -> Any:
        headers = {"Content-Type": "application/json"}
        if key := os.environ.get(KEY):
            headers["Authorization"] = f"Bearer {key}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}/{path}", data, headers)
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as reply:
            body_read = reply.read(MAX_REPLY + 1)
        if len(body_read) > MAX_REPLY:
            raise ValueError("the reply is too long")
        return json.loads(body_read)

    def name(self, content: Content) -> str | None:
        """A name, or None where the server failed or said nothing of use."""
        messages = [{"role": "system", "content": SYSTEM_PROMPT}, {"role": "user", "content": content}]
        body = {"model": self.model, "messages": messages, "temperature": 0, "max_tokens": 64}
        try:
            reply = self._call("chat/completions", body)["choices"][0]["message"]["content"]
            return clean(reply) or None if isinstance(reply, str) else None
        except (OSError, HTTPException, ValueError, LookupError, TypeError):
            return None

    def names(self, data: Collected, features: list[int], promoted_tokens: list[list[str]]) -> list[str | None]:
        """A name for each feature, None where it failed.

        Args:
            promoted_tokens: of each feature, the tokens that its direction promotes.
        """
        failed_in_row, lock = 0, threading.Lock()
        _ = (data.examples, data.samples, data.vocabulary)  # read once, before threads share them

        def name_one(i: int) -> str | None:
            nonlocal failed_in_row
            if failed_in_row >= MAX_FAILURES_IN_A_ROW:
                return None
            name = self.name(evidence(data, features[i], promoted_tokens[i]))
            with lock:
                failed_in_row = 0 if name else failed_in_row + 1
                progress.update(1)
            return name

        with progress_bar("labeller", len(features), "features") as progress, ThreadPoolExecutor(WORKERS) as pool:
            names = list(pool.map(name_one, range(len(features))))
        if failed_in_row >= MAX_FAILURES_IN_A_ROW:
            gave_up = f"labeller: {MAX_FAILURES_IN_A_ROW} failures in a row"
            say(f"{gave_up}: no more was asked, the other features keep their keywords")
        return names


def clean(text: str, max_length: int = MAX_LABEL) -> str:
    """One line of plain text: no tags, no control or invisible characters, no quotes around it, at most `max_length`
    characters."""
    text = re.sub(r"(?s)<think>.*?</think>", " ", text)
    text = re.sub(r"<[^<>]*>", " ", text).strip()
    text = text.splitlines()[0] if text else ""
    text = "".join(" " if unicodedata.category(c)[0] in "CZ" else c for c in text)
    text = " ".join(text.split()).strip(" \"'“”„‘’`*#.:;-–—")
    if len(text) > max_length:
        text = text[:max_length].rsplit(" ", 1)[0].rstrip(" ,.:;-–—")
    return text


def evidence(data: Collected, feature: int, tokens: list[str]) -> Content:
    """What the model is shown of a feature: one text, then images as data URLs."""
    lines = [f"- {in_text(data, row, position)}" for row, position in tops(data, feature, TEXT, N_TOKENS)]
    prompt_lines = ["The feature fires on the tokens in [[ ]]:", *lines] if lines else []
    marked_images: Content = []
    captions = []
    for row, position in tops(data, feature, IMAGE, N_IMAGES):
        captions.append(f"- {data.samples[row]['text'][:300]}")
        marked_images += [{"type": "image_url", "image_url": {"url": url}} for url in in_image(data, row, position)]
    if captions:
        prompt_lines += ["It fires inside the red box of the images below. Their captions:", *captions]
    if tokens:
        prompt_lines.append(f"It makes the model say: {', '.join(tokens)}")
    return [{"type": "text", "text": "\n".join(prompt_lines) or "There is no example."}, *marked_images]


def tops(data: Collected, feature: int, modality: int, limit: int) -> list[tuple[int, int]]:
    """(row, position) of the feature's strongest examples."""
    rows, positions = (data.examples[f"top_{name}"][feature, modality, :limit].tolist() for name in ("row", "position"))
    return [(row, position) for row, position in zip(rows, positions, strict=True) if row >= 0]


def in_text(data: Collected, row: int, position: int) -> str:
    """The token among its neighbours, marked."""
    sample = data.events.of(row)
    window = range(max(0, position - CONTEXT_TOKENS), min(len(sample.token_id_t), position + CONTEXT_TOKENS + 1))
    positions = [t for t in window if sample.modality_t[t] == TEXT]
    text = join([data.vocabulary[int(sample.token_id_t[t])] for t in positions])
    token, end = text.characters(positions.index(position)), text.stop[positions.index(position)]
    begin = end - len(token.lstrip())
    return " ".join(f"{text.text[:begin]}[[{token.lstrip()}]]{text.text[end:]}".split())


def in_image(data: Collected, row: int, position: int) -> list[str]:
    """The image with the patch in a red box, as a data URL; none where the patch cannot be placed."""
    record, sample = data.samples[row], data.events.of(row)
    places = patches(sample, record["views"])
    at = np.flatnonzero(places.position == position)
    if not len(at):
        return []
    view, r, c = (int(x[at[0]]) for x in (places.view, places.row, places.col))
    n_rows, n_cols, (x0, y0, x1, y1), number = record["views"][view]
    image = record["images"][int(number)]
    with Image.open(data.part / image["thumb"]) as image_file:
        thumbnail = image_file.convert("RGB")
    scale_x, scale_y = thumbnail.width / image["width"], thumbnail.height / image["height"]
    step_x, step_y = (x1 - x0) / n_cols * scale_x, (y1 - y0) / n_rows * scale_y
    left, top = x0 * scale_x + c * step_x, y0 * scale_y + r * step_y
    ImageDraw.Draw(thumbnail).rectangle((left, top, left + step_x, top + step_y), outline=(255, 0, 0), width=2)
    buffer = io.BytesIO()
    thumbnail.save(buffer, "JPEG", quality=85, subsampling=0)
    return ["data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()]
