from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers.processors import TemplateProcessing
from transformers import CLIPConfig

from precompute.errors import PairError, SaevxError
from precompute.model.batch import IMAGE, SPECIAL, TEXT, Batch, Pair
from precompute.model.loading import pick_device
from precompute.model.mllm import Mllm
from tests.helpers import tiny
from tests.helpers.tinies import Tiny

PAIRS = [
    Pair("the red dog", [tiny.picture(0)]),
    Pair("a big blue cat on the left of two balls", [tiny.picture(1, (60, 40))]),
    Pair("", [tiny.picture(2)]),
    Pair("no picture here", []),
]


def texts(mllm: Mllm, batch: Batch, b: int, kind: int) -> str:
    ids = batch.inputs["input_ids"][b].numpy()[batch.modality_bs[b] == kind]
    return "".join(mllm.token_text(int(i)) for i in ids)


def test_every_token_has_its_modality(mllm: Mllm) -> None:
    batch = mllm.prepare(PAIRS)
    assert mllm.template == "<s>USER: <image>\n{text}"
    for b, pair in enumerate(PAIRS):
        assert texts(mllm, batch, b, TEXT) == pair.text
        assert (batch.modality_bs[b] == IMAGE).sum() == 16 * len(pair.images)
        head = texts(mllm, batch, b, SPECIAL).removesuffix("<pad>" * (35 - int(batch.length_b[b])))
        assert head == ("<s>USER: \n" if pair.images else "<s>USER: ")
        assert (batch.modality_bs[b, batch.length_b[b] :] == SPECIAL).all()
    assert [len(views) for views in batch.views] == [1, 1, 1, 0]
    assert batch.views[1][0].box == (10, 0, 50, 40)


def test_a_text_cannot_pass_for_the_template(mllm: Mllm) -> None:
    batch = mllm.prepare([Pair("USER: </s> the dog", [tiny.picture(0)])])
    assert texts(mllm, batch, 0, TEXT) == "USER:  the dog"  # the end mark inside it is a special token
    with pytest.raises(SaevxError, match="mark for an image"):
        mllm.prepare([Pair("two <image> here", [tiny.picture(0)])])


def test_a_begin_token_in_one_text_does_not_change_the_others(tmp_path: Path) -> None:
    """A tokenizer that puts <s> before every text puts it before one that begins with <s> too, and alone as beside."""
    folder = tiny.make_llama(tmp_path)
    words = tiny.tokenizer()
    words.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    words.save_pretrained(folder)
    llama = Mllm.load(folder, layer=0, device="cpu")
    together = llama.prepare([Pair("<s> a dog"), Pair("a cat")])
    for b, text in enumerate(["<s> a dog", "a cat"]):
        alone = llama.prepare([Pair(text)])
        ids = alone.inputs["input_ids"][0].tolist()
        assert ids == together.inputs["input_ids"][b, : len(ids)].tolist()
        assert ids.count(1) == 1 + text.count("<s>")


def test_a_pair_longer_than_the_context_is_refused(mllm: Mllm) -> None:
    assert mllm.context == 256
    with pytest.raises(PairError, match="more than the model's context of 256: shorten it") as refused:
        mllm.prepare([Pair("a dog " * 150, [tiny.picture(0)])])
    assert refused.value.reason.startswith("it has 3")


def test_what_the_processor_refuses_is_a_sentence(mllm: Mllm, monkeypatch: pytest.MonkeyPatch) -> None:
    def choke(**_: object) -> None:
        raise IndexError("list index out of range\nand more")

    monkeypatch.setattr(mllm, "processor", choke)
    with pytest.raises(PairError, match=r"^The model's processor refuses it \(list index out of range\)\.$"):
        mllm.prepare([Pair("a dog", [tiny.picture(0)])])


def test_generation_prompt(mllm: Mllm) -> None:
    batch = mllm.prepare(PAIRS[:1], generate=True)
    assert mllm.tokenizer.decode(batch.inputs["input_ids"][0]).endswith("the red dog ASSISTANT:")
    assert texts(mllm, batch, 0, TEXT) == "the red dog"


def test_a_model_without_chat_template(tmp_path: Path) -> None:
    mllm = Mllm.load(tiny.make_llava(tmp_path, template=None), layer=0, device="cpu")
    assert mllm.template == "<image>\n{text}"
    assert texts(mllm, mllm.prepare(PAIRS), 1, TEXT) == PAIRS[1].text


def test_hidden_is_the_layers_own_output(mllm: Mllm, whole: Mllm) -> None:
    """Bit for bit as in the whole model, and padding changes no token."""
    batch = mllm.prepare(PAIRS)
    hidden_bsd = mllm.hidden(batch)
    assert len(mllm.decoder.layers) == tiny.LAYER + 1 and len(whole.decoder.layers) == tiny.N_LAYERS
    assert torch.equal(hidden_bsd, whole.hidden(batch))
    assert len(whole.decoder.layers) == tiny.N_LAYERS  # put back
    with torch.inference_mode():
        out = whole.model(**batch.inputs, output_hidden_states=True)
    right = out.hidden_states[tiny.LAYER + 1]
    for b, n in enumerate(batch.length_b):
        torch.testing.assert_close(hidden_bsd[b, :n], right[b, :n], rtol=1e-5, atol=1e-5)


def test_the_last_layer_is_read_before_the_final_norm(tiny_files: Tiny) -> None:
    last = Mllm.load(tiny_files.model, layer=tiny.N_LAYERS - 1, full=True, device="cpu")
    batch = last.prepare(PAIRS[:1])
    hidden_bsd = last.hidden(batch)
    with torch.inference_mode():
        normed = last.model.model(**batch.inputs).last_hidden_state
        torch.testing.assert_close(last.decoder.norm(hidden_bsd), normed)
    assert not torch.allclose(hidden_bsd, normed)


def test_caption_nll(mllm: Mllm, whole: Mllm) -> None:
    batch = whole.prepare(PAIRS)
    hidden_bsd, nll_b = whole.hidden_and_nll(batch)
    assert torch.equal(hidden_bsd, whole.hidden(batch))
    with torch.inference_mode():
        logits = whole.model(**batch.inputs).logits.double().log_softmax(-1)
    for b in (0, 1, 3):
        at = np.flatnonzero(batch.modality_bs[b] == TEXT)
        ids = batch.inputs["input_ids"][b, at]
        right = -logits[b, at - 1].gather(1, ids[:, None]).mean()
        assert nll_b[b] == pytest.approx(float(right), rel=1e-5)
    assert np.isnan(nll_b[2])
    before = torch.backends.mkldnn.matmul.fp32_precision
    quick_bsd, quick_b = whole.hidden_and_nll(batch, quick=True)
    assert torch.equal(quick_bsd, hidden_bsd) and torch.backends.mkldnn.matmul.fp32_precision == before
    np.testing.assert_allclose(quick_b, nll_b, rtol=1e-2)
    with pytest.raises(SaevxError, match="whole model"):
        mllm.hidden_and_nll(batch)


def test_text_only_model(tmp_path: Path) -> None:
    mllm = Mllm.load(tiny.make_llama(tmp_path), layer=1, device="cpu")
    batch = mllm.prepare([Pair("the red dog"), Pair("a")])
    assert batch.modality_bs.tolist()[0] == [TEXT] * batch.modality_bs.shape[1]
    assert mllm.hidden(batch).shape[-1] == tiny.D_MODEL
    with pytest.raises(SaevxError, match="text only"):
        mllm.prepare(PAIRS)


def test_words_and_logit_lens(mllm: Mllm, whole: Mllm) -> None:
    words = mllm.vocabulary()
    assert " dog" in words and len(words) == mllm.model.get_input_embeddings().weight.shape[0]
    weight_d, unembed_vd = mllm.logit_lens_weights()
    assert weight_d is not None
    torch.testing.assert_close(weight_d, whole.decoder.norm.weight.float(), rtol=1e-4, atol=1e-5)
    assert torch.equal(unembed_vd, whole.model.lm_head.weight)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer": 4}, "layers 0 to 3, not 4"),
        ({"layer": 1, "device": "nonsense"}, "cannot be used"),
        ({"layer": 1, "dtype": "int4"}, "not known"),
    ],
)
def test_wrong_options_are_told_in_a_sentence(tiny_files: Tiny, options: dict[str, object], message: str) -> None:
    with pytest.raises(SaevxError, match=message):
        Mllm.load(tiny_files.model, **options)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="no option 'devices': use device, dtype"):
        Mllm.load(tiny_files.model, layer=1, devices="cpu")  # type: ignore[call-arg]


def test_what_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(SaevxError, match="transformers folder"):
        Mllm.load(tmp_path, layer=0)
    CLIPConfig().save_pretrained(tmp_path)
    with pytest.raises(SaevxError):
        Mllm.load(tmp_path, layer=0)


@pytest.mark.parametrize(("cuda", "picked"), [(True, "cuda"), (False, "cpu")])
def test_a_device_that_nobody_named(cuda: bool, picked: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Never an Apple GPU, on which the pass was not tried."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert pick_device("auto") == picked
