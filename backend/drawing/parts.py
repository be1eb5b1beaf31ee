"""Parts that a page repeats, without links: images with activations, tokens, bars. In Python, since a macro of Jinja
takes five times as long, and a page has hundreds of them; `tests/backend/drawing/macros.html` has each as a macro.

Texts, names and addresses are escaped where they are put in. What stands beside them unescaped is written in this file,
or is a number."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from markupsafe import Markup

from backend.drawing.charts import Bar, SmallMap, bar_rects
from backend.drawing.environment import escaped
from backend.drawing.figures import format_number, width_of
from backend.drawing.heat import Heat, HeatImage, TokenRun
from backend.drawing.text import visible
from precompute.store.schema import GOOD_NAME, POSSIBLE_NAME

VERDICT_HELP = {
    "cross-modal": "It fires on the text and the image of the same pair at least three times as often as with captions "
    "exchanged, also where the text is read without its image.",
    "in-context": "It fires on both sides of the same pair, but not where the text is read without its image: "
    "attention carried it over.",
    "weakly-paired": "It fires on both sides of the same pair more often than by chance, but less than three times "
    "as often.",
    "unpaired": "It fires on texts and on images, but not on both sides of the same pair more often than by chance.",
    "mostly-text": "Too few samples have it on the image to test it.",
    "mostly-image": "Too few samples have it on the text to test it.",
    "rare": "Too few samples have it on either side to test it.",
    "text-only": "It fires strongly on text only.",
    "image-only": "It fires strongly on image patches only.",
    "dead": "It is active on no token of this data.",
}
"""Every verdict in the order of the pages, with its meaning."""


def verdict(name: str | None) -> Markup:
    """A verdict with its meaning."""
    text = escaped(name)
    return Markup(f'<span class="verdict {text}" title="{escaped(VERDICT_HELP.get(name or "", ""))}">{text}</span>')


def by_person() -> Markup:
    """Marks a name as one that a person gave."""
    return BY_PERSON


BY_PERSON = Markup(
    '<i class="by-person" role="img" aria-label="named by a person" title="A person\'s name, from the notes"></i>'
)


def name_text(f: Mapping[str, Any], own_label: str | None) -> Markup:
    """The name with a dot for its score; where it fails its test, the evidence in words and the name as a guess in
    grey, if it is above chance. Its twin for scripts: dom.js, nameOf.

    Args:
        f: fields of a feature. own_label: the label that a person gave it.
    """
    label, score = f["label"], f.get("label_score")
    if own_label:
        automatic = f'<span class="weak" title="The automatic name"><bdi>{escaped(label)}</bdi></span>'
        return Markup(f"<bdi>{escaped(own_label)}</bdi>{BY_PERSON}{' ' + automatic if label else ''}")
    if label and isinstance(score, int | float) and score >= GOOD_NAME:
        figure = format_number(score, 2)
        step = int(figure.replace(".", "")) // 10  # of the figure, so that the dot of 0.80 is that of .8
        return Markup(
            f'<bdi>{escaped(label)}</bdi><i class="name-score s{step}" role="img" aria-label="name score '
            f'{figure}" title="Score of this name on samples that it was not chosen on: {figure} (.5 is chance)"></i>'
        )
    if f.get("description"):
        guess = ""
        if label and isinstance(score, int | float) and score >= POSSIBLE_NAME:
            guess = (
                f' <span class="weak" title="A guess that failed its test: name score {format_number(score, 2)} on '
                f'samples that it was not chosen on (.5 is chance)">perhaps <bdi>{escaped(label)}</bdi></span>'
            )
        return Markup(f"<bdi>{escaped(f['description'])}</bdi>{guess}")
    return Markup(f"<bdi>{escaped(label or 'unlabelled')}</bdi>")


def place_map(p: SmallMap) -> Markup:
    """The mean activation of a feature by place in the image, from drawing/charts.place_map."""
    title = escaped(p.title)
    paths = "".join(f'<path class="k{level}" d="{escaped(d)}"/>' for level, d in p.paths)
    return Markup(
        f'<svg class="places place-map" viewBox="0 0 {p.columns} {p.rows}" role="img" aria-label="{title}">'
        f"<title>{title}</title>{paths}</svg>"
    )


def share(value: float | None, kind: str = "") -> Markup:
    """A bar of a share, 0 to 1."""
    return Markup(
        f'<svg class="share {escaped(kind)}" viewBox="0 0 100 4" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect width="100" height="4"/><rect width="{width_of(value)}" height="4"/></svg>'
    )


def image(url: str, alt: str, heat: Heat | None = None, lazy: bool = True, cls: str = "") -> Markup:
    """An image with its heat over it: one path per level, in pixels of the image."""
    lazily = ' loading="lazy" decoding="async"' if lazy else ""
    size = f' width="{int(heat.width)}" height="{int(heat.height)}"' if heat else ""
    markup = f'<span class="pic {escaped(cls)}"><img src="{escaped(url)}" alt="{escaped(alt)}"{lazily}{size}>'
    if heat:
        markup += (
            f'<svg class="heat" viewBox="0 0 {escaped(heat.width)} {escaped(heat.height)}" '
            'preserveAspectRatio="xMidYMid slice" aria-hidden="true">'
        )
        markup += "".join(f'<path class="h{level}" d="{escaped(d)}"/>' for level, d in heat.paths)
        for line, (cls_below, cls_above) in ((heat.edge, ("edge case", "edge")), (heat.peak, ("case", "peak"))):
            if line:
                d = escaped(line)
                markup += f'<path class="{cls_below}" d="{d}"/><path class="{cls_above}" d="{d}"/>'
        markup += "</svg>"
    return Markup(markup + "</span>")


def tokens(runs: Iterable[TokenRun], peak: int | None = None) -> Markup:
    """Tokens of a window; `peak` is the position of the one to mark."""
    markup = ""
    for run in runs:
        text = escaped(run.text)
        if run.level:
            mark = " peak" if run.position == peak else ""
            text = f'<span class="tok a{run.level}{mark}" title="{format_number(run.value, 2)}">{text}</span>'
        markup += " " + text if run.spaced else text
    return Markup(f'<span class="tokens">{markup}</span>')


def hist(
    bars: Sequence[Bar],
    label: str,
    mark: float | None = None,
    cls: str = "b",
    cls_over: str = "over",
    own_x: float | None = None,
) -> Markup:
    """A bar chart from drawing/charts.chart(): heights in percent; bars below and above the mark have a class each."""
    markup = (
        f'<svg class="hist" viewBox="0 0 {max(len(bars), 1) * 4} 104" preserveAspectRatio="none" role="img" '
        f'aria-label="{escaped(label)}">{bar_rects(tuple(bars), cls, cls_over)}'
        f'<line x1="0" x2="{len(bars) * 4}" y1="100.5" y2="100.5"/>'
    )
    if mark is not None:
        markup += f'<line class="mark" data-mark x1="{mark}" x2="{mark}" y1="0" y2="100"/>'
    if own_x is not None:
        markup += f'<line class="own" x1="{own_x}" x2="{own_x}" y1="-4" y2="104"><title>Your own</title></line>'
    return Markup(markup + "</svg>")


def preview(images: Sequence[HeatImage], words: Sequence[str]) -> Markup:
    """The preview of a feature in a list; pages/previews.previews caches it."""
    parts = [image(heat_image.url, "", heat_image.heat) for heat_image in images]
    parts = parts or [Markup(f'<bdi class="word">{escaped(word)}</bdi>') for word in words]
    return Markup("".join(parts) or '<span class="tiny soft">not active</span>')


def top_words(words: Mapping[str, Mapping[str, Any] | None]) -> Markup:
    """Both sides of a feature in a word each, from store.top_words; pages/previews.word_lines caches it."""
    return Markup(
        "".join(
            f'<span class="nowrap {side}-side">{side} <mark class="word {side}"><bdi>{escaped(visible(word["word"]))}'
            f"</bdi></mark> {escaped(word['n'])}/{escaped(word['of'])}</span> "
            for side, word in words.items()
            if word
        )
    )
