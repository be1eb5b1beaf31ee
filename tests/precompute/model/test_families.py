"""Every family that geometry/ knows, on a tiny random model of its own classes: counts, boxes, early stop."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from precompute.errors import PairError
from precompute.model.batch import IMAGE, SPECIAL, TEXT, Pair
from precompute.model.hooks import capture, remove_at_end, without_tokens
from precompute.model.mllm import Mllm
from precompute.utils.token_text import join
from tests.helpers import families, family_images, family_parts

SIZES = [(404, 161), (149, 362), (257, 230)]
"""Width and height: odd aspect ratios, lying, standing and nearly square."""


@pytest.fixture(scope="module", params=list(families.MULTIMODAL))
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    torch.set_num_threads(1)
    yield families.MULTIMODAL[request.param](tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def first(folder: Path) -> Mllm:
    """One decoder layer."""
    return Mllm.load(folder, layer=0, device="cpu")


@pytest.fixture(scope="module")
def whole(folder: Path) -> Mllm:
    return Mllm.load(folder, layer=1, full=True, device="cpu")


@pytest.mark.parametrize("size", SIZES)
def test_as_many_tokens_as_the_processor_makes(first: Mllm, size: tuple[int, int]) -> None:
    """Also for several pictures in one pair, and for planning."""
    for sizes in ([size], [size, SIZES[0]]):
        batch = first.prepare([Pair("the red dog", [families.picture(one) for one in sizes])])
        n_ids = int((batch.inputs["input_ids"] == first.image_token_id).sum())
        n_patches = int((batch.modality_bs == IMAGE).sum())
        assert 0 < n_patches <= n_ids
        assert n_patches == sum(view.rows * view.cols for view in batch.views[0])
        assert [view.image for view in batch.views[0]] == sorted(view.image for view in batch.views[0])
        assert first.n_image_tokens(sizes) == n_ids


def test_a_token_that_is_left_out_changes_no_other(whole: Mllm) -> None:
    """Whatever stands in its place. What is left of a LLaVA is compared with a shorter sequence in the tests of
    `saevx patches`."""
    pair = Pair("the red dog", [families.picture(SIZES[0])])
    batch = whole.prepare([pair, pair], generate=True)
    dropped_bs = torch.from_numpy(batch.modality_bs == IMAGE)
    dropped_bs[:, ::2] = dropped_bs[1] = False
    assert dropped_bs.any()

    def run(noise: float, dropped_bs: torch.Tensor) -> torch.Tensor:
        """Logits [b, V] of the next token, all image tokens that are left out moved by noise before layer 0."""

        def move(_module: Any, args: Any) -> Any:
            moved = args[0] + noise * torch.randn(args[0].shape, generator=torch.Generator().manual_seed(1))
            return (torch.where(moving_bs[..., None], moved, args[0]), *args[1:])

        layers = whole.decoder.layers
        moving = remove_at_end(layers[0].register_forward_pre_hook(move))
        with without_tokens(layers, dropped_bs), moving, torch.inference_mode():
            logits: torch.Tensor = whole.model(**whole.causal_inputs(batch), use_cache=False).logits[:, -1]
        return logits

    moving_bs = dropped_bs
    still, moved = run(0.0, dropped_bs), run(3.0, dropped_bs)
    torch.testing.assert_close(moved, still, rtol=0, atol=1e-5)
    assert (run(3.0, dropped_bs & False)[0] - still[0]).abs().max() > 1e-3  # left in, it matters
    everything = whole.model(**whole.causal_inputs(batch), use_cache=False).logits[:, -1]
    torch.testing.assert_close(still[1], everything[1], rtol=0, atol=1e-5)  # the row from which nothing is dropped


@pytest.mark.parametrize("size", SIZES)
def test_every_box_lies_in_the_image(first: Mllm, size: tuple[int, int]) -> None:
    (views,) = first.prepare([Pair("", [families.picture(size)])]).views
    box_p4 = np.array([box for _, box in family_images.patches(views, size)])
    assert (box_p4[:, :2] >= 0).all() and (box_p4[:, 2:] <= size).all()
    assert (box_p4[:, 2:] - box_p4[:, :2] >= 1).all()


@pytest.mark.parametrize("size", SIZES)
def test_noise_in_a_box_moves_its_token_most(first: Mllm, size: tuple[int, int]) -> None:
    """Of its view's tokens; and in every other view that covers the box, a token whose own box it touches."""
    image = families.picture(size)
    (views,) = first.prepare([Pair("", [image])]).views
    patches = family_images.patches(views, size)
    view_p = np.array([view for view, _ in patches])
    box_p4 = np.array([box for _, box in patches])
    before_pd = family_images.embeddings(first, [image])[0]
    for begin in range(0, len(patches), 32):
        chunk = range(begin, min(begin + 32, len(patches)))
        after_npd = family_images.embeddings(first, [family_images.noisy(image, box_p4[p], 100 + p) for p in chunk])
        moved_np = (after_npd - before_pd).norm(dim=-1).numpy()
        for p, moved_p in zip(chunk, moved_np, strict=True):
            low, high = box_p4[p, :2], box_p4[p, 2:]
            for view, (_, _, (x0, y0, x1, y1), _) in enumerate(views):
                own = np.flatnonzero(view_p == view)
                most = own[moved_p[own].argmax()]
                if view == view_p[p]:
                    assert most == p, f"noise in token {p} of view {view} moved {most}"
                elif (low >= (x0, y0)).all() and (high <= (x1, y1)).all():
                    touched = (low < box_p4[most, 2:]).all() and (high > box_p4[most, :2]).all()
                    assert touched, f"noise in token {p} moved {most} of view {view}"


def test_every_token_of_the_vocabulary_can_be_told_apart(first: Mllm) -> None:
    words = [word for word in first.vocabulary() if word]
    assert not any("\ufffd" in word for word in words)
    ids = first.tokenizer("红色的猫 🙂\n", add_special_tokens=False)["input_ids"]
    assert first.tokenizer.unk_token_id in ids or join([first.token_text(i) for i in ids]).text.strip() == "红色的猫 🙂"


def test_marks_and_template_are_special(first: Mllm) -> None:
    pair = Pair("a big blue cat", [families.picture(SIZES[0])])
    batch = first.prepare([pair, Pair("two balls", [])])
    ids_s, modality_s = batch.inputs["input_ids"][0].numpy(), batch.modality_bs[0]
    assert "".join(first.token_text(int(i)) for i in ids_s[modality_s == TEXT]) == pair.text
    assert set(ids_s[modality_s == IMAGE]) == {first.image_token_id}
    assert (modality_s == SPECIAL).any()
    assert (batch.modality_bs[1] != IMAGE).all() and batch.views[1] == []
    assert first.processor.image_token in first.media_marks
    for mark in {*first.media_marks, first.tokenizer.convert_ids_to_tokens(first.image_token_id)}:
        with pytest.raises(PairError, match="mark for"):
            first.prepare([Pair(f"a {mark} in the text", [families.picture(SIZES[0])])])


TEXTS = ["the red dog", "<s> a dog", "two</s>cats", "<pad>", "a", "", " ", "红色的猫 🙂", "a\n\nb", "a big blue cat"]
PAIRS = st.tuples(st.sampled_from(TEXTS), st.lists(st.sampled_from([(40, 40), (64, 30), (21, 90)]), max_size=2))


@given(pairs=st.lists(PAIRS, min_size=1, max_size=5))
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(pairs=[("words alone", []), ("a red dog", [(40, 40)])])
@example(pairs=[("words alone", []), ("and more", [])])
@example(pairs=[("a red dog", [(40, 40)]), ("<s> a cat", [(40, 40), (64, 30)]), ("words alone", [])])
def test_a_pair_alone_is_the_pair_among_others(first: Mllm, pairs: list[tuple[str, list[tuple[int, int]]]]) -> None:
    """Tokens, their modality, and views, whatever the others hold: text alone, several images, a literal `<s>`."""
    given_pairs = [Pair(text, [families.picture(size) for size in sizes]) for text, sizes in pairs]
    together = first.prepare(given_pairs)
    for b, pair in enumerate(given_pairs):
        alone = first.prepare([pair])
        n = int(alone.length_b[0])
        assert together.length_b[b] == n
        assert together.inputs["input_ids"][b, :n].tolist() == alone.inputs["input_ids"][0].tolist()
        assert together.modality_bs[b, :n].tolist() == alone.modality_bs[0].tolist()
        assert together.views[b] == alone.views[0]


def test_text_alone_is_read_and_run(first: Mllm) -> None:
    batch = first.prepare([Pair("the red dog"), Pair("two balls and a cat")])
    assert (batch.modality_bs == TEXT).any(axis=1).all() and not (batch.modality_bs == IMAGE).any()
    assert torch.isfinite(first.hidden(batch)).all()


@pytest.mark.parametrize("layer", [0, 2, 3])
def test_early_stop_gives_the_layers_own_output(folder: Path, whole: Mllm, layer: int) -> None:
    """Bit for bit as in the whole model, whether the upper layers are cut off or not loaded; padding and the
    absent mask change no token."""
    pairs = [
        Pair("the red dog", [families.picture(SIZES[0])]),
        Pair("a big blue cat on the left of two balls", [families.picture(SIZES[1])]),
        Pair("no picture here", []),
    ]
    cut = Mllm.load(folder, layer=layer, device="cpu")
    assert len(cut.decoder.layers) == layer + 1
    assert len(whole.decoder.layers) == family_parts.N_LAYERS
    batch = cut.prepare(pairs)
    whole.layer = layer
    with capture(whole.decoder_layer()) as caught, torch.inference_mode():
        whole.model(**whole.causal_inputs(batch), use_cache=False)
        whole.model(**batch.inputs, use_cache=False)
    hidden_bsd = cut.hidden(batch)
    assert hidden_bsd.shape == (3, batch.modality_bs.shape[1], family_parts.D_MODEL)
    assert torch.equal(hidden_bsd, caught[0])
    assert torch.equal(whole.hidden(batch), caught[0])
    for b, n in enumerate(batch.length_b):
        torch.testing.assert_close(caught[1][b, :n], caught[0][b, :n], rtol=1e-4, atol=1e-4)
    with_nll_bsd, nll_b = whole.hidden_and_nll(batch)
    assert torch.equal(with_nll_bsd, hidden_bsd) and np.isfinite(nll_b).all()


def test_a_deepstack_feature_is_added_behind_the_layers_own_output(tmp_path: Path) -> None:
    """Qwen3-VL: h is what the layer gives, before the picture's deeper features come on top at image tokens."""
    whole = Mllm.load(families.qwen3_vl(tmp_path), layer=0, full=True, device="cpu")
    batch = whole.prepare([Pair("the red dog", [families.picture(SIZES[0])])])
    taken: list[torch.Tensor] = []
    handle = whole.decoder.layers[1].register_forward_pre_hook(lambda module, args: taken.append(args[0]))
    with capture(whole.decoder_layer()) as caught, torch.inference_mode():
        whole.model(**batch.inputs)
    handle.remove()
    changed_bs = (taken[0] != caught[0]).any(dim=-1).numpy()
    assert np.array_equal(changed_bs, batch.modality_bs == IMAGE)
    assert torch.equal(whole.hidden(batch), caught[0])


def test_several_pictures_of_a_onevision_pair_lie_in_squares(tmp_path: Path) -> None:
    """Each is shown once, padded; what shows only padding is special, and boxes are right."""
    mllm = Mllm.load(families.llava_onevision(tmp_path), layer=0, device="cpu")
    size = SIZES[1]
    image, other = families.picture(size), families.picture(SIZES[2])
    batch = mllm.prepare([Pair("", [image, other])])
    assert [(v.rows, v.cols, v.image) for v in batch.views[0]] == [(4, 2, 0), (4, 4, 1)]
    patches = family_images.patches(batch.views[0][:1], size)
    shown = [image, *(family_images.noisy(image, box, 100 + p) for p, (_, box) in enumerate(patches))]
    seen_npd = family_images.embeddings(mllm, [[one, other] for one in shown])
    moved_np = (seen_npd[1:] - seen_npd[:1]).norm(dim=-1)
    assert moved_np.argmax(dim=-1).tolist() == list(range(len(patches)))


@pytest.mark.parametrize("family", families.TEXT_ONLY)
@pytest.mark.parametrize("layer", [0, 2, 3])
def test_early_stop_of_text_only_models(tmp_path: Path, family: str, layer: int) -> None:
    folder = families.text_only(tmp_path, family)
    pairs = [Pair("the red dog"), Pair("a big blue cat on the left of two balls")]
    whole = Mllm.load(folder, layer=layer, full=True, device="cpu")
    cut = Mllm.load(folder, layer=layer, device="cpu")
    assert (len(cut.decoder.layers), len(whole.decoder.layers)) == (layer + 1, family_parts.N_LAYERS)
    batch = cut.prepare(pairs)
    with capture(whole.decoder_layer()) as caught, torch.inference_mode():
        whole.model(**whole.causal_inputs(batch), use_cache=False)
        whole.model(**batch.inputs, use_cache=False)
    assert torch.equal(cut.hidden(batch), caught[0]) and torch.equal(whole.hidden(batch), caught[0])
    for b, n in enumerate(batch.length_b):
        torch.testing.assert_close(caught[1][b, :n], caught[0][b, :n], rtol=1e-4, atol=1e-4)
