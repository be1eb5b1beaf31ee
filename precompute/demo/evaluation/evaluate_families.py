"""Are families right? On scenes that nothing was trained on or stored from: do features that are joined stand for the
same word and the same thing in its box, and are features that do so, on the same tokens, joined?"""

from collections import Counter
from collections.abc import Sequence
from itertools import combinations, pairwise
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import csr_matrix, vstack

from precompute.demo.drawing import draw
from precompute.demo.scenes import Scene
from precompute.demo.training.words import COVER, cover
from precompute.live.engine import encode_pair
from precompute.model.batch import IMAGE, TEXT, Pair
from precompute.model.mllm import Mllm
from precompute.sae.sae import SaeV
from precompute.store.events import patches
from precompute.utils.types import Array

STRONGEST = 16
"""Tokens of a feature and modality, one a scene, that say what it stands for."""
FEWEST = 4
"""Scenes on which a feature must fire in a modality."""
SETTLED = 0.5
"""Share of the strongest tokens that must stand for one thing, for one of the two features at least."""
OUTSIDE = "[background]"
"""Begins the names of what lies in no box."""
SAME_TOKENS = 0.7
"""Jaccard index of the active tokens of two features from which they are the same in fact."""


class HeldOut(NamedTuple):
    """Tokens of held-out scenes, and what fires on them."""

    z_tf: csr_matrix
    """float32 CSR [t, F]."""
    modality_t: Array
    """uint8 [t]: TEXT or IMAGE."""
    scene_t: Array
    """int64 [t]."""
    names_t: list[tuple[str, ...]]
    """What each token stands for: its own text; of a patch the noun and colour in whose box it lies, elsewhere the
    background's colour and the place."""


def patch_names(scene: Scene, n: int) -> list[tuple[str, ...]]:
    """Of each of n patches, row by row."""
    share = np.array([cover(entity.box, int(n**0.5)) for entity in scene.entities])
    names = []
    for p, e in enumerate(share.argmax(0)):
        entity = scene.entities[e]
        own_names = (f"a {entity.noun}", *([entity.colour] if entity.colour else []))
        names.append(own_names if share[e, p] >= COVER else (f"{OUTSIDE} {scene.background}", f"{OUTSIDE} patch {p}"))
    return names


def read_scenes(mllm: Mllm, sae: SaeV, manifest: dict[str, Any], scenes: Sequence[Scene]) -> HeldOut:
    """Scenes through the model and the SAE, with the scale and sinks of a store."""
    blocks, kinds, scene_t, names = [], [], [], []
    for number, scene in enumerate(scenes):
        pair = encode_pair(mllm, sae, manifest, Pair(scene.caption, [draw(scene)]))
        events = pair.events(manifest["scale_log2"])
        position = patches(events, pair.views).position
        things = dict(zip(position.tolist(), patch_names(scene, len(position)), strict=True))
        at_tokens = np.flatnonzero((pair.modality_t == TEXT) | (pair.modality_t == IMAGE))
        for t in at_tokens.tolist():
            names.append(things.get(t) or (mllm.token_text(int(pair.token_id_t[t])).strip().lower(),))
        z_e = events.z_e.astype(np.float32)
        z_tf = csr_matrix((z_e, events.feature_e, pair.offset_t), shape=(len(pair.modality_t), sae.n_features))
        blocks.append(z_tf[at_tokens])
        kinds.append(pair.modality_t[at_tokens])
        scene_t.append(np.full(len(at_tokens), number))
    return HeldOut(vstack(blocks).tocsr(), np.concatenate(kinds), np.concatenate(scene_t), names)


Shares = dict[str, float]


def stands_for(held_out: HeldOut, modality: int) -> list[Shares]:
    """Of each feature, the share of its strongest tokens of a modality that have each name; empty where it fires on
    fewer than FEWEST scenes."""
    at_modality = np.flatnonzero(held_out.modality_t == modality)
    z_ft = held_out.z_tf[at_modality].tocsc().T.tocsr()
    shares: list[Shares] = []
    for low, high in pairwise(z_ft.indptr.tolist()):
        token = at_modality[z_ft.indices[low:high]][np.argsort(-z_ft.data[low:high], kind="stable")]
        _, first = np.unique(held_out.scene_t[token], return_index=True)
        top_tokens = token[np.sort(first)][:STRONGEST].tolist()
        count = Counter(name for t in top_tokens for name in held_out.names_t[t])
        has_enough = len(top_tokens) >= FEWEST
        shares.append({name: n / len(top_tokens) for name, n in sorted(count.items())} if has_enough else {})
    return shares


def judge(a: Shares, b: Shares) -> tuple[str, bool] | None:
    """The name for which the more settled of two features stands, and whether the other has it too, with at least half
    of that share; None where neither stands for one."""
    a, b = sorted((a, b), key=lambda shares: -max(shares.values()))
    name = max(a, key=a.__getitem__)
    return (name, b.get(name, 0) >= a[name] / 2) if a[name] >= SETTLED else None


class Verdicts(NamedTuple):
    """What is said of p pairs of features."""

    judged_p: Array
    """bool: one of the two stands for something in a modality in which both fire."""
    agree_p: Array
    """bool: both then stand for the same, in each such modality."""
    outside_p: Array
    """bool: what they stand for lies in no box: a background, or a place in the image."""


class Truth:
    """What held-out scenes say of pairs of features."""

    def __init__(self, held_out: HeldOut) -> None:
        self.sides = [stands_for(held_out, m) for m in (TEXT, IMAGE)]
        active_tf = held_out.z_tf.astype(bool).astype(np.int32)
        n_both = (active_tf.T @ active_tf).tocoo()
        n_f = np.asarray(active_tf.sum(0)).ravel()
        is_same = n_both.data / (n_f[n_both.row] + n_f[n_both.col] - n_both.data) >= SAME_TOKENS
        is_same &= (n_both.row < n_both.col) & (n_f[n_both.row] >= STRONGEST) & (n_f[n_both.col] >= STRONGEST)
        self.same_tokens = np.stack([n_both.row[is_same], n_both.col[is_same]], axis=1)
        """int64 [p, 2]: pairs that are active on the same tokens."""

    def verdicts(self, pairs_p2: Array) -> Verdicts:
        """What held-out scenes say of pairs of features, int64 [p, 2]."""
        result = Verdicts(*np.zeros((3, len(pairs_p2)), bool))
        for p, (a, b) in enumerate(pairs_p2.tolist()):
            answers = [judge(side[a], side[b]) for side in self.sides if side[a] and side[b]]
            answers_given = [answer for answer in answers if answer is not None]
            result.judged_p[p] = bool(answers_given)
            result.agree_p[p] = bool(answers_given) and all(is_same for _, is_same in answers_given)
            result.outside_p[p] = any(name.startswith(OUTSIDE) for name, _ in answers_given)
        return result


def pairs_in(family_f: Array) -> Array:
    """int64 [p, 2]: all pairs of features with the same number, a < b."""
    order = np.argsort(family_f, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(family_f[order])) + 1)
    pairs = [np.sort(np.array(list(combinations(group.tolist(), 2)))) for group in groups if len(group) > 1]
    return np.concatenate(pairs) if pairs else np.zeros((0, 2), np.int64)


def family_figures(family_f: Array, alive_f: Array, truth: Truth, rng: np.random.Generator) -> dict[str, Any]:
    """Precision of joined pairs, the same of random pairs of features as the control, and recall.

    Args:
        family_f: int64 [F], a number for each family; one of its own for a feature alone. alive_f: bool [F].
    """
    control = rng.choice(np.flatnonzero(alive_f), (20_000, 2))
    precision = {}
    for name, pairs in (("joined", pairs_in(family_f)), ("random", control[control[:, 0] != control[:, 1]])):
        verdicts = truth.verdicts(pairs)
        for kind, of_kind in (("things", ~verdicts.outside_p), ("backgrounds", verdicts.outside_p)):
            n_judged, n_agree = int((verdicts.judged_p & of_kind).sum()), int((verdicts.agree_p & of_kind).sum())
            precision[f"{name}_{kind}"] = {"judged": n_judged, "agree": n_agree}
    same_pairs = truth.same_tokens[truth.verdicts(truth.same_tokens).agree_p]
    size = np.bincount(family_f)
    return {
        "families": int((size > 1).sum()),
        "features": int(size[size > 1].sum()),
        "largest": int(size.max()),
        "precision": precision,
        "same_pairs": len(same_pairs),
        "same_joined": int((family_f[same_pairs[:, 0]] == family_f[same_pairs[:, 1]]).sum()),
    }
