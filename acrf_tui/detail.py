"""The part of a long run's older steps that is shown in full, while the rest of them is condensed."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from acrf_tui.series import SeriesColumns

if TYPE_CHECKING:
    from acrf_engine.run.columns import StepColumns

DETAIL_STEPS = 65_536
"""No more steps than these are put in; over more of them a chart draws the same from the condensed ones."""


@dataclass(slots=True)
class Detail:
    """Puts the steps of one window into the series, in the place of their condensed rows, and takes them out again."""

    exact_from: float = 0.0
    """From this step on the series holds every step."""
    first: float = 0.0
    last: float = -1.0
    """The window that is in the series in full."""
    _condensed: SeriesColumns = field(default_factory=SeriesColumns)
    """The rows in whose place it is."""

    def wanted(self, begin: float, end: float) -> tuple[float, float] | None:
        """First and last step to read for a view of begin..end; None where it is drawn as it should be.

        Half of the view is added at both sides, so that panning does not ask at every key.
        """
        begin, end = max(0.0, begin), min(end, self.exact_from - 1)
        if end < begin or end - begin >= DETAIL_STEPS or (self.first <= begin and end <= self.last):
            return None
        margin = min((end - begin) // 2, (DETAIL_STEPS - (end - begin)) // 2)
        return float(int(max(0.0, begin - margin))), float(int(min(end + margin, self.exact_from - 1)))

    def put(self, series: SeriesColumns, first: float, last: float, steps: StepColumns) -> bool:
        """Show `steps`, all of first..last. False where they are not of the condensed part, which a resume may cut."""
        if last >= self.exact_from:
            return False
        self.take_out(series)
        begin, end = bisect_left(series.step, first), bisect_right(series.step, last)
        self._condensed = SeriesColumns()
        for name in SeriesColumns.__slots__:
            column = getattr(series, name)
            setattr(self._condensed, name, column[begin:end])
            if len(steps.step):  # none: the store has lost them, and what is drawn is all there is
                column[begin:end] = getattr(steps, name)
        self.first, self.last = first, last
        return True

    def take_out(self, series: SeriesColumns) -> None:
        """Put the condensed rows back."""
        if self.last < self.first:
            return
        begin, end = bisect_left(series.step, self.first), bisect_right(series.step, self.last)
        for name in SeriesColumns.__slots__:
            getattr(series, name)[begin:end] = getattr(self._condensed, name)
        self._condensed = SeriesColumns()
        self.first, self.last = 0.0, -1.0

    def cut(self, series: SeriesColumns, step: float) -> None:
        """The run goes on from before `step`: whatever is from there on is forgotten, and what comes is exact."""
        if step <= self.last:
            self.take_out(series)
        self.exact_from = min(self.exact_from, step)
