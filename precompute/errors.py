"""What people are told when something is wrong."""


class SaevxError(Exception):
    """Something the user can put right; its text is one sentence that says what to do."""


class PlaceError(SaevxError):
    """A place that cannot be written to, with the true cause (failures.py)."""


class Terminated(KeyboardInterrupt):
    """The system asked the process to end (SIGTERM), as Ctrl-C does."""


def first_line(error: BaseException) -> str:
    """What an error says, short enough for a sentence of ours."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
