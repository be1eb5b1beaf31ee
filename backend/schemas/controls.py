"""The controls of a store's verdicts."""

from pydantic import FiniteFloat

from backend.schemas.common import Model


class PassRate(Model):
    """How many of what was tested passes."""

    tested: int
    passed: float
    """A mean, for a control that was repeated."""
    share: FiniteFloat | None
    """passed / tested; null where nothing was tested."""
    low: FiniteFloat | None
    """Lower end of Wilson's 95 % interval; the smallest share, for a control that was repeated."""
    high: FiniteFloat | None


class Control(PassRate):
    """The test behind `cross-modal` where it ought to fail."""

    name: str
    """derangements, random-directions or text-alone."""
    title: str
    own: FiniteFloat | None
    """Share of the store's features that passes the same test on the same pairs."""
    note: str
    """What was done, or why this control was left out."""


class Controls(Model):
    """The content of STORE.controls.json."""

    seed: int
    cross_modal: PassRate
    """The store's features with this verdict, of those that could be tested."""
    controls: list[Control]


class ControlsReport(Model):
    """The controls of the store's verdicts, where they were measured."""

    controls: Controls | None
    """Null where they were not."""
    command: str
    """What measures them."""
    note: str | None = None
    """Why a file beside the store is not shown."""
