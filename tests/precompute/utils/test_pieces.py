"""Tokens that hold parts of characters: told apart alone, put together in a row."""

from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from precompute.utils.token_text import (
    NEIGHBOURS,
    bytes_of_text,
    bytes_of_token,
    has_marks,
    join,
    mark,
    text_of_bytes,
    text_of_token,
    whole_token,
)
from tests.helpers.tiny import tokenizer

texts = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from("猫é🙂⟨⟩7E \n"), max_size=12)


@given(st.binary(max_size=8))
def test_bytes_as_text_and_back(raw: bytes) -> None:
    assert bytes_of_text(text_of_bytes(raw)) == raw
    assert "\ufffd" not in text_of_bytes(raw) or "\ufffd".encode() in raw


@given(texts, st.data())
def test_any_cut_of_a_text_joins_to_it(text: str, data: st.DataObject) -> None:
    raw = text.encode()
    cuts = sorted(data.draw(st.sets(st.integers(1, max(len(raw) - 1, 1))))) if raw else []
    parts = [raw[low:high] for low, high in zip([0, *cuts], [*cuts, len(raw)], strict=True)]
    pieces = [text_of_bytes(part) for part in parts]
    if any(has_marks(piece) != has_marks(text_of_bytes(bytes_of_text(piece))) for piece in pieces):
        return  # the text itself has marks
    joined = join(pieces)
    if not has_marks(text):
        assert joined.text == text
    begins = [i for i in range(len(raw)) if raw[i] & 0xC0 != 0x80] + [len(raw)]
    at = 0
    for i, part in enumerate(parts):
        held = {c for c in range(len(text)) if begins[c] < at + len(part) and begins[c + 1] > at}
        if not has_marks(text):
            assert joined.characters(i) == "".join(text[c] for c in sorted(held))
            assert whole_token(pieces, i) == joined.characters(i)
            low = max(0, i - NEIGHBOURS)
            assert whole_token(pieces[low : i + NEIGHBOURS + 1], i - low) == joined.characters(i)
            assert joined.visible[i] or not part
        at += len(part)


def test_the_first_token_shows_the_character_and_the_others_their_bytes() -> None:
    pieces = [" ⟨E7⟩", "⟨8C⟩⟨AB⟩ s", "at", "⟨FF⟩", "⟨E7⟩"]
    assert join(pieces).visible == [" 猫", "⟨8C⟩⟨AB⟩ s", "at", "⟨FF⟩", "⟨E7⟩"]
    assert join(pieces).text == " 猫 sat⟨FF⟩⟨E7⟩"
    assert [whole_token(pieces, i) for i in range(5)] == [" 猫", "猫 s", "at", "⟨FF⟩", "⟨E7⟩"]
    assert join([]).text == "" and join(["", "a"]).visible == ["", "a"]


def test_every_token_of_a_byte_level_vocabulary_is_itself() -> None:
    words = tokenizer()
    entries = words.convert_ids_to_tokens(list(range(len(words))))
    result = [text_of_token(one, words.convert_tokens_to_string) for one in entries]
    assert len(set(result)) == len(result) and not any("\ufffd" in one for one in result)
    assert " dog" in result and "<image>" in result and mark(b"\xe7") in result
    for text in ("a red dog\n\n", "一只猫 🙂", "café", "\ufffd"):
        ids = words(text, add_special_tokens=False)["input_ids"]
        assert join([result[i] for i in ids]).text == text


def test_byte_fallback_of_sentencepiece() -> None:
    vocab = {"<unk>": 0, "▁": 1, "a": 2} | {f"<0x{byte:02X}>": byte + 3 for byte in range(256)}
    inner = Tokenizer(models.BPE(vocab=vocab, merges=[], unk_token="<unk>", byte_fallback=True))
    inner.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    to_string = PreTrainedTokenizerFast(tokenizer_object=inner).convert_tokens_to_string
    assert text_of_token("▁", to_string) == " "
    assert text_of_token("<0x0A>", to_string) == "\n"
    assert text_of_token("<0xE7>", to_string) == "⟨E7⟩"
    assert join([text_of_token(f"<0x{byte:02X}>", to_string) for byte in "猫".encode()]).text == "猫"


def test_what_is_no_piece_of_bytes() -> None:
    assert bytes_of_token("<0xE7>") == b"\xe7" and bytes_of_token("Ġdog") == b" dog"
    assert bytes_of_token("猫") is None
