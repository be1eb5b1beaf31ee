"""Whether products may be computed in low precision, and how many rows were."""

from dataclasses import dataclass, field
from threading import Lock

from precompute.products.rounding import has_units


@dataclass
class Products:
    """What the products of one run share.

    Attributes:
        exact: compute all of them in float32. What is written is the same.
        rows: rows of products by the part of the program and the number type in which they were decided; for run.json.
    """

    exact: bool = False
    rows: dict[str, dict[str, int]] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock, repr=False, compare=False)

    @property
    def low(self) -> bool:
        """Whether this processor's bfloat16 units may be used."""
        return not self.exact and has_units()

    def count(self, part: str, kind: str, n: int) -> None:
        if not n:
            return
        with self._lock:
            kinds = self.rows.setdefault(part, {})
            kinds[kind] = kinds.get(kind, 0) + n

    def facts(self) -> dict[str, dict[str, int]]:
        """Rows by part: in `bfloat16`, in `float32`, and `float32_again` where the bound left too many candidates."""
        return {part: dict(sorted(kinds.items())) for part, kinds in sorted(self.rows.items())}
