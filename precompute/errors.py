"""Errors that people read, and the sentences that several places raise."""

from collections.abc import Iterator
from pathlib import Path


class SaevxError(Exception):
    """Something the user can put right; its text is one sentence that says what to do."""


class PairError(SaevxError):
    """A pair that a model cannot be shown: as a row of data it is rejected with `reason`, sent to a running server it
    is refused with the sentence.

    Args:
        reason: a clause about the pair, such as "its text holds <image>".
        advice: what to do about it, if anything can be done.
    """

    def __init__(self, reason: str, advice: str = "") -> None:
        self.reason = reason
        sentence = f"The{reason[3:]}" if reason.startswith("its ") else reason[:1].upper() + reason[1:]
        super().__init__(f"{sentence}: {advice}." if advice else f"{sentence}.")


class ModelError(SaevxError):
    """The model itself fails where it is run, whatever it is asked."""


class PlaceError(SaevxError):
    """A place that cannot be written to, with the true cause (failures.py)."""


class Terminated(KeyboardInterrupt):
    """The system asked the process to end (SIGTERM), as Ctrl-C does."""


def causes(error: BaseException, *, explicit: bool = False) -> Iterator[BaseException]:
    """The error and what it came from, the last first.

    Args:
        explicit: leave out what was only being handled when the error came.
    """
    cause: BaseException | None = error
    ids: set[int] = set()
    while cause is not None and id(cause) not in ids:
        ids.add(id(cause))
        yield cause
        cause = cause.__cause__ or (None if explicit or cause.__suppress_context__ else cause.__context__)


def first_line(error: BaseException) -> str:
    """What an error says, short enough for a sentence of ours."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def checkout_only(subject: str) -> str:
    """The sentence for what only maintainers run, where it is missing, as it is in the wheel."""
    return f"{subject} is not part of the installed package: clone the repository and run `make setup` there."


def require_checkout(package: str, package_file: str, module: str) -> None:
    """End the process with one sentence where a package of maintainers' modules lacks them, as in the wheel.

    Args:
        package: its `__name__`.
        package_file: its `__file__`.
        module: file name of one of its modules.
    """
    if not Path(package_file).with_name(module).is_file():
        raise SystemExit(checkout_only(package))
