"""The tools: each asks the application what its API answers, and returns the part that an agent needs."""

import asyncio
import base64
import binascii
import json
from dataclasses import asdict, replace
from typing import Any

from fastapi import FastAPI
from mcp.server.mcpserver import Image
from urllib3 import encode_multipart_formdata

from backend.drawing.heat import finest
from backend.inside import RefusedError, get_json, request
from backend.mcp import fields
from backend.mcp.fields import EXAMPLE, FEATURE, NEIGHBOUR, SAMPLE, pick, shorten
from backend.mcp.images import Tile, panel
from backend.schemas.samples import GridValues

LOADING_S = 600
"""Seconds to wait for a model that is being loaded."""
JSON = dict[str, Any]


class Tools:
    """The tools over one application. Whatever is refused raises RefusedError with one sentence.

    Args:
        app: its first store is read.
    """

    def __init__(self, app: FastAPI) -> None:
        self.app = app

    def all(self) -> list[Any]:
        """Every tool; none of them changes anything."""
        return [
            self.about_store, self.list_features, self.get_feature, self.feature_examples, self.feature_image,
            self.list_samples, self.get_sample, self.sample_image, self.search_words, self.search_image,
            self.list_pairs, self.list_flags, self.steer,
        ]  # fmt: skip

    async def about_store(self) -> JSON:
        """What the store was made from: model, layer, SAE, data, numbers of features and samples, features by verdict,
        and whether the model is loaded, which search_image and steer need."""
        names = ("name", "model", "layer", "sae", "dataset", "n_features", "n_samples", "verdicts", "live")
        return pick(await get_json(self.app, "/store"), names)

    # ---- features

    async def list_features(
        self,
        words: fields.Words = None,
        verdict: fields.Verdict = None,
        sort: fields.FeatureSort = "match",
        order: fields.Order = "desc",
        limit: fields.Limit = 20,
        cursor: fields.Cursor = None,
    ) -> JSON:
        """Features of the sparse autoencoder, filtered and sorted: `{items, total, next}`. `label` is an automatic
        name, `label_score` says how well it tells the feature's samples from others (.5 is chance; below .6 read
        `description`)."""
        page = await get_json(
            self.app, "/features", q=words, verdict=verdict, sort=sort, order=order, limit=limit, cursor=cursor
        )
        return {**page, "items": [pick(feature, FEATURE) for feature in page["items"]]}

    async def get_feature(self, feature: fields.Feature) -> JSON:
        """One feature with its figures, the tokens that it promotes and suppresses, similar features, and features that
        fire in the same samples."""
        detail = await get_json(self.app, f"/features/{feature}")
        lens = detail["logits"]["centred"]
        return {
            **pick(detail, (*FEATURE, "words", "place", "pair_lift_low", "agreement_low", "omega_baseline")),
            "promoted": [token["token"] for token in lens["promoted"]],
            "suppressed": [token["token"] for token in lens["suppressed"]],
            "neighbours": {by: [pick(n, NEIGHBOUR) for n in ns] for by, ns in detail["neighbours"].items()},
            "cooccurring": {by: [pick(n, NEIGHBOUR) for n in ns] for by, ns in detail["cooccurring"].items()},
        }

    async def feature_examples(
        self, feature: fields.Feature, side: fields.Side = "image", band: fields.Band = "-1", limit: fields.Limit = 10
    ) -> JSON:
        """Samples in which a feature fires: the caption, the token or patch where it is strongest, its activation."""
        page = await self._examples(feature, side, band, limit)
        return {"items": [pick(example, EXAMPLE) for example in page["items"]]}

    async def feature_image(self, feature: fields.Feature, limit: fields.Limit = 6) -> list[Image | str]:
        """The images on which a feature fires most strongly, with where it fires on them, as one PNG; then their
        ids."""
        examples = [e for e in (await self._examples(feature, "image", "-1", limit))["items"] if e["images"]]
        if not examples:
            raise RefusedError(f"Feature {feature} fires on no image here: see feature_examples with side text.")
        top = (await get_json(self.app, f"/features/{feature}"))["p999"]
        tiles = []
        for e in examples:
            patch, grid = e["patch"], e["grid"]
            image = e["images"][(grid or patch or {"image": 0})["image"]]
            tiles.append(await self._tile(image, grid, patch and patch["box"], f"{e['activation']:.3g}"))
        ids = [e["sample_id"] for e in examples]
        return [Image(data=panel(tiles, top), format="png"), f"Feature {feature}, strongest first: {', '.join(ids)}"]

    async def _examples(self, feature: int, side: str, band: str, limit: int) -> JSON:
        path = f"/features/{feature}/examples"
        return dict(await get_json(self.app, path, modality=side, band=band, limit=limit))

    # ---- samples

    async def list_samples(
        self,
        words: fields.Words = None,
        flag: fields.Flag = None,
        feature: fields.MaybeFeature = None,
        limit: fields.Limit = 20,
        cursor: fields.Cursor = None,
    ) -> JSON:
        """Pairs of image and caption: `{items, total, next}`, with the words in the caption, with a quality flag
        (the worst first), or on whose image a feature fires."""
        filters = {"q": words, "flag": flag, "feature": feature, "sort": flag, "order": "desc" if flag else None}
        page = await get_json(self.app, "/samples", **filters, limit=limit, cursor=cursor)
        return {**page, "items": [pick(sample, SAMPLE) for sample in page["items"]]}

    async def get_sample(self, sample_id: fields.SampleId) -> JSON:
        """One pair: caption, scores, flags with their reasons, and its strongest features on image and caption."""
        sample = await get_json(self.app, "/sample", id=sample_id)
        groups = {
            by: [pick(f, (*NEIGHBOUR, "share_text", "share_image")) for f in fs[:12]]
            for by, fs in sample["groups"].items()
        }
        return {**pick(sample, ("sample_id", "text", "scores", "flags", "extra", "near_sample_id")), "features": groups}

    async def sample_image(self, sample_id: fields.SampleId, feature: fields.MaybeFeature = None) -> list[Image | str]:
        """The image of a sample as PNG; with `feature`, where it fires on it."""
        sample = await get_json(self.app, "/sample", id=sample_id)
        if not sample["images"]:
            raise RefusedError(f"Sample {sample_id!r} has no image.")
        grids, top = [], 1.0
        if feature is not None:
            activations = await get_json(self.app, "/sample/activations", id=sample_id, feature=feature)
            grids, top = activations["grids"], activations["features"][0]["p999"]
        tiles = []
        for number, image in enumerate(sample["images"]):
            views = [GridValues.model_validate(grid) for grid in grids if grid["image"] == number]
            view = finest(views)
            grid = None if view is None else {**view.model_dump(), "values": view.values[0]}
            tiles.append(await self._tile(image, grid, None, "" if feature is None else f"feature {feature}"))
        return [Image(data=panel(tiles, top), format="png"), sample["text"]]

    async def _tile(self, image: JSON, grid: JSON | None, peak: Any, line: str) -> Tile:
        body = (await request(self.app, "GET", f"{image['url']}&size=256")).checked()
        return Tile(body, (image["width"], image["height"]), grid, peak, line)

    # ---- search, pairs, flags

    async def search_words(self, words: fields.SearchedWords, limit: fields.Limit = 10) -> JSON:
        """Features whose name or promoted tokens have the words, and samples whose caption has them."""
        reply = await get_json(self.app, "/search", q=words, limit=limit)
        return {
            "features": [pick(item, (*FEATURE, "promoted")) for item in reply["features"]],
            "samples": [pick(item, SAMPLE) for item in reply["samples"]],
            "n_features": reply["n_features"],
            "n_samples": reply["n_samples"],
        }

    async def search_image(
        self,
        image_base64: fields.ImageData = None,
        sample_id: fields.MaybeSample = None,
        words: fields.Words = None,
        limit: fields.Limit = 12,
    ) -> JSON:
        """The features that an image activates, strongest and rarest first, and the samples nearest to it. Give an
        image or a sample; with words, only features that both activate rank high."""
        image = None if image_base64 is None else decode(image_base64)
        if image is not None or words:
            await self._wait_for_model()
        form: dict[str, Any] = {name: value for name, value in (("sample_id", sample_id), ("text", words)) if value}
        body, kind = encode_multipart_formdata(form if image is None else {**form, "image": ("image", image)})
        reply = json.loads((await request(self.app, "POST", f"/api/v1/search?limit={limit}", body, kind)).checked())
        names = (*NEIGHBOUR, "verdict", "score", "strength_image", "strength_text", "density_image")
        return {
            "features": [pick(item, names) for item in reply["features"]],
            "samples": [pick(item, ("sample_id", "text", "modality", "cosine")) for item in reply["samples"]],
            "reconstruction": shorten(reply["reconstruction"]),
        }

    async def list_pairs(
        self,
        feature: fields.MaybeFeature = None,
        kind: fields.Kind = "text-image",
        limit: fields.Limit = 20,
        cursor: fields.Cursor = None,
    ) -> JSON:
        """Pairs of features that fire in the same samples more often than by chance (lift 1 is chance), with support
        and the lift after captions were shuffled."""
        page = await get_json(self.app, "/cooccurrence", feature=feature, kind=kind, limit=limit, cursor=cursor)
        names = ("lift", "lift_low", "lift_high", "lift_shuffled", "npmi", "support")
        items = [
            {"a": pick(pair["a"], NEIGHBOUR), "b": pick(pair["b"], NEIGHBOUR), **pick(pair, names)}
            for pair in page["items"]
        ]
        return {**page, "items": items}

    async def list_flags(self) -> JSON:
        """The quality flags with what they mean, their thresholds, how many samples have them, and how well each
        tells a caption from an exchanged one (AUROC, null where there is nothing to test it on); and the scores
        likewise."""
        flags, scores = await get_json(self.app, "/flags"), await get_json(self.app, "/scores")
        names = ("name", "title", "description", "unit", "threshold", "count", "auroc", "mean")
        return {
            "flags": [pick(item, names) for item in flags["items"]],
            "scores": [pick(item, names) for item in scores["items"]],
        }

    # ---- steering

    @fields.takes(fields.Steering)
    async def steer(self, **arguments: Any) -> JSON:
        """What the model writes, and what it writes with a feature strengthened, set or removed: `default` and
        `steered` text, `mean_kl` in nats (how much the next tokens change), and `capped`, whether the change was cut
        to the residual's length. Without sample and prompt: a sample in which the feature is off."""
        await self._wait_for_model()
        steering = fields.Steering(**arguments)
        needs_sample = steering.sample_id is None and not steering.prompt
        where: JSON = {}
        if steering.strength is None or needs_sample:
            start = await get_json(self.app, "/steer/start", feature=steering.feature)
            strength = start["strength"] if steering.strength is None else steering.strength
            where = {"scope": start["scope"]} if steering.strength is None else {}
            sample_id = start["sample_id"] if needs_sample else steering.sample_id
            steering = replace(steering, strength=strength, sample_id=sample_id)
        change = {"id": steering.feature, "mode": steering.mode, "strength": steering.strength}
        setting = asdict(steering)
        options = {name: setting[name] for name in ("sample_id", "prompt", "max_tokens", "attention")}
        body = {**options, **where, "features": [change]}
        reply = (await request(self.app, "POST", "/api/v1/steer", json.dumps(body).encode())).checked()
        name, data = stream_events(reply)[-1]
        if name != "done":
            raise RefusedError(data.get("detail", "The model stopped before it was done: try again."))
        figures = shorten({key: data[key] for key in ("mean_kl", "delta_ratio", "capped", "warning")})
        del setting["max_tokens"]
        return {**data["text"], **figures, **setting}

    async def _wait_for_model(self) -> None:
        """Until the model is no longer being loaded; whether it is there the request itself says."""
        for _ in range(LOADING_S):
            if (await get_json(self.app, "/live"))["state"] != "loading":
                return
            await asyncio.sleep(1)


def decode(text: str) -> bytes:
    """The file of a base64 text or data: URL."""
    try:
        return base64.b64decode(text.rpartition(",")[2], validate=True)
    except (ValueError, binascii.Error):
        raise RefusedError("image_base64 is not base64: encode the bytes of a PNG, JPEG or WebP file.") from None


def stream_events(body: bytes) -> list[tuple[str, JSON]]:
    """Name and data of the server-sent events."""
    events = []
    for block in body.decode().split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line)
        if "event" in lines:
            events.append((lines["event"], json.loads(lines["data"])))
    return events
