"""`saevx precompute`: data, model and SAE-V in, an immutable store out.

The store grows in STORE.part, is verified there and renamed into place, so STORE is either whole or absent.
"""

from __future__ import annotations

import datetime as dt
import importlib
import json
import platform
import sys
import tempfile
import time
from collections.abc import Iterable
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast

from pydantic import ConfigDict, Field

from precompute import memory
from precompute.data import Data, Source, read
from precompute.errors import SaevxError
from precompute.options import Fields, Spread, where
from precompute.plan import Plan, fingerprint, plan_rows, shuffle_images
from precompute.progress import say
from precompute.ray_pool import check

if TYPE_CHECKING:
    from precompute.forecast import Forecast
    from precompute.rehearse import Rehearsal

Step = Literal["collect", "weigh", "score", "flag", "cooccur", "index", "label"]
PASS_OPTIONS = {
    "batch_tokens", "shard_samples", "ds", "sinks", "seed", "nll", "geometry", "device", "dtype", "quantize",
    "shuffle_images",
}  # fmt: skip
LATER: tuple[Step, ...] = ("weigh", "score", "flag", "cooccur", "index", "label")
LATER_OPTIONS = {
    "name", "model_name", "sae_name", "data_name", "delta", "omega", "repeat_samples", "labeller", "labeller_model",
    "events", "max_store_gb",
}  # fmt: skip
MANIFEST, RUN, PLAN = "manifest.json", "run.json", "plan.json"
WRITTEN = "written"
"""In the manifest of an unfinished store whose tables are all written: a fingerprint of the later steps' options."""


class Options(Spread, Fields):
    """Make a store: every pair through the model and the SAE-V once, and from it all that pages show."""

    model_config = ConfigDict(use_attribute_docstrings=True, extra="forbid")

    data: str
    """Pairs: an imagefolder, JSONL, Parquet, WebDataset tars (a folder or a glob) or a data set of the hub."""
    model: str
    """Model: a transformers folder or hub id."""
    sae: str
    """SAE-V: a SAELens folder, RELEASE:SAE_ID of SAELens' list, or a hub id."""
    out: Path
    """Folder of the finished store; it must not exist yet."""
    name: str | None = None
    """The store's short name in the explorer; default: the folder's."""
    model_name: str | None = None
    """What pages call the model; default: its folder's name or hub id. Likewise the next two."""
    sae_name: str | None = None
    """What pages call the SAE-V."""
    data_name: str | None = None
    """What pages call the data."""
    layer: int | None = Field(default=None, ge=0)
    """Decoder layer L to read, counted from 0; default: the one in the SAE's own config."""
    nll: bool = False
    """Also measure each caption's cross-entropy given its image (score caption-nll); runs the whole model."""
    batch_tokens: int | None = Field(default=None, ge=1)
    """Most tokens in a batch, padding counted; default: 4096, and 1024 where the model runs on a CPU."""
    shard_samples: int = Field(default=1024, ge=1)
    """Samples in a shard, after which a killed run can go on."""
    ds: int = Field(default=1000, ge=1)
    """Samples in D_s, from which ω is computed."""
    delta: float | None = Field(default=None, ge=0)
    """Activation threshold δ for ω, in units of z; default: 10 % of each feature's 99.9th percentile."""
    sinks: float | Literal["keep"] = Field(default=4.0)
    """Leave out as attention sinks tokens with a norm above this multiple of their modality's median; or keep."""
    omega: Literal["paired", "all-pairs"] = "paired"
    """Which ω the scores use."""
    repeat_samples: bool = False
    """Let a sample give several of the tokens behind ω, as the authors do; default: one per modality."""
    seed: int = Field(default=0, ge=0)
    """Seed of every choice by chance."""
    shuffle_images: bool = False
    """Control: exchange the images among the pairs before the pass, none keeping its own; the store says so."""
    labeller: str | None = None
    """Let a model name the features, its pictures sent along: base URL of an OpenAI-compatible API, such as
    http://localhost:8000/v1. The key, where it wants one, is read from SAEVX_LABELLER_KEY."""
    labeller_model: str | None = None
    """Name of that model; default: the first that the URL lists."""
    device: str = "auto"
    """Where to compute: auto, cpu, cuda, cuda:1, mps."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Number type of the model; auto is bfloat16 on a GPU and float32 elsewhere."""
    device_map: str | None = None
    """Hand the model to accelerate's device map, such as auto, to spread it over several devices."""
    quantize: Literal["8bit", "4bit"] | None = None
    """Load the model in 8bit or 4bit (needs bitsandbytes)."""
    geometry: str | None = None
    """How image tokens lie in the picture, for a model family that is not known: square."""
    events: Literal["all", "examples", "none"] | None = None
    """Which samples' per-token activations the store keeps: all; examples, those that a feature's page or a flag shows;
    none. A server with the model computes the others anew. Default: the first of these that fits --max-store-gb."""
    max_store_gb: float | None = Field(default=None, gt=0)
    """Most GB (10⁹ bytes) that the finished store may take, foretold before the pass; default: no limit."""
    only: Step | None = None
    """Run this step alone on the unfinished store (OUT.part)."""
    dry_run: bool = False
    """Say what it would take in time, memory and disk, from a few samples, and write nothing."""

    @property
    def part(self) -> Path:
        return self.out.with_name(self.out.name + ".part")


def precompute(options: Options) -> Path:
    """Run the pass, or go on with one that was interrupted.

    Returns:
        the finished store; with `only`, the unfinished one.

    Raises:
        SaevxError: wrong input, or a store that is finished already.
    """
    if options.out.exists():
        raise SaevxError(f"{options.out} exists already and a store never changes: choose another --out or delete it.")
    if options.sinks != "keep" and options.sinks <= 0:
        raise SaevxError("--sinks takes a multiple above 0, or keep.")
    check(options.ray, options.workers)
    if options.labeller is not None:
        from precompute.labeller import check_url

        check_url(options.labeller)
    run = Run(options if options.ray is None else options.absolute())  # rows name files, to workers elsewhere too
    if options.dry_run:
        print(run.forecast().text(options))
        return options.part
    return run.only(options.only) if options.only else run.all()


class Run:
    """One run of the pipeline; the model and the SAE are loaded when first needed."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.part = options.part
        self.seconds: dict[str, float] = {}
        self.extra: dict[str, Any] = {}
        self.foretold: Forecast | None = None

    @cached_property
    def sae(self) -> Any:
        from precompute.sae import SaeV

        return SaeV.load(self.options.sae, self.options.device, layer=self.options.layer)

    @cached_property
    def mllm(self) -> Any:
        from precompute.model import Mllm

        o = self.options
        mllm = Mllm.load(
            o.model,
            layer=self.sae.layer,
            full=o.nll,
            device=o.device,
            dtype=o.dtype,
            device_map=o.device_map,
            quantize=o.quantize,
            geometry=o.geometry,
        )
        self.sae.check(mllm.d_model)
        return mllm

    @cached_property
    def read(self) -> Data:
        o = self.options
        data = read(o.data, o.columns)
        return data._replace(rows=shuffle_images(data.rows, o.seed)) if o.shuffle_images else data

    @property
    def batch_tokens(self) -> int:
        """On a CPU a larger batch is slower: what a layer leaves no longer fits its caches."""
        return self.options.batch_tokens or (1024 if self.mllm.device.type == "cpu" else 4096)

    @cached_property
    def data_and_plan(self) -> tuple[Data, Plan]:
        """The usable rows and the order in which they are run."""
        o = self.options
        return plan_rows(
            self.mllm,
            self.read,
            o.data,
            batch_tokens=self.batch_tokens,
            shard_samples=o.shard_samples,
            ds=o.ds,
            seed=o.seed,
        )

    # ---- steps

    def all(self) -> Path:
        """Every step, then verify and rename."""
        from precompute.store import trim
        from precompute.store.writer import seal, write_database, write_pairs
        from precompute.verify import verify_or_raise

        begin = time.monotonic()
        self.fits()
        manifest = self.collect()
        if "content_id" not in manifest:
            self.fits_still(manifest)
            told = self.told_later()
            if WRITTEN not in manifest:
                for step in LATER:
                    manifest = self.later(step, manifest)
                with self.timed("write"):
                    write_database(self.part, manifest)
                    write_pairs(self.part, manifest)
                with self.timed("trim"):
                    manifest = self.trim(manifest)
                manifest = {**manifest, WRITTEN: told}
                self.save(manifest)  # from here on the steps' files go, and a run that is killed ends what is begun
            elif manifest[WRITTEN] != told:
                raise SaevxError(
                    f"{self.part} was nearly finished with other options: repeat that command to finish it, "
                    "or delete the folder to start anew."
                )
            trim.settle(self.part)
            with self.timed("seal"):
                manifest = seal(self.part, {name: value for name, value in manifest.items() if name != WRITTEN})
        with self.timed("verify"):
            verify_or_raise(self.part)
        self.write_run({"seconds_total": time.monotonic() - begin})
        (self.part / PLAN).unlink(missing_ok=True)
        self.part.rename(self.options.out)
        n, bad = manifest["data"]["n_samples"], manifest["data"]["n_quarantined"]
        say(f"{self.options.out}: {n} samples, {bad} rows set aside, {time.monotonic() - begin:.0f} s")
        return self.options.out

    def only(self, step: Step) -> Path:
        """One step on the unfinished store."""
        if step == "collect":
            self.collect()
        else:
            path = self.part / MANIFEST
            if not path.exists():
                raise SaevxError(f"There is no unfinished store at {self.part}: run --only collect first.")
            manifest = json.loads(path.read_text())
            if WRITTEN in manifest or "content_id" in manifest:
                raise SaevxError(f"Every step has run on {self.part}: repeat the command without --only to finish it.")
            self.later(step, manifest)
        return self.part

    def collect(self) -> dict[str, Any]:
        """The pass itself, or what an interrupted run has left of it."""
        from precompute import merge

        o = self.options
        told = self.fingerprint()
        plan_file, manifest_file = self.part / PLAN, self.part / MANIFEST
        if plan_file.exists() and json.loads(plan_file.read_text())["fingerprint"] != told:
            raise SaevxError(
                f"{self.part} holds an unfinished run with other data, model, SAE or options: "
                "repeat that command to go on with it, or delete the folder to start anew."
            )
        if self.part.exists() and not plan_file.exists() and any(self.part.iterdir()):
            raise SaevxError(f"{self.part} is in the way and is no unfinished store: move or delete it.")
        if manifest_file.exists():
            say(f"collect: done already in {self.part}")
            return dict(json.loads(manifest_file.read_text()))
        data, plan = self.data_and_plan
        self.part.mkdir(parents=True, exist_ok=True)
        plan_file.write_text(json.dumps({"fingerprint": told}))
        n_ds = int(plan.length_n[plan.ds].sum())
        say(
            f"{len(data.rows)} samples of {data.n_rows} rows, {len(plan.batches)} batches, {len(plan.shards)} shards; "
            f"scratch for D_s {human(n_ds * self.mllm.d_model * 2)}"
        )
        job = self.collector()
        with self.timed("collect"):
            if o.ray is not None:
                from precompute import collect_pool

                self.extra["ray"] = collect_pool.collect(job, o)
            found = job.run()  # after workers there is nothing left to do but to read what they found
            merged = merge.merge(job, o.ds)
            merged["data"]["name"] = o.data_name or merged["data"]["name"]
        self.extra["collect"] = {
            "forward_seconds": job.clock.forward, "seconds": job.clock.wall, "tokens": job.clock.tokens
        }  # fmt: skip
        manifest = {**self.described(), **found, **merged}
        self.save(manifest)
        merge.tidy(self.part)
        return manifest

    def collector(self) -> Any:
        """The pass over the planned batches."""
        from precompute.collect import Collector

        o = self.options
        return Collector(self.mllm, self.sae, *self.data_and_plan, self.part, o.seed, o.nll, self.sinks)

    @property
    def sinks(self) -> float | None:
        return None if self.options.sinks == "keep" else float(self.options.sinks)

    def later(self, step: Step, manifest: dict[str, Any]) -> dict[str, Any]:
        """One of the steps after `collect`."""
        given = {**self.given(), "directions": lambda: self.scaled_sae(manifest).directions_fd.detach().cpu().numpy()}
        with self.timed(step):
            manifest = {
                **manifest,
                **importlib.import_module(f"precompute.{step}").run(self.part, manifest, given),
            }
        self.save(manifest)
        return manifest

    def given(self) -> dict[str, Any]:
        """What the steps after `collect` are told, but for the SAE's directions."""
        o = self.options
        return {
            "seed": o.seed,
            "delta": o.delta,
            "omega": o.omega,
            "repeat_samples": o.repeat_samples,
            "labeller": o.labeller,
            "labeller_model": o.labeller_model,
            "logit_lens": self.logit_lens,
        }

    def trim(self, manifest: dict[str, Any]) -> dict[str, Any]:
        """Leave out the events that are not to be kept, now that the size of everything else is known."""
        from precompute.store import trim
        from precompute.store.collected import Collected

        o = self.options
        trim.forget(self.part)
        data, other = Collected(self.part, manifest), trim.other_bytes(self.part)
        possible = trim.KEPT if o.max_store_gb is not None else (o.events or "all",)
        rows = {kept: trim.rows_of(data, kept) for kept in possible}
        sizes = {kept: other + trim.event_bytes(data.events, some) for kept, some in rows.items()}
        kept = trim.choose(o.events, o.max_store_gb, sizes)
        some = rows[kept]
        if some is not None:
            trim.write(self.part, data.scale_log2, some)
        n = data.n_samples if some is None else len(some)
        say(f"events: {kept}, of {n} of {data.n_samples} samples; the store takes {human(sizes[kept])}")
        return {**manifest, "events": {"kept": kept, "n": n}}

    def told_later(self) -> str:
        """Of all that the steps after the pass depend on."""
        return fingerprint(options=self.options.model_dump(mode="json", include=LATER_OPTIONS))

    def scaled_sae(self, manifest: dict[str, Any]) -> Any:
        self.sae.scale_as(manifest)
        return self.sae

    def logit_lens(self) -> tuple[Any, Any]:
        """Final norm's weight and unembedding, as NumPy."""
        weight_d, unembed_vd = self.mllm.logit_lens_weights()
        return (None if weight_d is None else weight_d.numpy()), unembed_vd.numpy()

    # ---- what is written about the run

    def described(self) -> dict[str, Any]:
        """The manifest's provenance: whatever can change a value, and no path, time or host."""
        o, mllm, sae = self.options, self.mllm, self.sae
        return {
            "name": o.name or o.out.name,
            "model": {
                "name": o.model_name or plain_name(o.model),
                "family": mllm.family,
                "layer": mllm.layer,
                "hook": sae.hook,
                "d_model": mllm.d_model,
                "template": mllm.template,
                "dtype": str(mllm.dtype).removeprefix("torch."),
                "device": mllm.device.type,
                "quantize": o.quantize,
                "vocab": int(mllm.model.get_input_embeddings().weight.shape[0]),
            },
            "sae": {
                "name": o.sae_name or plain_name(o.sae),
                "sha256": sae.sha256,
                "n_features": sae.n_features,
                "architecture": sae.architecture,
            },
            "options": {
                "seed": o.seed, "nll": o.nll, "batch_tokens": self.batch_tokens, "ds": o.ds, "delta": o.delta,
                "sinks": o.sinks, "omega": o.omega, "repeat_samples": o.repeat_samples, "geometry": o.geometry,
                "image_column": o.image_column, "text_column": o.text_column, "id_column": o.id_column,
                "text_side": o.text_side, "split": o.split,
                "shuffle_images": o.shuffle_images,
            },
            "code_version": code_version(),
        }  # fmt: skip

    def fingerprint(self) -> str:
        """Of all that the pass depends on, so that an unfinished one is only continued by its like."""
        o = self.options
        return fingerprint(
            rows=[
                [row.index, row.sample_id, row.text, row.extra, stamps(row.images)] for row in self.read.rows
            ],
            files=stamps(self.read.files),
            model=[where(o.model), stamps(weights(o.model))],
            sae=self.sae.sha256,
            options=o.model_dump(mode="json", include=PASS_OPTIONS),
            code=code_version(),
        )  # fmt: skip

    def save(self, manifest: dict[str, Any]) -> None:
        path = self.part / MANIFEST
        fresh = path.with_suffix(".tmp")
        fresh.write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n")
        fresh.replace(path)
        self.write_run({})

    def write_run(self, more: dict[str, Any]) -> None:
        """run.json: paths, host, times. None of it changes a value."""
        path = self.part / RUN
        before = json.loads(path.read_text()) if path.exists() else {}
        o = self.options
        told = {
            **before,
            "created": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
            "command": sys.argv[1:],
            "data": where(o.data), "model": where(o.model), "sae": where(o.sae),
            "image_folder": None if o.image_folder is None else str(o.image_folder.resolve()),
            "host": platform.node(), "platform": platform.platform(), "python": platform.python_version(),
            "device": o.device, "shard_samples": o.shard_samples,
            "seconds": {**before.get("seconds", {}), **self.seconds},
            **self.extra,
            **more,
        }  # fmt: skip
        path.write_text(json.dumps(told, indent=1) + "\n")

    def timed(self, step: str) -> Timed:
        return Timed(step, self.seconds)

    # ---- --dry-run

    def forecast(self) -> Told:
        """Time, memory and bytes, from every step run for real on a few samples."""
        from precompute import forecast
        from precompute.model import Mllm
        from precompute.rehearse import config_of, narrow, rehearse

        o = self.options
        sae, stride = narrow(o.sae, o.layer, o.device)
        n_features = int((config_of(o.sae) or {}).get("d_sae") or 0) * (2 if sae.signed else 1)
        n_features = n_features if stride > 1 and n_features else sae.n_features * stride
        mllm = self.__dict__.get("mllm") or Mllm.load(
            o.model, layer=sae.layer, full=o.nll, device=o.device, dtype=o.dtype, device_map=o.device_map,
            quantize=o.quantize, geometry=o.geometry,
        )  # fmt: skip
        self.mllm, self.sae = mllm, sae
        sae.check(mllm.d_model)
        data, plan = self.data_and_plan
        startup = time.time() - memory.begun()
        given = {
            **self.given(), "directions": lambda: sae.directions_fd.detach().cpu().numpy(), "labeller": None
        }  # fmt: skip
        with tempfile.TemporaryDirectory() as folder:
            found = rehearse(
                mllm, sae, stride, data, plan, Path(folder), given, seed=o.seed, nll=o.nll, sinks=self.sinks, ds=o.ds
            )
        vocab = int(mllm.model.get_input_embeddings().weight.shape[0])
        told = forecast.foretell(
            found, plan, ds=o.ds, n_features=n_features, vocab=vocab, d_model=mllm.d_model, startup=startup
        )
        self.__dict__.pop("sae")
        return Told(told, found, data.n_rows, str(mllm.device))

    def fits(self) -> None:
        """Before the pass: whether some store, or the one asked for, is foretold to fit.

        Raises:
            SaevxError: it is not.
        """
        from precompute.store import trim

        o = self.options
        if o.max_store_gb is not None and not (self.part / MANIFEST).exists():
            self.foretold = self.forecast().forecast
            kept = trim.choose(o.events, o.max_store_gb, self.foretold.of)
            say(f"events: {kept}, as foretold")

    def fits_still(self, manifest: dict[str, Any]) -> None:
        """After the pass, when the events are known: whether some store, or the one asked for, still fits.

        Raises:
            SaevxError: it does not; the pass is kept.
        """
        from precompute.store import trim
        from precompute.store.collected import Collected

        o, told = self.options, self.foretold
        if o.max_store_gb is None or told is None:
            return
        events = trim.event_bytes(Collected(self.part, manifest).events, None)
        grown = events - (told.of["all"] - told.of["none"])
        share = (told.of["examples"] - told.of["none"]) / max(told.of["all"] - told.of["none"], 1)
        sizes = {
            "all": told.of["all"] + grown, "examples": told.of["examples"] + grown * share, "none": told.of["none"]
        }  # fmt: skip
        trim.choose(o.events, o.max_store_gb, cast("dict[trim.Kept, float]", sizes))


class Told(NamedTuple):
    """A forecast, with what it was made from."""

    forecast: Forecast
    rehearsal: Rehearsal
    n_rows: int
    device: str

    def text(self, o: Options) -> str:
        from precompute import forecast
        from precompute.store import trim

        said = []
        try:
            kept = trim.choose(o.events, o.max_store_gb, self.forecast.of)
        except SaevxError as error:
            kept, said = o.events or "none", [str(error)]
        has, need = memory.total(), self.forecast.memory
        if need > has:
            alone = self.forecast.sae
            what = f"the SAE alone takes {human(alone)}" if alone > has else f"this run takes {human(need)}"
            said.append(
                f"This machine has {human(has)} of memory in all, and {what}: take a smaller SAE or a larger machine."
            )
        return "\n".join([forecast.said(self.forecast, kept, self.device, self.n_rows, self.rehearsal), *said])


class Timed:
    """Seconds of a block, under its name. What it needed is given back before the next."""

    def __init__(self, name: str, into: dict[str, float]) -> None:
        self.name, self.into = name, into

    def __enter__(self) -> None:
        self.begin = time.monotonic()

    def __exit__(self, *_: object) -> None:
        memory.give_back()
        self.into[self.name] = round(time.monotonic() - self.begin, 3)
        if self.name != "collect":
            say(f"{self.name}: {self.into[self.name]:.1f} s")


def human(n_bytes: float) -> str:
    for unit in ("B", "KB", "MB", "GB"):
        if n_bytes < 1000 or unit == "GB":
            return f"{n_bytes:.0f} {unit}" if unit == "B" else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1000
    raise AssertionError


def plain_name(source: str) -> str:
    """A folder's own name; a hub id as it is."""
    return Path(source).resolve().name if Path(source).exists() else source


def weights(source: str) -> list[Path]:
    folder = Path(source)
    return sorted(path for path in folder.iterdir() if path.is_file()) if folder.is_dir() else []


def stamps(images: Iterable[Source]) -> list[list[str | int]]:
    """Tell whether files, or images inside files, have changed, without reading them."""
    found: list[list[str | int]] = []
    for image in images:
        if isinstance(image, Path):
            stat = image.stat()
            found.append([image.name, stat.st_size, stat.st_mtime_ns])
        else:
            found.append(image.stamp())
    return found


def code_version() -> str:
    try:
        return version("saevx")
    except PackageNotFoundError:
        return "0"
