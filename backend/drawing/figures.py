"""Figures as pages write them."""

import math

FIGURE_TITLES = {
    "match": "match, evidence",
    "evidence": "evidence",
    "agreement": "agreement",
    "agreement_low": "agreement, lower end",
    "label_score": "name score",
    "pair_lift": "pair lift",
    "pair_lift_low": "pair lift, lower end",
    "pair_lift_alone": "pair lift, text alone",
    "place_share": "share of one place",
    "lift": "lift of ω",
    "omega": "ω",
    "omega_centred": "ω centred",
    "lift_without_self": "lift without self",
    "density_text": "density on text",
    "density_image": "density on images",
    "max_activation": "largest activation",
    "n_samples": "samples",
    "modality_share": "modality share",
    "same_sample_rate": "same-sample rate",
    "hallucination": "separation of hallucinated answers",
    "id": "number",
}
"""What pages call the figures by which features can be sorted, in the order of the choice."""


def heading(figure: str) -> str:
    """The title of a figure with a capital; not ω, which is a symbol."""
    title = FIGURE_TITLES[figure]
    return title if title.startswith("ω") else title[0].upper() + title[1:]


def with_minus(text: str) -> str:
    """A figure with true minus signs."""
    return text.replace("-", "−")


def format_signed(value: float, digits: int) -> str:
    """The value with a fixed number of decimals, and a sign also where it is positive."""
    return with_minus(f"{value:+.{digits}f}")


# A page has hundreds of numbers; filters cost a tenth of the time of macros.
def format_number(value: float | None, digits: int = 3) -> str:
    """The value with a fixed number of decimals, for people (a true minus sign); a dash for None and NaN."""
    if value is None or value != value:
        return "–"
    return f"{value:.{digits}f}" if value > 0 else f"−{-value:.{digits}f}" if value else "0"


def format_count(value: int | None) -> str:
    """A whole number with commas; a dash for None."""
    return "–" if value is None else f"{value:,}"


def with_noun(n: int, noun: str) -> str:
    """A number of things, such as "1 sample"."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def format_figure(value: float | None) -> str:
    """A count as a whole number with commas; another value with three decimals, from 10 on with one. Else a dash."""
    if value is None or abs(value) < 10 or value != value:
        return format_number(value)
    return format_count(int(value)) if value == int(value) else format_number(value, 1)


def format_percent(value: float | None, digits: int = 1) -> str:
    """A share as a percentage; a dash for None."""
    if value is None:
        return "–"
    if value == 0:
        return "0 %"
    return f"{format_significant(value * 100, 2)} %" if value < 0.001 else f"{value * 100:.{digits}f} %"


def format_significant(value: float, digits: int = 3) -> str:
    """The value with this many significant digits, and true minus signs."""
    return with_minus(f"{value:.{digits}g}")


def format_short(value: float) -> str:
    """The value in few characters, such as 6.74e−5; whole numbers in full."""
    return with_minus(f"{value:.0f}" if value == int(value) else f"{value:.3g}".replace("e-0", "e-"))


def width_of(value: float | None) -> str:
    """Length of a bar for a share: 100 for 1."""
    return f"{100 * max(0, min(1, value or 0)):.1f}"


def log_share(density: float) -> float:
    """A density on a logarithmic scale: 0 for 1 in 100,000 and less, 1 for all tokens."""
    return max(0.0, 1 + math.log10(density) / 5) if density > 0 else 0.0
