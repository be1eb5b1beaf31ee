"""A chat template may loop for ever, fill the memory or reach for Python's internals: it is cut off."""

import os
import time
from pathlib import Path

import pytest

from precompute.errors import PairError, SaevxError
from precompute.model.batch import Pair
from precompute.model.chat_template import WORKER, TemplateError, render
from precompute.model.mllm import Mllm
from tests.helpers import tiny
from tests.helpers.hostile.templates import CASES, FAILS, PLAIN, TemplateCase
from tests.helpers.tinies import Tiny

MESSAGES = [{"role": "user", "content": "a"}]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_hostile_templates_end(case: TemplateCase, tmp_path: Path) -> None:
    begin, size = time.process_time(), os.times()
    try:
        template = case.template.replace("{marker}", str(tmp_path / "ran"))
        text = render(template, MESSAGES, generate=False)
        assert PLAIN in case.must and "class" not in text and "<" not in text, text
    except TemplateError:
        assert FAILS in case.must
    except SaevxError as error:
        assert any(words and words in str(error) for words in case.must), error
        assert str(error).endswith("mend its chat_template, or choose another model.")
    assert not (tmp_path / "ran").exists()
    assert time.process_time() - begin < 5 and os.times().children_user - size.children_user < 10


def test_what_is_rendered_is_what_transformers_renders(tiny_files: Tiny) -> None:
    mllm = Mllm.load(tiny_files.model, layer=tiny.LAYER, device="cpu")
    for n in (0, 1, 3):
        content = [*[{"type": "image"}] * n, {"type": "text", "text": "{}"}]
        for generate in (False, True):
            own = mllm.processor.apply_chat_template(
                [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=generate
            )
            assert "{}".join(mllm._template_parts(n, generate)) == own


def test_a_worker_that_ended_is_started_again() -> None:
    first = WORKER.start()
    first.kill()
    first.wait()
    assert render("{{ messages[0].content }}{# a template of its own #}", MESSAGES, generate=False) == "a"
    assert WORKER.start().pid != first.pid


def test_a_pair_that_the_template_does_not_take_is_refused_alone(tmp_path: Path) -> None:
    """A template may have a sentence of its own against several images."""
    template = "{% if messages[0].content|length > 2 %}{{ raise_exception('one image at most') }}{% endif %}<image>"
    template += "{% for part in messages[0].content %}{{ part.text }}{% endfor %}"
    mllm = Mllm.load(tiny.make_llava(tmp_path / "m", template=template), layer=tiny.LAYER, device="cpu")
    images = [tiny.picture(i) for i in range(2)]
    assert mllm.prepare([Pair("a red dog", images[:1])]).length_b.tolist()
    with pytest.raises(PairError, match="one image at most"):
        mllm.prepare([Pair("a red dog", images)])
