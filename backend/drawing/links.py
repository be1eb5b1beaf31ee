"""Parts that a page repeats and that lead somewhere: names of features, cards, rows, as `parts` without links."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from markupsafe import Markup

from backend.drawing import parts
from backend.drawing.environment import escaped
from backend.drawing.figures import format_number, format_percent
from backend.drawing.text import display_caption, visible
from backend.links import sample_path

JSON_LINK = 'data-testid="json-link" title="This panel as JSON">JSON</a>'
MAX_BUTTON = Markup(
    '<button type="button" class="tool" data-max aria-pressed="false" title="Fill the window (Esc to close)" hidden>⤢'
    '<span class="sr"> maximise</span></button>'
)
Side = tuple[str, float | None]
"""A modality, and a share of p99.9."""


def fields_of(x: Any) -> Mapping[str, Any]:
    """The fields of a model, a named tuple or a dict: reading one costs a third of asking the object."""
    if isinstance(x, dict):
        return x
    fields: Mapping[str, Any] = x._asdict() if isinstance(x, tuple) else vars(x)  # type: ignore[attr-defined]
    return fields


class Linked:
    """Those of one page; `macros.html` gives them the names by which templates call them.

    Args:
        page: address of a page, with parameters. changed_address: of this page with changed ones.
        own_labels: what people named features, by number. has_images: whether the store has any.
    """

    def __init__(
        self,
        page: Callable[..., str],
        changed_address: Callable[..., str],
        own_labels: Mapping[int, str],
        has_images: bool = True,
    ) -> None:
        self.page, self.again, self.own_labels, self.has_images = page, changed_address, own_labels, has_images

    def why(self, word: str, anchor: str) -> Markup:
        """A link to what a word of the method means."""
        about = escaped(word)
        return Markup(
            f'<a class="why" href="{escaped(self.page("/method"))}#{escaped(anchor)}" title="What is {about}?" '
            f'aria-label="What is {about}?"></a>'
        )

    def json_link(self, url: str) -> Markup:
        """A panel as JSON."""
        return Markup(f'<a class="tool" href="{escaped(url)}" {JSON_LINK}')

    def max_button(self) -> Markup:
        """Makes a panel fill the window."""
        return MAX_BUTTON

    def name_text(self, f: Any) -> Markup:
        """The name of a feature, as `parts.name_text`."""
        fields = fields_of(f)
        return parts.name_text(fields, self.own_labels.get(fields["id"]))

    def feature_name(self, f: Any, link: bool = True) -> Markup:
        """The name of a feature and its number, which lead to it."""
        fields = fields_of(f)
        id = fields["id"]
        name = f'{parts.name_text(fields, self.own_labels.get(id))} <span class="feature-id">#{id}</span>'
        if not link:
            return Markup(f'<span class="label">{name}</span>')
        return Markup(f'<a class="label" href="{self._feature(id)}" data-feature="{id}">{name}</a>')

    def _feature(self, id: int) -> str:
        return escaped(self.page(f"/features/{id}"))

    def tag_chips(self, path: str, x: Any) -> Markup:
        """Tags and the reviewed mark of a feature or sample; each tag leads to its list."""
        fields = fields_of(x)
        tags, is_reviewed = fields.get("tags") or (), fields.get("reviewed")
        if not tags and not is_reviewed:
            return Markup()
        chips = "".join(
            f'<a class="chip" href="{escaped(self.page(path, tag=tag))}"><bdi>{escaped(tag)}</bdi></a>' for tag in tags
        )
        mark = '<span class="reviewed tiny">✓ reviewed</span>' if is_reviewed else ""
        return Markup(f' <span class="own-tags" data-testid="own-tags-shown">{chips}{mark}</span>')

    def preview_link(self, id: int, preview: Markup) -> Markup:
        """The images of a feature, which lead to it; its name beside them does so for keys and screen readers."""
        return Markup(
            f'<a class="thumbs" href="{self._feature(id)}" tabindex="-1" aria-hidden="true">{escaped(preview)}</a>'
        )

    def feature_card(self, f: Any, preview: Markup, words: str = "") -> Markup:
        """A feature with its preview, as a card."""
        fields = fields_of(f)
        id, figure = fields["id"], ""
        if isinstance(fields.get("agreement"), int | float):
            figure = f"<span>agreement</span> {format_number(fields['agreement'], 2)}"
        elif not words.strip():
            if isinstance(fields.get("place"), str):
                figure = escaped(fields["place"])
            elif isinstance(fields.get("lift"), int | float):
                figure = f"<span>lift of ω</span> {format_number(fields['lift'], 2)}"
        line = f'<div class="tiny both-words" data-testid="card-words">{escaped(words)}</div>' if words.strip() else ""
        return Markup(
            f'<li class="card feature" data-testid="feature-card" data-feature="{id}">\n'
            f"  {self.preview_link(id, preview)}\n  <div>{self.feature_name(fields)}</div>\n"
            f'{line}  <div class="meta">{parts.verdict(fields["verdict"])}<span class="num">{figure}</span></div>\n'
            "</li>"
        )

    def sample_link(self, s: Mapping[str, Any]) -> Markup:
        """The image of a sample, which leads to it."""
        if not s["url"] and not self.has_images:
            return Markup()
        content: str = '<span class="empty tiny">no image</span>'
        if s["url"]:
            content = parts.image(s["url"], f"Sample {visible(s['sample_id'])}", None, True, "square")
        return Markup(f'<a href="{escaped(self.page(sample_path(s["sample_id"])))}">{content}</a>')

    def sample_id_link(self, s: Mapping[str, Any]) -> Markup:
        """The id of a sample, which leads to it."""
        id = s["sample_id"]
        return Markup(
            f'<a href="{escaped(self.page(sample_path(id)))}" class="mono" title="{escaped(id)}">'
            f"<bdi>{escaped(visible(id))}</bdi></a>"
        )

    def sample_card(self, s: Mapping[str, Any], caller: Callable[[], str] | None = None) -> Markup:
        """A sample as pages/cards.sample_card has it; the template's own part comes last."""
        own_label, tags, footer = "", "", ""
        if s.get("own_label"):
            own_label = f'<div class="label"><bdi>{escaped(s["own_label"])}</bdi>{parts.BY_PERSON}</div>'
        if s.get("tags") or s.get("reviewed"):
            tags = f"<div>{self.tag_chips('/samples', s)}</div>"
        value = "" if s.get("value") is None else f'<span class="num">{format_number(s["value"], 3)}</span>'
        if s["reason"]:
            footer = f'<div class="tiny soft" dir="auto" data-testid="reason">{escaped(s["reason"])}</div>'
        elif s["flags"]:
            footer = f'<div class="tiny warn">{escaped(", ".join(s["flags"]))}</div>'
        return Markup(
            f'<li class="card" data-testid="sample-card" data-sample="{escaped(s["sample_id"])}">\n'
            f'  {self.sample_link(s)}\n  <div class="caption" dir="auto">{escaped(display_caption(s["text"]))}</div>\n'
            f'{own_label}{tags}  <div class="meta">{self.sample_id_link(s)}{value}</div>\n{footer}'
            f"{escaped(caller()) if caller else ''}</li>"
        )

    def hue(self, id: int, numbers: Sequence[int]) -> Markup:
        """The number of a chosen feature, in its hue, of several; a single one needs none."""
        if len(numbers) < 2 or id not in numbers:
            return Markup()
        at = numbers.index(id) + 1
        return Markup(f'<b class="no q{at}">{at}</b> ')

    def alike(self, ids: Sequence[int]) -> Markup:
        """The link to the list of features that are alike."""
        url = self.page("/features", ids=",".join(map(str, ids[:500])), fold="none")
        return Markup(
            f'<a class="alike tiny nowrap" href="{escaped(url)}" title="List them: features of one family or name" '
            f'data-testid="members">+{len(ids) - 1} alike</a>'
        )

    def pick_row(
        self,
        x: Any,
        sides: Iterable[Side],
        numbers: Sequence[int],
        toggle: Callable[[int], str | None],
        figure: str = "",
        effect: float | None = None,
    ) -> Markup:
        """A feature of a sample: the row selects it, the arrow opens its page.

        Args:
            sides: (side, share of p99.9, the length of a bar). numbers: of the chosen features.
            toggle: the chosen ones with or without this one, for the address.
        """
        fields = fields_of(x)
        id, with_value = fields["id"], [(side, value) for side, value in sides if value is not None]
        current = ' aria-current="true"' if id in numbers else ""
        alike_link = f" {self.alike(fields['members'])}" if fields.get("n_alike") else ""
        shares = " · ".join(
            f'<span class="{side}-side">{side} {format_percent(value, 0)}</span>' for side, value in with_value
        )
        bars = "".join(parts.share(value, side) for side, value in with_value)
        bars += parts.share(effect) if effect is not None else ""
        return Markup(
            f'<li class="feat pick-row" data-testid="sample-feature" data-feature="{id}"{current}>\n'
            f'  <span>{self.hue(id, numbers)}<a class="label cover" '
            f'href="{escaped(self.again(f=toggle(id), feature=None))}" data-swap="sample" '
            f'data-feature="{id}"{current}>{self.name_text(fields)}</a> '
            f'<span class="feature-id">#{id}</span>{alike_link}</span>\n'
            f'  <span class="num">{escaped(figure)}{shares}</span>\n'
            f'  <a class="go" href="{self._feature(id)}" aria-label="Open feature {id}" '
            f'title="Open the page of this feature">→</a>{bars}</li>'
        )
