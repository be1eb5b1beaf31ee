"""The pass over a tiny random LLaVA: what is stored, against plain lines; the same bytes however it was cut."""

import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from transformers import LlavaProcessor

from backend.live.engines import load_engine
from backend.settings import Settings
from precompute.collect import accumulators as acc
from precompute.collect import merge
from precompute.collect.collector import Collector
from precompute.data.images import open_image
from precompute.live.engine import encode_pair
from precompute.model.batch import IMAGE, SINK, SPECIAL, TEXT, Pair
from precompute.model.mllm import Mllm
from precompute.pipeline import Pipeline
from precompute.sae.encode import OVERFLOW
from precompute.sae.sae import SaeV
from precompute.store.making.unfinished import Collected
from tests.helpers import tiny
from tests.helpers.tinies import Maker, Tiny, collected, pass_options


@pytest.fixture(scope="module")
def run(tiny_files: Tiny, tmp_path_factory: pytest.TempPathFactory) -> tuple[Collected, Pipeline]:
    out = tmp_path_factory.mktemp("collect") / "store"
    job = Pipeline(pass_options(tiny_files.root, out=out, batch_tokens=150, shard_samples=8, ds=10, nll=True))
    manifest = job.collect()
    return Collected(job.part, manifest), job


def hidden_by_row(job: Pipeline) -> dict[int, tuple[torch.Tensor, np.ndarray, np.ndarray]]:
    """h, modality and token ids of every sample, from the planned batches."""
    result = {}
    data, plan = job.session.data_and_plan
    for batch in plan.batches:
        rows = [data.rows[i] for i in batch]
        made = job.session.mllm.prepare([Pair(r.text, [open_image(p).image for p in r.images]) for r in rows])
        hidden_bsd = job.session.mllm.hidden(made)
        for b, row in enumerate(rows):
            n = int(made.length_b[b])
            result[row.index] = (
                hidden_bsd[b, :n],
                made.modality_bs[b, :n],
                made.inputs["input_ids"][b, :n].numpy(),
            )
    return result


def test_events_are_the_sae_in_float64(run: tuple[Collected, Pipeline]) -> None:
    """Reference (b): an independent float64 encoder on the pass's own float32 h."""
    data, job = run
    weights = {name: tensor.double() for name, tensor in job.session.sae.sae.state_dict().items()}
    for row, (hidden_td, modality_t, token_id_t) in hidden_by_row(job).items():
        stored = data.events.of(row)
        np.testing.assert_array_equal(stored.token_id_t, token_id_t)
        np.testing.assert_array_equal(stored.modality_t, modality_t)
        z_tf = torch.relu((hidden_td.double() - weights["b_dec"]) @ weights["W_enc"] + weights["b_enc"]).numpy()
        z_tf[modality_t > IMAGE] = 0
        dense = np.zeros_like(z_tf)
        dense[np.repeat(np.arange(len(z_tf)), np.diff(stored.offset_t)), stored.feature_e] = stored.z_e
        differing = (dense > 0) != (z_tf > 0)
        assert np.abs(z_tf[differing]).max(initial=0) < 1e-5  # at the threshold
        np.testing.assert_allclose(dense, z_tf, rtol=1e-3, atol=1e-5)


def test_accumulators_and_maxima_follow_from_the_events(run: tuple[Collected, Pipeline]) -> None:
    """Reference (a): the same stored events, all at once, by plain sorting."""
    data, _ = run
    parts = []
    for row in range(data.n_samples):
        sample = data.events.of(row)
        token_e = np.repeat(np.arange(len(sample.modality_t)), np.diff(sample.offset_t))
        value_e = (sample.z_e / data.unit).astype(np.float16)
        parts.append((sample.feature_e, sample.modality_t[token_e], value_e, np.full(len(token_e), row), token_e))
        for m, name in ((TEXT, "text"), (IMAGE, "image")):
            best = np.zeros(data.n_features)
            np.maximum.at(
                best,
                sample.feature_e[sample.modality_t[token_e] == m],
                sample.z_e[sample.modality_t[token_e] == m],
            )
            np.testing.assert_array_equal(data.maxima(row, row + 1)[m].toarray()[0], best)
            assert data.sample[f"n_{name}"][row] == (sample.modality_t == m).sum()
    feature, modality, value, row_e, token = (np.concatenate(part) for part in zip(*parts, strict=True))
    for k in range(data.n_features):
        for m in (TEXT, IMAGE):
            mine = (feature == k) & (modality == m)
            entries = sorted(zip((-value[mine]).tolist(), row_e[mine].tolist(), token[mine].tolist(), strict=True))
            assert data.accum["count"][k, m] == len(entries)
            assert data.accum["total"][k, m] == sum(int(-v * 2**24) for v, _, _ in entries)
            rows = [r for _, r, _ in entries]
            one_a_sample = {r: (v, r, t, rows.count(r)) for v, r, t in reversed(entries)}
            remaining = data.accum["top_row"][k, m] >= 0
            top = zip(
                (-data.accum["top_value"][k, m][remaining]).tolist(),
                *(data.accum[f"top_{name}"][k, m][remaining].tolist() for name in ("row", "position", "n_active")),
                strict=True,
            )
            assert list(top) == sorted(one_a_sample.values())[: acc.TOP]


def test_the_calibration_sets_the_scale(run: tuple[Collected, Pipeline]) -> None:
    """The calibration sees all samples here, so the largest stored value lies in [16, 32)."""
    data, job = run
    assert 16 <= float(data.accum["max"].max()) < 32
    norms: dict[int, list[float]] = {TEXT: [], IMAGE: []}
    for hidden_td, modality_t, _ in hidden_by_row(job).values():
        for m, result in norms.items():
            result += hidden_td.norm(dim=-1)[torch.from_numpy(modality_t == m)].tolist()
    report = data.manifest["sinks"]["median_norm"]
    assert report["text"] == pytest.approx(np.median(norms[TEXT]), rel=1e-6)
    assert report["image"] == pytest.approx(np.median(norms[IMAGE]), rel=1e-6)


def test_residuals_of_ds(run: tuple[Collected, Pipeline]) -> None:
    data, job = run
    hidden = hidden_by_row(job)
    assert len(data.ds_rows) == 10
    right, rows, positions = [], [], []
    for row in data.ds_rows.tolist():
        hidden_td, modality_t, _ = hidden[row]
        at = np.flatnonzero(modality_t <= IMAGE)
        right.append(hidden_td[at].bfloat16().view(torch.uint16).numpy())
        rows += [row] * len(at)
        positions += at.tolist()
    np.testing.assert_array_equal(data.resid, np.concatenate(right))
    np.testing.assert_array_equal(data.resid_row, rows)
    np.testing.assert_array_equal(data.resid_pos, positions)


def test_reconstruction_and_caption_loss(run: tuple[Collected, Pipeline], whole: Mllm) -> None:
    data, job = run
    for row, (hidden_td, modality_t, _) in hidden_by_row(job).items():
        with torch.inference_mode():
            rebuilt_td = job.session.sae.decode(job.session.sae.encode(hidden_td))
            error_t = (hidden_td - rebuilt_td).double().square().sum(-1).numpy()
        for m, name in ((TEXT, "text"), (IMAGE, "image")):
            assert data.sample[f"sse_{name}"][row] == pytest.approx(error_t[modality_t == m].sum(), rel=1e-4)
    sample = data.samples[3]
    pair = Pair(sample["text"], [open_image(p).image for p in job.session.data_and_plan[0].rows[3].images])
    nll = whole.hidden_and_nll(whole.prepare([pair]))[1][0]
    assert data.sample["caption_nll"][3] == pytest.approx(nll, rel=1e-2)  # the pass may round above layer L
    h = torch.cat([h[torch.from_numpy(kind == IMAGE)] for h, kind, _ in hidden_by_row(job).values()]).double()
    fvu = data.sample["sse_image"].sum() / float((h - h.mean(0)).square().sum())
    assert data.manifest["quality"]["fvu"]["image"] == pytest.approx(fvu, rel=1e-4)


def broken_data(folder: Path) -> Path:
    """As tiny.make_data, with a picture cut short in the middle and one that is text."""
    tiny.make_data(folder, 20)
    (folder / "007.png").write_bytes((folder / "007.png").read_bytes()[:60])
    (folder / "011.png").write_text("no picture")
    return folder


def test_unreadable_pictures_are_set_aside(options: Maker, tmp_path: Path) -> None:
    part, manifest = collected(options(data=str(broken_data(tmp_path / "data"))))
    data = Collected(part, manifest)
    assert manifest["data"] | {"sha256": ""} == {
        "name": "data", "sha256": "", "n_rows": 20, "n_samples": 18, "n_quarantined": 2
    }  # fmt: skip
    assert [(bad["index"], bad["sample_id"]) for bad in data.rejected_rows] == [(7, "pair-7"), (11, "pair-11")]
    ids = [f"pair-{i}" for i in range(20) if i not in (7, 11)]
    assert [sample["sample_id"] for sample in data.samples] == ids
    assert [sample["row"] for sample in data.samples] == list(range(18))
    for sample in data.samples:
        thumb = open_image(part / sample["images"][0]["thumb"]).image
        assert thumb.size == (sample["images"][0]["width"], sample["images"][0]["height"])
    # A sample behind the gap is the same as in data without the bad rows.
    rows = [json.loads(line) for line in (tmp_path / "data/metadata.jsonl").read_text().splitlines()]
    remaining = [row for row in rows if row["id"] in ids]
    (tmp_path / "data/metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in remaining))
    clean, _ = collected(options(data=str(tmp_path / "data"), out=tmp_path / "clean", batch_tokens=1))
    gap, _ = collected(options(data=str(broken_data(tmp_path / "again")), out=tmp_path / "gap", batch_tokens=1))
    for name in (
        "events/event_value.npy",
        "events/event_feature.npy",
        "collect/resid.npy",
        "collect/ds_rows.npy",
    ):
        assert (clean / name).read_bytes() == (gap / name).read_bytes(), name


def test_what_the_processor_refuses_is_set_aside(
    options: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.make_data(tmp_path / "data", 12)
    call, word = LlavaProcessor.__call__, tiny.WORDS[3]

    def refuse(processor: LlavaProcessor, *, text: list[str], **more: Any) -> Any:
        if any(word in one for one in text):
            raise ValueError("not this word\nand no other line")
        return call(processor, text=text, **more)

    monkeypatch.setattr(LlavaProcessor, "__call__", refuse)
    part, manifest = collected(options(data=str(tmp_path / "data")))
    texts = [json.loads(line)["text"] for line in (tmp_path / "data/metadata.jsonl").read_text().splitlines()]
    bad = [f"pair-{i}" for i, text in enumerate(texts) if word in text]
    data = Collected(part, manifest)
    assert 0 < len(bad) < 12 and sorted(one["sample_id"] for one in data.rejected_rows) == sorted(bad)
    assert {one["reason"] for one in data.rejected_rows} == {"the model's processor refuses it (not this word)"}
    assert [one["sample_id"] for one in data.samples] == [f"pair-{i}" for i in range(12) if f"pair-{i}" not in bad]


def test_an_overflow_sets_the_sample_aside(options: Maker) -> None:
    """Never inf: with a scale that is far too large the samples that overflow are named, the others kept."""
    probe, manifest = collected(options())
    value = np.load(probe / "collect/max_full_value.npy").astype(np.float64)
    offset = np.load(probe / "collect/max_full_offset.npy")
    largest = np.maximum.reduceat(value, offset[:-1:2])
    shutil.rmtree(probe)
    # So that about half of the samples exceed 65504.
    extra = int(np.floor(np.log2(65504 / np.median(largest))))
    limit = 65504 / 2.0**extra
    assert 0 < (largest > limit).sum() < len(largest)
    run = Pipeline(options())
    data, plan = run.session.data_and_plan
    run.part.mkdir(parents=True)
    result = {"scale_log2": manifest["scale_log2"] + extra, "sinks": manifest["sinks"]}
    (run.part / "calibration.json").write_text(json.dumps(result))
    job = Collector(run.session.mllm, run.session.sae, data, plan, run.part, 0)
    merged = merge.merge(job, 10) if job.run() else {}
    quarantine = [json.loads(line) for line in (run.part / "collect/quarantine.jsonl").read_text().splitlines()]
    assert {bad["index"] for bad in quarantine} == set(np.flatnonzero(largest > limit).tolist())
    assert {bad["reason"] for bad in quarantine} == {OVERFLOW}
    assert merged["data"]["n_samples"] == (largest <= limit).sum()
    assert np.isfinite(np.load(run.part / "events/event_value.npy")).all()
    feature = np.load(run.part / "events/event_feature.npy")
    count = np.load(run.part / "collect/accum.npz")["count"]
    np.testing.assert_array_equal(count.sum(axis=1), np.bincount(feature, minlength=len(count)))
    assert len(np.load(run.part / "collect/max_full_offset.npy")) == 2 * merged["data"]["n_samples"] + 1


def test_sinks_hold_no_events(options: Maker, tmp_path: Path) -> None:
    part, manifest = collected(options(sinks=1.1))
    data = Collected(part, manifest)
    kinds = np.asarray(data.events.token_modality)
    assert 0 < manifest["tokens"]["sink"] == (kinds == SINK).sum()
    assert not np.diff(data.events.token_event)[kinds >= SPECIAL].any()
    assert (np.asarray(data.resid_modality) <= IMAGE).all()
    _, everything = collected(options(sinks="keep", out=tmp_path / "keep"))
    assert everything["tokens"]["sink"] == 0
    assert everything["tokens"]["image"] == manifest["tokens"]["image"] + (kinds == SINK).sum() - (
        everything["tokens"]["text"] - manifest["tokens"]["text"]
    )


def test_a_topk_sae_keeps_k_a_token(options: Maker, tmp_path: Path, mllm: Mllm) -> None:
    sae = tiny.make_sae(tmp_path / "topk", architecture="topk", k=5)
    part, manifest = collected(options(sae=str(sae)))
    data = Collected(part, manifest)
    counted = np.asarray(data.events.token_modality) <= IMAGE
    assert np.diff(data.events.token_event)[counted].max() == 5
    assert isinstance(SaeV.load(sae).sha256, str)


def test_a_missing_input_factor_is_estimated_and_folded(options: Maker, tmp_path: Path) -> None:
    """√d / mean‖h‖ over the calibration's tokens without sinks; in the manifest, and the same for all later steps."""
    sae = tiny.make_sae(tmp_path / "average", normalize_activations="expected_average_only_in")
    made = options(sae=str(sae))
    job = Pipeline(made)
    report = job.collect()["input_factor"]
    norms = []
    for hidden_td, modality_t, _ in hidden_by_row(job).values():
        norm_t = hidden_td.double().norm(dim=-1).numpy()
        for m in (TEXT, IMAGE):
            norms += norm_t[(modality_t == m) & (norm_t <= job_limit(job, m))].tolist()
    assert report == {"value": pytest.approx(tiny.D_MODEL**0.5 / np.mean(norms), rel=1e-6), "source": "estimated"}
    again = Pipeline(made)
    manifest = again.collect()
    assert manifest["input_factor"] == report and manifest["sae"]["sha256"] == SaeV.load(sae).sha256
    directions_fd = torch.from_numpy(again.session.step_options(manifest)["directions"]())
    assert torch.equal(directions_fd, job.session.sae.directions_fd)
    torch.testing.assert_close(directions_fd * report["value"], SaeV.load(sae).directions_fd)
    data = Collected(job.part, manifest)
    engine = load_engine(Settings(stores=[job.part], device="cpu"), Served("store", job.part, manifest), [])
    row = data.samples[5]
    pair = Pair(row["text"], [open_image(path).image for path in job.session.data_and_plan[0].rows[5].images])
    live = encode_pair(engine.mllm, engine.sae, manifest, pair)
    stored = data.events.of(5)
    assert len(stored.feature_e) > 20
    np.testing.assert_array_equal(live.feature_e, stored.feature_e)
    np.testing.assert_allclose(live.value_e.astype(np.float64) * data.unit, stored.z_e, rtol=1e-3)


class Served(NamedTuple):
    """An unfinished store, as the server takes a finished one."""

    name: str
    path: Path
    manifest: dict[str, Any]


def job_limit(job: Pipeline, modality: int) -> float:
    sinks = json.loads((job.part / "manifest.json").read_text())["sinks"]
    return float(sinks["multiple"] * sinks["median_norm"]["text" if modality == TEXT else "image"])
