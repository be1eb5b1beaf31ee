"""Steering as the API asks for it: what is edited, and the replies of several candidates."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from fastapi import HTTPException
from pydantic import BaseModel

from backend.deps import Visit
from backend.links import check_feature
from backend.live.cached_reply import cached_reply
from backend.live.model_worker import Reservation
from backend.live.sources import check_one_source, named_pair
from backend.problems import http_status
from backend.schemas.steering import SteerFeature, SteerKl, SteerRequest, SteerRuns, SteerTarget, SteerToken
from backend.stores import OpenStore

if TYPE_CHECKING:
    from backend.live.engines import Engine
    from precompute.live.engine import Batch, SaeV
    from precompute.live.intervention import Intervention
    from precompute.live.steer import Steering
    from precompute.live.steer_sampling import Event

MAX_CANDIDATES, MAX_CANDIDATE_TOKENS = 8, 64
MAX_MEMBERS = 32
"""Features of a family that are steered together, the strongest ones."""


def check_request(store: OpenStore, steering: SteerRequest) -> None:
    """Raises HTTPException: 404 for a feature that does not exist, 422 for fields that do not go together."""
    candidates = steering.candidates or []
    for feature in [*steering.features, *(f for candidate in candidates for f in candidate.features)]:
        check_feature(store, feature.id)
    check_one_source(steering.sample_id, steering.image, steering.image_hash)
    wrong = {
        "Give `features` or `candidates`, not both.": bool(candidates and steering.features),
        "Alternatives are for a single run: leave out `alternatives` or `candidates`.":
            bool(candidates and steering.alternatives),
        f"At most {MAX_CANDIDATES} candidates run at once: send the others in another request.":
            len(candidates) > MAX_CANDIDATES,
        f"Candidates write at most {MAX_CANDIDATE_TOKENS} tokens: give a smaller `max_tokens`.":
            bool(candidates and steering.max_tokens > MAX_CANDIDATE_TOKENS),
    }  # fmt: skip
    for sentence, is_wrong in wrong.items():
        if is_wrong:
            raise HTTPException(422, sentence)


def prepare(engine: Engine, visit: Visit, steering: SteerRequest) -> Batch:
    """The prompt in the model's own template, after a check that the request can be carried out.

    Raises:
        HTTPException: 404 or 409 for a sample, 413 or 422 for an image, 422 for a request that cannot be carried out.
    """
    from precompute.live.engine import Pair
    from precompute.live.frozen_attention import why_not_frozen
    from precompute.live.intervention import Steer, check_scope

    edits = [steering.features, *(candidate.features for candidate in steering.candidates or [])]
    if (reason := engine.sae.missing_direction_reason([f.id for edit in edits for f in edit])) is not None:
        raise HTTPException(422, reason)
    if steering.attention == "frozen" and (reason := why_not_frozen(engine.mllm)) is not None:
        raise HTTPException(422, reason)
    _, images = named_pair(visit, steering)
    with http_status(422):
        batch = engine.mllm.prepare([Pair(steering.prompt, images)], generate=True)
        engine.mllm.check_length(int(batch.length_b[0]), steering.max_tokens)
        for edit in edits:
            Steer(engine.sae, interventions_of(engine, visit.store, edit))
        check_scope(batch, steering.scope, steering.mask)
    return batch


def interventions_of(engine: Engine, store: OpenStore, features: Sequence[SteerFeature]) -> list[Intervention]:
    """The edits of these features, families written out. Raises SaevxError: a feature that stands twice."""
    from precompute.live.intervention import Intervention

    p999 = store.reader.features.table["p999"]
    edits = []
    for feature in features:
        members, share = family_of(store, engine.sae, feature.id) if feature.family else ([feature.id], 1.0)
        strength = feature.strength * share if feature.mode == "add" else feature.strength
        edits += [Intervention(k, feature.mode, strength, float(p999[k])) for k in members]
    return edits


def family_of(store: OpenStore, sae: SaeV, feature: int) -> tuple[list[int], float]:
    """The feature and the members of its family, at most `MAX_MEMBERS`, and the factor of their common strength with
    which `add` changes h as much as the feature alone: ‖p_i d_i‖ / ‖Σ_k p_k d_k‖, with p for p99.9."""
    family, p999 = store.reader.features.family, store.reader.features.table["p999"]
    members = np.flatnonzero((family == family[feature]) & (p999 > 0))
    order = members[np.argsort(-store.reader.features.max_by_modality[members].max(1), kind="stable")].tolist()
    ids = [feature, *(k for k in order if k != feature and sae.missing_direction_reason([k]) is None)][:MAX_MEMBERS]
    directions_kd = sae.directions_fd[ids].float().cpu().numpy() * p999[ids][:, None]
    length = float(np.linalg.norm(directions_kd.sum(0)))
    return ids, float(np.linalg.norm(directions_kd[0])) / length if length > 0 else 1.0


def control_of(engine: Engine, store: OpenStore, features: Sequence[SteerFeature], draw: int | None) -> int | None:
    """The random feature of that draw, which is not dead and of another family than the first one that is steered;
    None without one."""
    from precompute.live.effect import choose_control

    if draw is None or not features:
        return None
    return choose_control(store.reader, engine.sae, features[0].id, seed=draw)


def common_steering(engine: Engine, store: OpenStore, steering: SteerRequest) -> Steering:
    """All but what is edited."""
    from precompute.live.engine import Scale
    from precompute.live.steer import Steering

    return Steering(
        scope=steering.scope,
        mask=steering.mask,
        frozen=steering.attention == "frozen",
        max_tokens=steering.max_tokens,
        temperature=steering.temperature,
        sink_norm=Scale.from_manifest(store.reader.manifest).sink_norm,
        target=target_tokens(engine, steering.target) if steering.target else (),
        alternatives=steering.alternatives,
    )


def target_tokens(engine: Engine, word: str) -> list[int]:
    """The first tokens of a word, as it stands alone and within a text, in small letters and with a capital."""
    text = word.strip() or word
    forms = {space + form for space in ("", " ") for form in (text, text.lower(), text[:1].upper() + text[1:])}
    encode = engine.mllm.tokenizer.encode
    return sorted({ids[0] for form in forms if (ids := encode(form, add_special_tokens=False))})


def event_body(store: OpenStore, event: Event) -> tuple[str, BaseModel]:
    """Name and data of an event of the stream."""
    from precompute.live.steer_sampling import KlEvent, TokenEvent

    fields = dataclasses.asdict(event)
    if isinstance(event, TokenEvent):
        if event.alternatives is not None:
            texts = store.reader.vocabulary.texts
            fields["alternatives"] = {
                name: [
                    {"text": text, "logprob": entry.logprob}
                    for entry, text in zip(likely, texts(np.array([entry.token for entry in likely])), strict=True)
                ]
                for name, likely in event.alternatives.items()
            }
        return "token", SteerToken.model_validate(fields)
    return (
        ("kl", SteerKl.model_validate(fields))
        if isinstance(event, KlEvent)
        else ("target", SteerTarget.model_validate(fields))
    )


async def request_candidates(visit: Visit, steering: SteerRequest) -> SteerRuns:
    """By the live model, or from the cache. Raises as `cached_reply` and `prepare`."""

    def prepare_runs(reservation: Reservation, client_left: threading.Event) -> Callable[[Engine], SteerRuns]:
        batch = prepare(reservation.engine, visit, steering)
        return partial(runs_of, store=visit.store, steering=steering, batch=batch, stop=client_left.is_set)

    return await cached_reply(visit, steering, prepare_runs)


def runs_of(
    engine: Engine, store: OpenStore, steering: SteerRequest, batch: Batch, stop: Callable[[], bool]
) -> SteerRuns:
    """The tokens, the divergence and the report of each candidate of the request. Runs in the live model's worker.

    Raises:
        SaevxError: as of `steer`.
    """
    from precompute.live.steer import Candidate, steer_candidates

    requests = steering.candidates or []
    controls = [control_of(engine, store, c.features, c.control) for c in requests]
    candidates = [
        Candidate(interventions_of(engine, store, c.features), steering.seed if c.seed is None else c.seed, control)
        for c, control in zip(requests, controls, strict=True)
    ]
    runs: list[dict[str, Any]] = [{"tokens": {"default": [], "steered": []}, "kl": []} for _ in candidates]

    def emit(candidate: int, event: Event) -> None:
        name, body = event_body(store, event)
        run = runs[candidate]
        if isinstance(body, SteerToken):
            run["tokens"][body.channel].append(body)
        elif isinstance(body, SteerKl):
            run["kl"].append(body)
        else:
            run[name] = body

    shared_steering = dataclasses.replace(common_steering(engine, store, steering), candidates=candidates)
    report = steer_candidates(engine.mllm, engine.sae, batch, shared_steering, emit=emit, stop=stop)
    return SteerRuns.model_validate(
        {
            "runs": [
                {**run, **dataclasses.asdict(report_of_run), "control": control}
                for run, report_of_run, control in zip(runs, report, controls, strict=True)
            ]
        }
    )
