"""`saevx patches`: how much of a task a model can still do with the best patches of each image alone.

Every question is encoded as in a store, its patches are ranked by each score, and the model answers it again with the
others painted over or left out. Images are painted in their own pixels, so the model sees them the way it sees any.

Questions are asked in the order of the SHA-256 of their ids and each outcome is written as it comes: a killed run goes
on behind its last one, and the first n are those of `--max-samples n`.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from precompute.data.batches import OVERHEAD, make_plan, smallest_hashes, usable
from precompute.data.images import open_image
from precompute.data.records import BadRow, Data, RejectedRow, Row
from precompute.data.rejections import all_rejected_message, summary_of
from precompute.data.rows import read
from precompute.errors import PairError, SaevxError
from precompute.geometry import View
from precompute.geometry.painting import paint, regions, visible_pixels
from precompute.live.engine import load_engine
from precompute.model.batch import IMAGE, Batch, Pair
from precompute.model.loader import load_batches, prefetch
from precompute.model.processor import mean_colour
from precompute.model.vision import capture_vision_norms
from precompute.options.patches import PatchesOptions
from precompute.options.shared import NAMED_COLUMNS
from precompute.patches import ranking
from precompute.patches.answers import answer_tokens, beginnings, greedy, plain_answer
from precompute.patches.ranking import FULL, NONE, WITHOUT, FeatureWeights, Variant
from precompute.patches.result import Answered, Outcomes, closing_lines, result, variants
from precompute.sae.encode import Scale, encode_batch
from precompute.scoring.new_data import fingerprint_of
from precompute.store.reader import Store
from precompute.utils.files import write_json
from precompute.utils.ownership import creating
from precompute.utils.progress import progress_bar, say
from precompute.utils.types import Array

GROUP = 64
"""Questions scored before they are answered: of each, its ranked patches stand in memory until then."""
RUN_OPTIONS = {
    "answer_column", "keep", "knock_out", "removed", "seed", "batch_tokens", "device", "dtype", "device_map",
    "image_folder", "allow_outside", *NAMED_COLUMNS,
}  # fmt: skip
"""Options that an unfinished run must share with the one that goes on with it."""


class Question(NamedTuple):
    """A row whose patches are ranked."""

    row: Row
    n_tokens: int
    """Of the pair in the model's template."""
    views: list[View]
    patches: dict[Variant, Array]
    """Of every variant, the patches that stay visible: bool [p]."""
    vision: str
    """Which of the vision tower's norms was read."""


class Painted(NamedTuple):
    """Some variants of one question, as the model takes them."""

    question: Question
    variants: list[list[Variant]]
    """Of each pair of the batch: all that leave the same image."""
    pixels: list[float]
    """Of each: share of the pixels left."""
    batch: Batch
    dropped_bs: Array
    """bool [b, s]: tokens that are left out."""
    n_answer: int
    """Tokens of the answer."""


def patches_data(options: PatchesOptions) -> Path:
    """Ask every question of DATA with all patches, with the best and with none, or go on with a run that was
    interrupted. Returns the file.

    Raises:
        SaevxError: wrong input, a file that exists already, or no question that can be asked.
    """
    with creating(options.out):
        return run(options)


def run(o: PatchesOptions) -> Path:
    """`patches_data`, by the one owner of its files."""
    store = Store.open(o.store)
    try:
        data = select_questions(read(o.data, o.columns), o)
        if data.rejected_rows:
            say(summary_of(data.rejected_rows, o.id_column))
        with Outcomes(o.part, fingerprint_of(o, store.manifest, RUN_OPTIONS)) as outcomes:
            job = Job(o, store, outcomes)
            job_outcomes, rejected_rows = job.run(data)
        summary = result(o, store, job.mllm, job_outcomes, rejected_rows)
    finally:
        store.close()
    write_json(o.out, summary)
    shutil.rmtree(o.part)
    for line in closing_lines(summary):
        say(line)
    if rejected_rows:
        say(summary_of(rejected_rows, o.id_column))
    return o.out


# ---- questions


def select_questions(data: Data, o: PatchesOptions) -> Data:
    """The rows that have an image, a question and an answer, in the order of their hashes, and what the others lack.

    Raises:
        SaevxError: there is none.
    """
    usable_rows, rejected_rows = [], list(data.rejected_rows)
    for row in data.rows:
        reason = missing_field_reason(row, o.answer_column)
        if reason is None:
            usable_rows.append(row)
        else:
            rejected_rows.append(RejectedRow(row.index, row.sample_id, reason))
    if not usable_rows:
        raise SaevxError(
            all_rejected_message(
                f"No row of {o.data} is a question about an image with its answer", rejected_rows, o.id_column
            )
            + " Name the fields with --image-column, --text-column and --answer-column."
        )
    order = smallest_hashes([row.sample_id for row in usable_rows], o.max_samples or len(usable_rows))
    return data._replace(rows=[usable_rows[i] for i in order], rejected_rows=rejected_rows)


def missing_field_reason(row: Row, answer_column: str) -> str | None:
    """Why a row cannot be asked."""
    if not row.images:
        return "it has no image"
    if not row.text.strip():
        return "it has no question"
    answer = row.extra.get(answer_column)
    if answer is None:
        return f"it has no field {answer_column!r}"
    if isinstance(answer, bool) or not isinstance(answer, str | int):
        return f"its field {answer_column!r} is neither a string nor a whole number"
    return None if str(answer).strip() else f"its field {answer_column!r} is empty"


def kind_of(row: Row) -> str | None:
    kind = row.extra.get("kind")
    return str(kind) if isinstance(kind, str | int) and str(kind).strip() else None


# ---- the run


class Job:
    """One run over all questions."""

    def __init__(self, options: PatchesOptions, store: Store, outcomes: Outcomes) -> None:
        self.options, self.outcomes = options, outcomes
        self.scale, self.features = Scale.from_manifest(store.manifest), FeatureWeights.from_store(store)
        self.batch_tokens = options.batch_tokens or int(store.manifest["options"].get("batch_tokens", 4096))
        self.variants = variants(options)
        self.mllm, self.sae = load_engine(options, store.manifest, full=True)
        self.colours = {"black": (0, 0, 0), "mean": mean_colour(self.mllm.processor)}
        self.rejected_rows: list[RejectedRow] = []

    def run(self, data: Data) -> tuple[list[Answered], list[RejectedRow]]:
        """Every question's outcome, and all rows that were not asked."""
        rows, length_n, bad_rows = usable(data.rows, self.mllm)
        self.rejected_rows = [*data.rejected_rows, *bad_rows]
        by_id = self.outcomes.outcome_of
        n_known = sum(row.sample_id in by_id for row in rows)
        with progress_bar("patches", len(rows), "questions", n_known) as progress:
            for begin in range(0, len(rows), GROUP):
                todo = [i for i in range(begin, min(begin + GROUP, len(rows))) if rows[i].sample_id not in by_id]
                questions = {q.row.sample_id: q for q in self.score([rows[i] for i in todo], length_n[todo])}
                ids = [rows[i].sample_id for i in todo]
                for outcome in self.answer([questions[sample_id] for sample_id in ids if sample_id in questions]):
                    self.outcomes.add(outcome)
                    progress.update(1)
        outcomes = [by_id[row.sample_id] for row in rows if row.sample_id in by_id]
        if not outcomes:
            subject = f"No question of {self.options.data} could be asked"
            raise SaevxError(all_rejected_message(subject, self.rejected_rows, self.options.id_column))
        return outcomes, sorted(self.rejected_rows)

    def score(self, rows: list[Row], length_n: Array) -> Iterator[Question]:
        """The rows go through the model to layer L and through the SAE, their patches ranked by every score."""
        ids, seed = [row.sample_id for row in rows], self.options.seed
        plan = make_plan(ids, length_n, batch_tokens=self.batch_tokens, shard_samples=GROUP, ds=0, seed=seed)
        for loaded_batch in load_batches(self.mllm, ([rows[at] for at in batch] for batch in plan.batches)):
            self.rejected_rows += loaded_batch.rejected_rows
            if loaded_batch.batch is None:
                continue
            with capture_vision_norms(self.mllm) as vision_norms:
                hidden_bsd = self.mllm.hidden(loaded_batch.batch)
            norm_bp, vision = vision_norms.of(loaded_batch.batch)
            encoded_batch = encode_batch(hidden_bsd, loaded_batch.batch, self.sae, self.scale)
            for b, row in enumerate(loaded_batch.rows):
                length = int(loaded_batch.batch.length_b[b])
                patch_p = np.flatnonzero(loaded_batch.batch.modality_bs[b] == IMAGE)
                reason = encoded_batch.reason_b[b] or (None if len(patch_p) else "it has no image token")
                if reason is not None:
                    self.rejected_rows.append(RejectedRow(row.index, row.sample_id, reason))
                    continue
                t, e = encoded_batch.slices(b)
                score = ranking.patch_scores(
                    encoded_batch.offset_t[t.start : t.stop + 1] - e.start,
                    encoded_batch.feature_e[e],
                    np.ldexp(encoded_batch.value_e[e].astype(np.float64), -self.scale.log2),
                    encoded_batch.modality_t[t],
                    patch_p,
                    self.features,
                )
                score["random"] = ranking.chances(row.sample_id, len(patch_p), seed)
                score["vision-norm"] = norm_bp[b]
                yield Question(row, length, encoded_batch.views[b], self.choose_patches(score), vision)

    def choose_patches(self, score: dict[str, Array]) -> dict[Variant, Array]:
        """Of every variant, the patches that stay visible, bool [p]."""
        all_patches = np.ones(len(score["random"]), dtype=bool)

        def visible_patches(score_name: str, keep: float) -> Array:
            if score_name in (FULL[0], NONE):
                return all_patches if score_name == FULL[0] else ~all_patches
            if score_name.startswith(WITHOUT):
                return ~ranking.best_patches(score[score_name.removeprefix(WITHOUT)], keep)
            return ranking.best_patches(score[score_name], keep)

        return {v: visible_patches(*v[:2]) for v in self.variants}

    def answer(self, group: list[Question]) -> Iterator[Answered]:
        """Every variant of every question; of those that leave the same image, one answer for all."""
        current: Question | None = None
        hits: dict[Variant, bool] = {}
        pixels: dict[Variant, float] = {}
        for painting in prefetch(self.paint, self.batches(group)):
            if isinstance(painting, RejectedRow):
                self.rejected_rows += [painting] if painting not in self.rejected_rows else []
                continue
            if painting.question is not current:  # of the one before some painted images may have been refused
                current, hits, pixels = painting.question, {}, {}
            ids_bn = greedy(self.mllm, painting.batch, painting.n_answer, painting.dropped_bs)
            answers = [beginnings(self.mllm, ids) for ids in ids_bn]
            question = painting.question
            for group_of_variants, share, texts in zip(painting.variants, painting.pixels, answers, strict=True):
                hits |= dict.fromkeys(group_of_variants, plain_answer(self.answer_of(question.row)) in texts)
                pixels |= dict.fromkeys(group_of_variants, share)
            if len(hits) == len(self.variants):  # the model has seen all its images
                yield Answered(
                    question.row.sample_id, kind_of(question.row), len(question.patches[FULL]), question.vision,
                    [hits[v] for v in self.variants], [pixels[v] for v in self.variants],
                )  # fmt: skip

    def batches(self, group: list[Question]) -> Iterator[tuple[Question, list[list[Variant]]]]:
        """Distinct images of one question, as many as the batch holds: they have one length, so no padding."""
        for question in group:
            variants_of: dict[tuple[str, bytes], list[Variant]] = {}
            for variant, visible_p in question.patches.items():
                way = "" if visible_p.all() else variant[2]
                variants_of.setdefault((way, visible_p.tobytes()), []).append(variant)
            images = list(variants_of.values())
            step = max(1, self.batch_tokens // (question.n_tokens + OVERHEAD))
            for begin in range(0, len(images), step):
                yield question, images[begin : begin + step]

    def paint(self, work: tuple[Question, list[list[Variant]]]) -> Painted | RejectedRow:
        question, variants = work
        try:
            return self.paint_variants(question, variants)
        except (BadRow, PairError) as error:  # it fits the model, and with room for an answer it does not
            return RejectedRow(question.row.index, question.row.sample_id, error.reason)

    def paint_variants(self, question: Question, variants: list[list[Variant]]) -> Painted:
        images = [open_image(image).image for image in question.row.images]
        sizes = [image.size for image in images]
        where = regions(question.views, sizes)
        pairs, pixels, mask_parts = [], [], []
        for group_of_variants in variants:
            visible_p, way = question.patches[group_of_variants[0]], group_of_variants[0][2]
            masks = visible_pixels(where, visible_p, sizes)
            colour = self.colours.get(way)  # none where patches are dropped
            pairs.append(Pair(question.row.text, paint(images, masks, colour) if colour else images))
            pixels.append(sum(int(mask.sum()) for mask in masks) / sum(mask.size for mask in masks))
            mask_parts.append(~visible_p & (way == "drop"))
        batch = self.mllm.prepare(pairs, generate=True)
        dropped_bs = np.zeros(batch.modality_bs.shape, dtype=bool)
        dropped_bs[batch.modality_bs == IMAGE] = np.concatenate(mask_parts)
        n_answer = answer_tokens(self.mllm, self.answer_of(question.row))
        return Painted(question, variants, pixels, batch, dropped_bs, n_answer)

    def answer_of(self, row: Row) -> str:
        return str(row.extra[self.options.answer_column])
