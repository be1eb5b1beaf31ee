"""`saevx precompute`: data, model and SAE-V in, an immutable store out.

The store grows in STORE.part, is verified there and renamed into place, so STORE is either whole or absent.
"""

from __future__ import annotations

import datetime as dt
import json
import platform
import sys
import time
from functools import cached_property
from pathlib import Path
from typing import Any

from precompute.data import Data, read, summary
from precompute.data.batches import Plan, fingerprint, plan_rows, shuffle_images
from precompute.data.records import stamps
from precompute.errors import SaevxError
from precompute.options.precompute import LATER, LATER_OPTIONS, PASS_OPTIONS, Options, Step
from precompute.options.shared import SAE_LENS, where
from precompute.sae.quality import sae_warning
from precompute.utils import memory
from precompute.utils.files import claim_folder, creating, refuse_existing, unfinished, write_text
from precompute.utils.progress import human, say
from precompute.utils.provenance import code_version, plain_name, weights
from precompute.utils.ray_pool import check

MANIFEST, RUN, PLAN = "manifest.json", "run.json", "plan.json"
KIND = {"what": "store", "of": "data, model, SAE or options"}
WRITTEN = "written"
"""In the manifest of an unfinished store whose tables are all written: a fingerprint of the later steps' options."""


def precompute(options: Options) -> Path:
    """Run the pass, or go on with one that was interrupted.

    Returns:
        the finished store; with `only`, the unfinished one.

    Raises:
        SaevxError: wrong input, or a store that is finished already.
    """
    check(options.ray)
    if options.labeller is not None:
        from precompute.steps.labeller import check_url

        check_url(options.labeller)
    run = Run(options if options.ray is None else options.absolute())  # rows name files, to workers elsewhere too
    why = "and a store never changes"
    if options.dry_run:
        from precompute.estimate.budget import forecast_of

        refuse_existing(options.out, why)
        print(forecast_of(run).text(options))
        return options.part
    with creating(options.out, why):
        return run.only(options.only) if options.only else run.all()


class Run:
    """One run of the pipeline; the model and the SAE are loaded when first needed."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.part = options.part
        self.seconds: dict[str, float] = {}
        self.extra: dict[str, Any] = {}

    @cached_property
    def sae(self) -> Any:
        from precompute.sae.sae import SaeV

        o = self.options
        sae = SaeV.load(o.sae, o.device, layer=o.layer, format=o.sae_format)
        if sae.other_hook is not None:
            say(sae.other_hook)
        return sae

    @cached_property
    def mllm(self) -> Any:
        from precompute.model.mllm import Mllm

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
    def model_sha256(self) -> str:
        """What the live model of a server is held against."""
        from precompute.model.identity import model_sha256

        return model_sha256(self.options.model)

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
            id_column=o.id_column,
        )

    # ---- steps

    def all(self) -> Path:
        """Every step, then verify and rename."""
        from precompute.estimate import budget
        from precompute.store.making import trim
        from precompute.store.making.unfinished import Collected
        from precompute.store.making.verify import verify_or_raise
        from precompute.store.making.writer import seal, write_database, write_pairs

        begin = time.monotonic()
        foretold = None if (self.part / MANIFEST).exists() else budget.check(self)
        manifest = self.collect()
        if "content_id" not in manifest:
            if foretold is not None:
                budget.check_again(self.options, foretold, Collected(self.part, manifest))
            later = self.later_fingerprint()
            if WRITTEN not in manifest:
                for step in LATER:
                    manifest = self.later(step, manifest)
                with self.timed("write"):
                    write_database(self.part, manifest)
                    write_pairs(self.part, manifest)
                with self.timed("trim"):
                    manifest = self.trim(manifest)
                manifest = {**manifest, WRITTEN: later}
                self.save(manifest)  # from here on the steps' files go, and a run that is killed ends what is begun
            elif manifest[WRITTEN] != later:
                raise SaevxError(
                    f"{self.part} was nearly finished with other options: repeat that command to finish it, "
                    "or delete the folder to start anew."
                )
            trim.publish(self.part)
            with self.timed("seal"):
                manifest = seal(self.part, {name: value for name, value in manifest.items() if name != WRITTEN})
        with self.timed("verify"):
            verify_or_raise(self.part)
        self.write_run({"seconds_total": time.monotonic() - begin})
        (self.part / PLAN).unlink(missing_ok=True)
        self.part.rename(self.options.out)
        n, bad = manifest["data"]["n_samples"], manifest["data"]["n_quarantined"]
        say(f"{self.options.out}: {n} samples, {bad} rows rejected, {time.monotonic() - begin:.0f} s")
        if (warning := sae_warning(manifest["quality"])) is not None:
            say(warning)
        self.say_rejected()
        return self.options.out

    def say_rejected(self) -> None:
        """Why rows are not in the finished store, with their numbers."""
        from precompute.store.reader import Store

        store = Store.open(self.options.out)
        try:
            if store.rejected.counts:
                say(summary(store.rejected.counts, self.options.id_column))
        finally:
            store.close()

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
        from precompute.collect import merge

        o = self.options
        told, manifest_file = self.fingerprint(), self.part / MANIFEST
        unfinished(self.part, told, PLAN, **KIND)
        if manifest_file.exists():
            say(f"collect: done already in {self.part}")
            return dict(json.loads(manifest_file.read_text()))
        data, plan = self.data_and_plan
        claim_folder(self.part, told, PLAN, **KIND)
        n_ds = int(plan.length_n[plan.ds].sum())
        say(
            f"{len(data.rows)} samples of {data.n_rows} rows, {len(plan.batches)} batches, {len(plan.shards)} shards; "
            f"scratch for D_s {human(n_ds * self.mllm.d_model * 2)}"
        )
        job = self.collector()
        _ = self.model_sha256  # its files may be gone when the pass ends
        with self.timed("collect"):
            if o.ray is not None:
                from precompute.collect import workers as collect_pool

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
        from precompute.collect.collector import Collector

        o = self.options
        return Collector(self.mllm, self.sae, *self.data_and_plan, self.part, o.seed, o.nll, self.sinks)

    @property
    def sinks(self) -> float | None:
        return None if self.options.sinks == "keep" else float(self.options.sinks)

    def later(self, step: Step, manifest: dict[str, Any]) -> dict[str, Any]:
        """One of the steps after `collect`."""
        given = {**self.given(), "directions": lambda: self.scaled_sae(manifest).directions_fd.detach().cpu().numpy()}
        with self.timed(step):
            from precompute.steps.registry import STEPS  # scipy and FAISS take a second to import

            manifest = {**manifest, **STEPS[step](self.part, manifest, given)}
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
        from precompute.store.making import trim
        from precompute.store.making.unfinished import Collected

        o = self.options
        trim.forget(self.part)
        data, other = Collected(self.part, manifest), trim.other_bytes(self.part)
        possible = trim.EVENT_CHOICES if o.max_store_gb is not None else (o.events or "all",)
        rows = {kept: trim.rows_of(data, kept) for kept in possible}
        sizes = {kept: other + trim.event_bytes(data.events, some) for kept, some in rows.items()}
        kept = trim.choose(o.events, o.max_store_gb, sizes)
        some = rows[kept]
        if some is not None:
            trim.write(self.part, data.scale_log2, some)
        n = data.n_samples if some is None else len(some)
        say(f"events: {kept}, of {n} of {data.n_samples} samples; the store takes {human(sizes[kept])}")
        return {**manifest, "events": {"kept": kept, "n": n}}

    def later_fingerprint(self) -> str:
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
                "sha256": self.model_sha256,
            },
            "sae": {
                "name": o.sae_name or plain_name(o.sae),
                "sha256": sae.sha256,
                "n_features": sae.n_features,
                "architecture": sae.architecture,
                **({} if sae.format == SAE_LENS else {"format": sae.format}),
            },
            "options": {
                "seed": o.seed, "nll": o.nll, "batch_tokens": self.batch_tokens, "ds": o.ds, "delta": o.delta,
                "sinks": o.sinks, "omega": o.omega, "repeat_samples": o.repeat_samples, "geometry": o.geometry,
                "image_column": o.image_column, "text_column": o.text_column, "id_column": o.id_column,
                "text_side": o.text_side, "split": o.split,
                "shuffle_images": o.shuffle_images,
                **({"text_only": True} if o.text_only else {}),
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
        write_text(self.part / MANIFEST, json.dumps(manifest, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
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
        write_text(path, json.dumps(told, indent=1) + "\n")

    def timed(self, step: str) -> Timed:
        return Timed(step, self.seconds)


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
