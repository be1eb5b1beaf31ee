"""`saevx precompute`: data, model and SAE-V in, an immutable store out.

The store grows in STORE.part, is verified there and renamed into place, so STORE is either whole or absent. The same
command continues a run that was killed: the pass behind its last whole shard (collect/collector.py), the steps after it
from the first one on, as the manifest says how far the run had come.
"""

from __future__ import annotations

import datetime as dt
import json
import platform
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from precompute.data.records import stamps
from precompute.data.rejections import summary
from precompute.errors import SaevxError
from precompute.options.precompute import LATER, LATER_OPTIONS, PASS_OPTIONS, PrecomputeOptions, Step
from precompute.options.shared import SAE_LENS, absolute_path
from precompute.sae.reconstruction import sae_warning
from precompute.utils import memory
from precompute.utils.files import write_text
from precompute.utils.ownership import MANIFEST, claim_folder, creating, holds_unfinished, refuse_existing
from precompute.utils.processes.ray_pool import check
from precompute.utils.progress import human, say
from precompute.utils.provenance import code_version, fingerprint, plain_name, weights

if TYPE_CHECKING:
    from precompute.collect.session import Session

RUN, PLAN = "run.json", "plan.json"
KIND = {"what": "store", "depends_on": "data, model, SAE or options"}
WRITTEN = "written"
"""In the manifest of an unfinished store whose tables are all written: a fingerprint of the later steps' options."""


def precompute(options: PrecomputeOptions) -> Path:
    """Run the pass, or continue one that was interrupted.

    Returns:
        the finished store; with `only`, the unfinished one.

    Raises:
        SaevxError: wrong input, or a store that is finished already.
    """
    check(options.ray)
    if options.labeller is not None:
        from precompute.steps.labeller import check_url

        check_url(options.labeller)
    why = "and a store never changes"
    if options.dry_run:
        from precompute.estimate.budget import estimate

        refuse_existing(options.out, why)
        print(estimate(options)[0].text(options))
        return options.part
    # Workers elsewhere need whole paths: the rows name files.
    pipeline = Pipeline(options if options.ray is None else options.absolute())
    with creating(options.out, why):
        return pipeline.run_step(options.only) if options.only else pipeline.run_all()


class Pipeline:
    """One run: the order of the steps, and the manifest.

    Args:
        session: model, SAE and data, where they are loaded already.
    """

    def __init__(self, options: PrecomputeOptions, session: Session | None = None) -> None:
        from precompute.collect.session import Session

        self.options, self.part = options, options.part
        self.session = session or Session(options)
        self.seconds: dict[str, float] = {}
        """Of each step."""
        self.run_facts: dict[str, Any] = {}
        """Further fields of run.json."""

    # ---- steps

    def run_all(self) -> Path:
        """Every step, then verify and rename."""
        from precompute.estimate import budget
        from precompute.store.making import trim
        from precompute.store.making.sealing import seal, seal_run
        from precompute.store.making.unfinished import Collected
        from precompute.store.making.verify import verify_or_raise

        o, begin, estimate = self.options, time.monotonic(), None
        if o.max_store_gb is not None and not (self.part / MANIFEST).exists():
            estimate, self.session = budget.check(o)
        manifest = self.collect()
        if "content_id" not in manifest:
            if estimate is not None:
                budget.check_again(o, estimate, Collected(self.part, manifest))
            manifest = self.finish_steps(manifest)
            trim.publish(self.part)
            with self.record_time("seal"):
                manifest = seal(self.part, {name: value for name, value in manifest.items() if name != WRITTEN})
        seal_run(self.part)
        with self.record_time("verify"):
            verify_or_raise(self.part)
        self.write_run({"seconds_total": time.monotonic() - begin})
        seal_run(self.part)
        (self.part / PLAN).unlink(missing_ok=True)
        self.part.rename(o.out)
        n_samples, n_rejected = manifest["data"]["n_samples"], manifest["data"]["n_quarantined"]
        say(f"{o.out}: {n_samples} samples, {n_rejected} rows rejected, {time.monotonic() - begin:.0f} s")
        if (warning := sae_warning(manifest["quality"])) is not None:
            say(warning)
        self.say_rejected()
        return o.out

    def finish_steps(self, manifest: dict[str, Any]) -> dict[str, Any]:
        """Every step after `collect` and the tables; nothing where an interrupted run had finished them.

        Raises:
            SaevxError: it had finished them with other options.
        """
        from precompute.store.making.writer import write_database, write_pairs

        later = fingerprint(options=self.options.model_dump(mode="json", include=LATER_OPTIONS))
        if WRITTEN not in manifest:
            for step in LATER:
                manifest = self.later(step, manifest)
            with self.record_time("write"):
                write_database(self.part, manifest)
                write_pairs(self.part, manifest)
            with self.record_time("trim"):
                manifest = self.trim(manifest)
            manifest = {**manifest, WRITTEN: later}
            # After this the files of the steps are removed, so a run that is killed then must only finish the removal.
            self.save(manifest)
        elif manifest[WRITTEN] != later:
            raise SaevxError(
                f"{self.part} was nearly finished with other options: repeat that command to finish it, "
                "or delete the folder to start over."
            )
        return manifest

    def run_step(self, step: Step) -> Path:
        """One step on the unfinished store."""
        if step == "collect":
            self.collect()
            return self.part
        path = self.part / MANIFEST
        if not path.exists():
            raise SaevxError(f"There is no unfinished store at {self.part}: run --only collect first.")
        manifest = json.loads(path.read_text())
        if WRITTEN in manifest or "content_id" in manifest:
            raise SaevxError(f"Every step has run on {self.part}: repeat the command without --only to finish it.")
        self.later(step, manifest)
        return self.part

    def collect(self) -> dict[str, Any]:
        """The pass itself, or what an interrupted run has left of it. Returns the manifest."""
        from precompute.collect import merge, workers

        o, session, manifest_file = self.options, self.session, self.part / MANIFEST
        pass_fingerprint = self.fingerprint()
        holds_unfinished(self.part, pass_fingerprint, PLAN, **KIND)  # refuses another run's, before any data are read
        if manifest_file.exists():
            say(f"collect: done already in {self.part}")
            return dict(json.loads(manifest_file.read_text()))
        data, plan = session.data_and_plan
        claim_folder(self.part, pass_fingerprint, PLAN, **KIND)
        ds_tokens = int(plan.length_n[plan.ds].sum())
        say(
            f"{len(data.rows)} samples of {data.n_rows} rows, {len(plan.batches)} batches, {len(plan.shards)} shards; "
            f"scratch for D_s {human(ds_tokens * session.mllm.d_model * 2)}"
        )
        job = session.collector()
        _ = session.model_sha256  # read now: the model's files may be gone when the pass ends
        with self.record_time("collect"):
            if o.ray is not None:
                self.run_facts["ray"] = workers.collect(job, o)
            calibration = job.run()  # after workers no shard is missing, and only the calibration is read
            merged = merge.merge(job, o.ds)
            merged["data"]["name"] = o.data_name or merged["data"]["name"]
        clock = job.clock
        self.run_facts["collect"] = {
            "forward_seconds": clock.forward,
            "seconds": clock.wall,
            "tokens": clock.tokens,
            "text_alone_seconds": clock.alone,
            "text_alone_tokens": clock.alone_tokens,
        }
        if clock.alone_tokens:
            share = clock.alone_tokens / max(clock.tokens + clock.alone_tokens, 1)
            say(f"texts without their images: {clock.alone:.0f} s, {100 * share:.1f} % of the tokens that were run")
        manifest = {**self.provenance(), **calibration, **merged}
        self.save(manifest)
        merge.remove_temporary(self.part)
        return manifest

    def later(self, step: Step, manifest: dict[str, Any]) -> dict[str, Any]:
        """One of the steps after `collect`. Returns the manifest."""
        with self.record_time(step):
            from precompute.steps.registry import STEPS  # scipy and FAISS take a second to import

            manifest = {**manifest, **STEPS[step](self.part, manifest, self.session.step_options(manifest))}
        self.save(manifest)
        return manifest

    def trim(self, manifest: dict[str, Any]) -> dict[str, Any]:
        """Leave out the events that the store need not hold, now that the size of everything else is known."""
        from precompute.store.making import trim
        from precompute.store.making.unfinished import Collected

        o = self.options
        trim.forget(self.part)
        data, other_bytes = Collected(self.part, manifest), trim.other_bytes(self.part)
        choices = trim.EVENT_CHOICES if o.max_store_gb is not None else (o.events or "all",)
        rows = {choice: trim.rows_of(data, choice) for choice in choices}
        sizes = {choice: other_bytes + trim.event_bytes(data.events, chosen) for choice, chosen in rows.items()}
        events = trim.choose(o.events, o.max_store_gb, sizes)
        chosen = rows[events]
        if chosen is not None:
            trim.write(self.part, data.scale_log2, chosen)
        n = data.n_samples if chosen is None else len(chosen)
        say(f"events: {events}, of {n} of {data.n_samples} samples; the store takes {human(sizes[events])}")
        return {**manifest, "events": {"kept": events, "n": n}}

    def say_rejected(self) -> None:
        """Why rows are not in the finished store, with their numbers."""
        from precompute.store.reader import Store

        store = Store.open(self.options.out)
        try:
            if store.rejected.counts:
                say(summary(store.rejected.counts, self.options.id_column))
        finally:
            store.close()

    # ---- what is written about the run

    def provenance(self) -> dict[str, Any]:
        """The manifest's provenance: whatever can change a value, and no path, time or host."""
        o, mllm, sae = self.options, self.session.mllm, self.session.sae
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
                "vocab": mllm.n_embeddings,
                "sha256": self.session.model_sha256,
            },
            "sae": {
                "name": o.sae_name or plain_name(o.sae),
                "sha256": sae.sha256,
                "n_features": sae.n_features,
                "architecture": sae.architecture,
                **({} if sae.format == SAE_LENS else {"format": sae.format}),
            },
            "options": {
                "seed": o.seed, "nll": o.nll, "batch_tokens": self.session.batch_tokens, "ds": o.ds, "delta": o.delta,
                "sinks": o.sinks, "omega": o.omega, "repeat_samples": o.repeat_samples, "geometry": o.geometry,
                "image_column": o.image_column, "text_column": o.text_column, "id_column": o.id_column,
                "text_side": o.text_side, "split": o.split, "allow_outside": o.allow_outside,
                "shuffle_images": o.shuffle_images, "text_alone": o.text_alone,
                **({"text_only": True} if o.text_only else {}),
            },
            "code_version": code_version(),
        }  # fmt: skip

    def fingerprint(self) -> str:
        """Of all that the pass depends on, so that only the same command continues an unfinished one."""
        o, data = self.options, self.session.rows
        return fingerprint(
            rows=([row.index, row.sample_id, row.text, row.extra, stamps(row.images)] for row in data.rows),
            files=stamps(data.files),
            model=[absolute_path(o.model), stamps(weights(o.model))],
            sae=self.session.sae.sha256,
            options=o.model_dump(mode="json", include=PASS_OPTIONS),
            code=code_version(),
        )

    def save(self, manifest: dict[str, Any]) -> None:
        write_text(self.part / MANIFEST, json.dumps(manifest, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
        self.write_run({})

    def write_run(self, new_facts: dict[str, Any]) -> None:
        """run.json: paths, host, times. None of it changes a value. What it holds from an earlier run stays."""
        path = self.part / RUN
        old_facts = json.loads(path.read_text()) if path.exists() else {}
        o = self.options
        facts = {
            **old_facts,
            "created": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
            "command": sys.argv[1:],
            "data": absolute_path(o.data), "model": absolute_path(o.model), "sae": absolute_path(o.sae),
            "image_folder": None if o.image_folder is None else str(o.image_folder.resolve()),
            "host": platform.node(), "platform": platform.platform(), "python": platform.python_version(),
            "device": o.device, "shard_samples": o.shard_samples,
            "seconds": {**old_facts.get("seconds", {}), **self.seconds},
            "products": {**old_facts.get("products", {}), **self.session.products.facts()},
            **self.run_facts,
            **new_facts,
        }  # fmt: skip
        write_text(path, json.dumps(facts, indent=1) + "\n")

    @contextmanager
    def record_time(self, step: str) -> Iterator[None]:
        """Seconds of a step. Memory that it has freed is returned to the system before the next step."""
        begin = time.monotonic()
        try:
            yield
        finally:
            memory.give_back()
            self.seconds[step] = round(time.monotonic() - begin, 3)
            if step != "collect":
                say(f"{step}: {self.seconds[step]:.1f} s")
