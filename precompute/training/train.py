"""`saevx train`: an SAE or SAE-V by SAELens' own trainer, on activations that stream from a model
(docs/training.md).

The run grows in OUT.part and is renamed when done. SAELens' trainer state holds neither the data's order nor the
generators; a checkpoint here holds both, so that a killed run gives the same bytes as one that was not.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import torch

from precompute.data.batches import OVERHEAD, Batching, n_image_tokens, plan_rows
from precompute.data.disk.row_table import as_table
from precompute.data.records import BadRow, Data, stamps
from precompute.data.rejections import count_kinds, summary
from precompute.data.rows import read
from precompute.errors import PairError, SaevxError
from precompute.model.calibration import average_factor, calibrate_data
from precompute.model.loader import check_images, load_model, without_images
from precompute.model.mllm import Mllm
from precompute.options.shared import NAMED_COLUMNS
from precompute.options.train import TrainOptions
from precompute.products.rounding import quickest_dtype
from precompute.training.activation_stream import Meter, Stream, finite
from precompute.training.saelens import OWN_FIELDS, make_sae, make_trainer, save_sae, start_at_mean
from precompute.utils.files import atomic_folder, write_json
from precompute.utils.memory import total
from precompute.utils.ownership import claim_folder, creating
from precompute.utils.progress import human, progress_bar, say
from precompute.utils.provenance import code_version, fingerprint, plain_name, weights
from precompute.utils.reading import reading

RECORDED = {"modality", "preset", "widths", "sae_option", "dead_window", "buffer_tokens", "context", "sinks", "seed",
            "autocast", "dtype", "freeze_decoder"}  # fmt: skip
"""Options that training.json repeats."""
LOG, STARTED, RESUME, TRAINING = "training.jsonl", "train.json", "resume.pt", "training.json"


def train(options: TrainOptions, mllm: Mllm | None = None, data: Data | None = None) -> Path:
    """Train, or go on with a run that was interrupted.

    Args:
        mllm: the options' model, where it is loaded already.
        data: rows to learn from in place of the options' own, such as pairs mixed with texts.

    Returns:
        the finished SAELens folder, with the log in its training.json.

    Raises:
        SaevxError: wrong input, or a folder that exists already.
    """
    o, s = options, options.with_preset()
    if o.buffer_tokens < s["batch_size"]:
        raise SaevxError("--buffer-tokens must hold a batch at least: raise it, or lower --batch-size.")
    with creating(o.out):
        return run(o, s, mllm, data)


def run(o: TrainOptions, s: dict[str, Any], mllm: Mllm | None, data: Data | None) -> Path:
    """`train`, by the one owner of its folders.

    Args:
        s: the options that a preset may set.
    """
    mllm = mllm or load_model(o.model, o, layer=o.layer)
    data = data or read(o.data, o.columns._replace(mixed=True, text_only=o.modality == "text"), o.out.parent)
    digest = run_fingerprint(o, data)
    if o.modality == "text":
        data = without_images(data)
    check_images(mllm, data, "--modality text")
    batching = Batching(o.batch_tokens, o.seed)
    data, plan = plan_rows(mllm, cut_texts(data, mllm, o.context), o.data, batching, id_column=o.id_column)
    calibration = calibrate_data(mllm, data, plan, o.sink_multiple)
    scale, sink_norm = average_factor(calibration.counted), calibration.sink_norm
    del calibration  # it holds h of its samples

    check_sizes(o, s, mllm)
    d_sae = round(s["expansion"] * mllm.d_model)
    torch.manual_seed(o.seed)
    sae = make_sae(
        s["architecture"],
        mllm.d_model,
        d_sae,
        hook=hook_name(mllm),
        model_name=plain_name(o.model),
        device=str(mllm.device),
        **sae_options(o, s, d_sae),
    )
    sae.W_dec.requires_grad_(not o.freeze_decoder)
    # A warm-up of a single step would be none, and SAELens divides by its length less one.
    warm_up = round(s["lr_warm_up"] * s["steps"])
    trainer = make_trainer(
        sae, iter(()), steps=s["steps"], batch_size=s["batch_size"], lr=s["lr"], dead_feature_window=o.dead_window,
        lr_warm_up_steps=warm_up if warm_up > 1 else 0, lr_decay_steps=int(s["lr_decay"] * s["steps"]),
        device=str(mllm.device), autocast=o.autocast,
    )  # fmt: skip
    if sae.cfg.normalize_activations == "expected_average_only_in":
        trainer.activation_scaler.scaling_factor = scale
    if o.autocast and quickest_dtype(str(mllm.device)) != "bfloat16":
        say("This processor has no units for bfloat16: training would be faster without --autocast.")
    stream = Stream(mllm, (data, plan), sink_norm, size=o.buffer_tokens, batch_size=s["batch_size"], seed=o.seed)
    meter = Meter(d_sae, mllm.d_model)
    if claim_folder(o.part, digest, STARTED, what="training", depends_on="data, model or options"):
        resume(o.part, trainer, stream, meter)
    if s["decoder_bias"] == "mean" and not trainer.n_training_steps:
        stream.fill(stream.hidden_td, stream.modality_t)
        start_at_mean(sae, stream.hidden_td, trainer.activation_scaler.scaling_factor)
    say(
        f"{s['architecture']} with {d_sae} features on layer {o.layer} ({mllm.d_model} wide), {len(data.rows)} rows; "
        f"buffer {human(o.buffer_tokens * mllm.d_model * mllm.dtype.itemsize)}"
    )
    fit(trainer, stream, meter, o, s["steps"])
    return finish(o, s, mllm, data, trainer, stream)


def fit(trainer: Any, stream: Stream, meter: Meter, o: TrainOptions, steps: int) -> None:
    """SAELens' training loop through the seams that it opens for others, with our log and checkpoints between its
    steps: its own loop saves in the middle of a step's count."""
    with progress_bar("train", steps, "steps", trainer.n_training_steps) as progress, (o.part / LOG).open("a") as log:
        while trainer.n_training_steps < steps:
            trainer.maybe_reset_sparsity()
            hidden_td, modality_t = next(stream)
            output = trainer.step(hidden_td)
            trainer.n_training_steps += 1
            step = trainer.n_training_steps
            meter.update(output, modality_t, step)
            progress.update(1)
            if step % o.log_every == 0 or step == steps:
                log.write(json.dumps(line(trainer, output, meter, o.dead_window)) + "\n")
                log.flush()
            if step % o.checkpoint_every == 0 and step < steps:
                checkpoint(o.part, trainer, stream, meter, log.tell())


def line(trainer: Any, output: Any, meter: Meter, dead_window: int) -> dict[str, Any]:
    """One line of the log: the step's losses, and the figures since the line before."""
    step = trainer.build_train_step_log_dict(output=output, n_training_samples=trainer.n_training_samples)
    parts = {k.removeprefix("losses/"): finite(v) for k, v in step.items() if k.startswith("losses/")}
    return {
        "step": trainer.n_training_steps,
        "tokens": trainer.n_training_samples,
        "loss": parts.pop("overall_loss"),
        "losses": parts,
        "lr": step["details/current_learning_rate"],
        **meter.take(trainer.n_training_steps, dead_window),
    }


def checkpoint(part: Path, trainer: Any, stream: Stream, meter: Meter, log_bytes: int) -> None:
    """A SAELens folder of the SAE as it is now, and beside it all that the run goes on from. Older ones go."""
    older = checkpoints(part)
    state = {
        "weights": trainer.sae.state_dict(),
        "stream": stream.state(),
        "meter": meter.state(),
        "rng": torch.get_rng_state(),
        "cuda_rng": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "log_bytes": log_bytes,
    }
    with atomic_folder(part / f"checkpoint-{trainer.n_training_steps:08d}") as folder:
        save_sae(trainer.sae, folder, scale=trainer.activation_scaler.scaling_factor)
        trainer.save_trainer_state(folder)
        torch.save(state, folder / RESUME)
    for older_folder in older:
        shutil.rmtree(older_folder)


def checkpoints(part: Path) -> list[Path]:
    """Whole ones, the oldest first."""
    return sorted(part.glob("checkpoint-*[0-9]"))


def resume(part: Path, trainer: Any, stream: Stream, meter: Meter) -> None:
    """Put everything back as it was at the last checkpoint; lines logged after it go. Without one, from the start."""
    log = part / LOG
    log.touch()
    if not (folders := checkpoints(part)):
        log.write_text("")
        return
    folder = folders[-1]
    with reading(f"The checkpoint {folder}", folder, "remove it, to go on from the one before"):
        state = torch.load(folder / RESUME, map_location="cpu", weights_only=True)
        trainer.sae.load_state_dict(state["weights"])
        trainer.load_trainer_state(folder)
        stream.restore(state["stream"])
        meter.restore(state["meter"])
    torch.set_rng_state(state["rng"])
    if state["cuda_rng"]:
        torch.cuda.set_rng_state_all(state["cuda_rng"])
    with log.open("r+") as file:
        file.truncate(state["log_bytes"])
    say(f"train: goes on after step {trainer.n_training_steps}")


def finish(o: TrainOptions, s: dict[str, Any], mllm: Mllm, data: Data, trainer: Any, stream: Stream) -> Path:
    """The SAELens folder in its place, its training.json in it."""
    from precompute.sae.sae import SaeV

    final_folder = o.part / "done"
    shutil.rmtree(final_folder, ignore_errors=True)
    trainer.set_final_sae_metadata()
    save_sae(trainer.sae, final_folder, scale=trainer.activation_scaler.scaling_factor, dtype=o.save_dtype)
    rejected_rows = sorted({**{row.index: row.reason for row in data.rejected_rows}, **stream.rejected_rows}.items())
    result = {
        "sae": {"sha256": SaeV.load(final_folder).sha256, "n_features": int(trainer.sae.cfg.d_sae)},
        "model": {"name": plain_name(o.model), "layer": o.layer, "d_model": mllm.d_model},
        "data": {"name": data.name, "n_samples": len(data.rows), "n_set_aside": len(rejected_rows)},
        "options": {
            **s,
            **o.model_dump(mode="json", include=RECORDED),
            **o.model_dump(mode="json", include=NAMED_COLUMNS, exclude_defaults=True),
        },
        "input_scale": trainer.activation_scaler.scaling_factor,
        "code_version": code_version(),
        "log": [json.loads(line) for line in (o.part / LOG).read_text().splitlines()],
    }
    write_json(final_folder / TRAINING, result)
    if rejected_rows:
        say(summary(count_kinds(reason for _, reason in rejected_rows), o.id_column))
    final_folder.rename(o.out)
    shutil.rmtree(o.part)
    return o.out


# ---- what a run starts from


def run_fingerprint(o: TrainOptions, data: Data) -> str:
    """Fingerprint of all that the run depends on: an unfinished run is only continued by the same one."""
    other_options = {"data", "model", "out", "checkpoint_every"}
    return fingerprint(
        rows=([row.index, row.sample_id, row.text, stamps(row.images)] for row in data.rows),
        model=[o.model, stamps(weights(o.model))],
        options={**o.model_dump(mode="json", exclude=other_options), **o.with_preset()},
        code=code_version(),
    )


def cut_texts(data: Data, mllm: Mllm, context: int) -> Data:
    """Texts cut so that, with template and images, none is longer than `context` or the model's own."""
    template = len(mllm.tokenizer(mllm.template)["input_ids"])
    limit = min(context, mllm.context) - max(template, len(mllm.template) // 4) - OVERHEAD
    length_of: dict[int, int] = {}
    for i, row in enumerate(data.rows):
        # A token has one character at least: shorter texts cannot be too long, unless by their image.
        if len(row.text) <= (limit // 2 if row.images else limit):
            continue
        try:
            room = limit - n_image_tokens(row, mllm)
        except (BadRow, PairError):
            continue  # planning rejects it, with this reason
        offsets = mllm.tokenizer(row.text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        if 0 < room < len(offsets):
            length_of[i] = offsets[room][0]
    return data._replace(rows=as_table(data.rows).cut(length_of)) if length_of else data


def hook_name(mllm: Mllm) -> str:
    """The module whose output is learnt, as `transformers` calls it: `model.language_model.layers.16`."""
    layer = mllm.decoder_layer()
    return next(name for name, module in mllm.model.named_modules() if module is layer)


def check_sizes(o: TrainOptions, s: dict[str, Any], mllm: Mllm) -> None:
    """Raises SaevxError where a size makes no SAE, or takes more memory than the machine has."""
    n_features, machine = s["expansion"] * mllm.d_model, total()
    if n_features < 1:
        raise SaevxError(f"--expansion {s['expansion']:g} leaves no feature of {mllm.d_model} dimensions: raise it.")
    if s["architecture"].endswith("topk") and s["k"] > n_features:
        raise SaevxError(f"-k {s['k']} is more than the {n_features:.0f} features that the SAE has: lower it.")
    weights_bytes = 32 * n_features * mllm.d_model  # two float32 matrices, their gradients and Adam's two moments
    for option, value, n_bytes in (
        ("expansion", s["expansion"], weights_bytes if mllm.device.type == "cpu" else 0),
        ("buffer-tokens", o.buffer_tokens, o.buffer_tokens * mllm.d_model * mllm.dtype.itemsize),
    ):
        if n_bytes > machine:
            raise SaevxError(
                f"--{option} {value:g} takes {human(n_bytes)}, and this machine has {human(machine)}: lower it."
            )


def sae_options(o: TrainOptions, s: dict[str, Any], d_sae: int) -> dict[str, Any]:
    """The architecture's own fields in SAELens' configuration."""
    warm_up = round(s["l1_warm_up"] * s["steps"])
    widths = list(o.widths) or [d_sae // n for n in (8, 4, 2, 1)]
    if widths[-1] != d_sae:
        widths.append(d_sae)  # as SAELens does, with a warning
    options: dict[str, Any] = {
        "standard": {"l1_coefficient": s["l1"], "l1_warm_up_steps": warm_up},
        "jumprelu": {"l0_warm_up_steps": warm_up},
        "topk": {"k": s["k"]},
        "batchtopk": {"k": s["k"]},
        "matryoshka-batchtopk": {"k": s["k"], "matryoshka_widths": widths},
    }[s["architecture"]]
    for option in o.sae_option:
        name, equals, value = option.partition("=")
        if not equals:
            raise SaevxError(f"--sae-option takes NAME=VALUE, not {option!r}.")
        if name in OWN_FIELDS:
            raise SaevxError(f"--sae-option cannot set {name}, which other options and the model decide: leave it out.")
        try:
            options[name] = json.loads(value)
        except ValueError:
            options[name] = value
    return options
