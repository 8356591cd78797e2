"""The anchor-balanced loss: readable where the raw loss only shows which anchors a step happened to draw."""

from __future__ import annotations

import math
from dataclasses import dataclass

WINDOW = 10


@dataclass
class AnchorBalance:
    """Per anchor a running mean of the unweighted loss; the balanced loss is the mean over the anchors seen so far.

    The running mean is the plain mean of an anchor's first 10 draws, and from then on moves by a tenth of each new one.
    """

    means: list[float]
    draws: list[int]

    @classmethod
    def of(cls, anchors: int) -> AnchorBalance:
        return cls([0.0] * anchors, [0] * anchors)

    def add(self, anchor: int, loss: float) -> None:
        self.draws[anchor] += 1
        self.means[anchor] += (loss - self.means[anchor]) / min(self.draws[anchor], WINDOW)

    def value(self) -> float:
        """NaN before the first draw."""
        seen = [mean for mean, draws in zip(self.means, self.draws, strict=True) if draws]
        return sum(seen) / len(seen) if seen else math.nan
