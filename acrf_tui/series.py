"""The numbers of a run over its steps, as the charts need them: columns of float64, and totals per anchor."""

from __future__ import annotations

import math
import operator
from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice


def _column() -> array[float]:
    return array("d")


@dataclass(slots=True)
class SeriesColumns:
    """What the charts draw, one value a step, in step order. NaN where a number was not finite."""

    step: array[float] = field(default_factory=_column)
    loss: array[float] = field(default_factory=_column)
    loss_balanced: array[float] = field(default_factory=_column)
    loss_char: array[float] = field(default_factory=_column)
    loss_cos: array[float] = field(default_factory=_column)
    loss_fft: array[float] = field(default_factory=_column)
    lr: array[float] = field(default_factory=_column)
    grad_norm: array[float] = field(default_factory=_column)

    def __len__(self) -> int:
        return len(self.step)

    def cut(self, length: int) -> None:
        """Forget everything from index `length` on."""
        for name in self.__slots__:
            del getattr(self, name)[length:]

    def drop_repeated_steps(self) -> None:
        """After a resume from an older checkpoint some steps were made twice: the later one counts."""
        step = self.step
        if all(map(operator.lt, step, islice(step, 1, None))):
            return
        keep: list[int] = []
        for index, value in enumerate(step):
            while keep and step[keep[-1]] >= value:
                keep.pop()
            keep.append(index)
        if len(keep) < len(step):
            for name in self.__slots__:
                values = getattr(self, name)
                setattr(self, name, array("d", (values[index] for index in keep)))


@dataclass(slots=True)
class AnchorTotals:
    """How often each anchor was drawn, and the sum of its finite losses."""

    draws: list[int] = field(default_factory=list)
    loss_sum: list[float] = field(default_factory=list)
    loss_count: list[int] = field(default_factory=list)

    def resize(self, count: int) -> None:
        """Make room for `count` anchors, keeping what is there."""
        missing = count - len(self.draws)
        self.draws.extend([0] * missing)
        self.loss_sum.extend([0.0] * missing)
        self.loss_count.extend([0] * missing)

    def add(self, anchors: Iterable[int], losses: Iterable[float]) -> None:
        """Count the pictures of a step."""
        for anchor, loss in zip(anchors, losses, strict=False):
            if anchor < 0:
                continue
            self.resize(anchor + 1)
            self.draws[anchor] += 1
            if math.isfinite(loss):
                self.loss_sum[anchor] += loss
                self.loss_count[anchor] += 1

    def mean(self, anchor: int) -> float:
        """Mean unweighted loss of an anchor, NaN while there is none."""
        return self.loss_sum[anchor] / self.loss_count[anchor] if self.loss_count[anchor] else math.nan
