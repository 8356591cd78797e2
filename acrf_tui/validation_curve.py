"""The validation losses of a run over its steps."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from typing import NamedTuple


class ValidationCurve(NamedTuple):
    """Points in step order, one a step. A loss is NaN where it was not finite."""

    steps: array[float]
    losses: array[float]

    @classmethod
    def empty(cls) -> ValidationCurve:
        return cls(array("d"), array("d"))

    def add(self, step: int, loss: float) -> None:
        """A point measured now: what was known of this step and of later ones is forgotten."""
        self.cut_after(step - 1)
        self.steps.append(float(step))
        self.losses.append(loss)

    def cut_after(self, step: int) -> None:
        """Forget the points of later steps."""
        length = bisect_right(self.steps, step)
        del self.steps[length:], self.losses[length:]
