"""The one exception that is meant for people."""


class SaevxError(Exception):
    """Something the user can put right; its text is one sentence that says what to do."""
