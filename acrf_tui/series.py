"""The numbers of a run over its steps, as the charts need them: columns of float64, and totals per anchor."""

from __future__ import annotations

import math
import operator
from array import array
from collections.abc import Iterable, Sequence
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


@dataclass(frozen=True, slots=True)
class Marker:
    """Something that happened at a step. `kind`: set, checkpoint, preview, warning or attempt."""

    step: float
    kind: str
    text: str


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

    def absorb(self, other: AnchorTotals) -> None:
        """Count what another has counted."""
        self.resize(len(other.draws))
        for anchor, draws in enumerate(other.draws):
            self.draws[anchor] += draws
            self.loss_sum[anchor] += other.loss_sum[anchor]
            self.loss_count[anchor] += other.loss_count[anchor]

    def mean(self, anchor: int) -> float:
        """Mean unweighted loss of an anchor, NaN while there is none."""
        return self.loss_sum[anchor] / self.loss_count[anchor] if self.loss_count[anchor] else math.nan


BUCKETS = 64
"""Parts of the run that an anchor map tells apart, at most."""
FINEST = 4
"""Steps in a bucket, at least: a step draws only a few of the anchors, and finer ones would be mostly holes."""


@dataclass(slots=True)
class AnchorMap:
    """Draws and mean loss per anchor over the run: buckets of `width` steps, which double as the run grows.

    Bucket b holds the steps from b * width up to, not with, (b + 1) * width.
    """

    width: int = FINEST
    buckets: list[AnchorTotals] = field(default_factory=list)

    def add(self, step: int, anchors: Sequence[int], losses: Sequence[float]) -> None:
        """Count the pictures of a step (from 1)."""
        self._bucket(max(0, step)).add(anchors, losses)

    def load(self, rows: Iterable[tuple[int, int, int, int, float]]) -> None:
        """Start from rows of (first step, last step, anchor, draws, mean loss); NaN: none of the losses was finite.

        A row counts in the bucket of its middle step, and buckets begin as wide as the widest row.
        """
        found = sorted(rows)
        self.width = max(FINEST, max((last - first + 1 for first, last, *_ in found), default=0))
        self.buckets = []
        for first, last, anchor, draws, mean in found:
            totals = self._bucket(max(0, (first + last) // 2))
            known = math.isfinite(mean)
            totals.resize(anchor + 1)
            totals.draws[anchor] += draws
            totals.loss_count[anchor] += draws if known else 0
            totals.loss_sum[anchor] += mean * draws if known else 0.0

    def draws(self) -> int:
        """All draws."""
        return sum(sum(bucket.draws) for bucket in self.buckets)

    def mean(self, anchor: int, first: float, last: float) -> float:
        """Mean loss of an anchor over the buckets that touch the steps first..last; NaN where there is no draw."""
        begin = max(0, int(first // self.width))
        end = max(begin + 1, math.ceil(last / self.width))
        total, count = 0.0, 0
        for bucket in self.buckets[begin:end]:
            if anchor < len(bucket.draws):
                total += bucket.loss_sum[anchor]
                count += bucket.loss_count[anchor]
        return total / count if count else math.nan

    def _bucket(self, step: int) -> AnchorTotals:
        while step // self.width >= BUCKETS:
            self._double()
        index = step // self.width
        while len(self.buckets) <= index:
            self.buckets.append(AnchorTotals())
        return self.buckets[index]

    def _double(self) -> None:
        self.width *= 2
        pairs = [self.buckets[index : index + 2] for index in range(0, len(self.buckets), 2)]
        for pair in pairs:
            if len(pair) == 2:
                pair[0].absorb(pair[1])
        self.buckets = [pair[0] for pair in pairs]
