"""How often each visitor may ask the live model."""

import time
from collections.abc import Callable

MINUTE_S = 60.0
MANY = 1000
"""Visitors from which on those are forgotten who may ask as often as a new one."""


class Rates:
    """A number of requests a minute, the same for each visitor. As many may come at once; then one each time that a
    minute's share has passed (GCRA, ITU-T I.371).

    Args:
        per_minute: requests; 0 admits all.
        clock: seconds, rising.
    """

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.per_minute, self.clock = per_minute, clock
        self.free_at: dict[str, float] = {}
        """Visitor → time from which on it may again send a whole minute's requests at once."""

    def wait_s(self, visitor: str) -> float:
        """Seconds until the visitor's next request is admitted; 0 if it is admitted now."""
        if not self.per_minute:
            return 0.0
        time_s, share = self.clock(), MINUTE_S / self.per_minute
        return max(0.0, self.free_at.get(visitor, time_s) - time_s - (MINUTE_S - share))

    def count(self, visitor: str) -> None:
        """Take note of a request that was admitted."""
        if not self.per_minute:
            return
        time_s = self.clock()
        if len(self.free_at) >= MANY:
            self.free_at = {name: at for name, at in self.free_at.items() if at > time_s}
        self.free_at[visitor] = max(time_s, self.free_at.get(visitor, time_s)) + MINUTE_S / self.per_minute
