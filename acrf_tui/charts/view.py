"""Which steps the charts of a screen show, and which step is read: one object that all of them share.

A chart, a panel or a key changes it through its methods; whoever draws listens. So charts stay in step with each other
and none of them knows another.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from acrf_tui.charts import scale

SHORTEST = 16.0
"""Steps in the closest zoom."""
SNAP = 1 / 8
"""A window that ends up this share of itself before the newest one becomes the newest one."""

Listener = Callable[[], None]


@dataclass(slots=True)
class ChartView:
    """The window over the steps and the crosshair.

    `zoom`: how often the whole range is halved around the newest steps. `pinned`: a window that stands still (begin and
    end in steps); None follows the newest steps. `cross`: the step that is read, None: none. `held`: the crosshair
    stays when the pointer leaves.
    """

    last: float = 0.0
    total: float = 0.0
    zoom: int = 0
    pinned: tuple[float, float] | None = None
    cross: float | None = None
    held: bool = False
    _listeners: list[Listener] = field(default_factory=list)

    def listen(self, listener: Listener) -> None:
        """Call `listener` after every change made by a user; never for new data."""
        self._listeners.append(listener)

    def data(self, last: float, total: float) -> None:
        """The newest step, and the step at which the run ends (0: unknown)."""
        self.last, self.total = last, total

    # ------------------------------------------------------------------ reading

    @property
    def follows(self) -> bool:
        """The window moves on with the newest steps."""
        return self.pinned is None

    @property
    def whole(self) -> float:
        """Length of the range without zoom."""
        return scale.doubling_domain(self.last, self.total)

    @property
    def deepest(self) -> int:
        """The largest zoom."""
        return max(0, int(math.log2(max(1.0, self.whole / SHORTEST))))

    def window(self) -> tuple[float, float]:
        """First and last step that are shown."""
        return self.pinned or scale.window(self.last, self.total, self.zoom)

    # ------------------------------------------------------------------ changing

    def zoom_by(self, levels: int, about: float | None = None) -> None:
        """Halve (or double) the window around `about`, else around the crosshair, else around the newest step."""
        if about is None:
            about = self.cross
        if about is None and self.follows:
            self.zoom = min(self.deepest, max(0, self.zoom + levels))
            self._tell()
            return
        begin, end = self.window()
        length = end - begin
        middle = (begin + end) / 2 if about is None else min(end, max(begin, about))
        shortest = self.whole / 2**self.deepest
        wanted = min(self.whole, max(min(shortest, length), length / 2.0**levels))
        self._settle(middle - (middle - begin) / length * wanted, wanted)
        self._tell()

    def pan(self, share: float) -> None:
        """Move the window by a share of its length; past the newest steps it follows them again."""
        begin, end = self.window()
        self._settle(begin + share * (end - begin), end - begin)
        self._clamp_cross()
        self._tell()

    def show_from(self, begin: float) -> None:
        """Move the window so that it begins at this step."""
        left, right = self.window()
        self._settle(begin, right - left)
        self._tell()

    def follow(self) -> None:
        """Show the newest steps, as many as now, and stay with them."""
        begin, end = self.window()
        self.zoom, self.pinned = self._level(end - begin), None
        self._clamp_cross()
        self._tell()

    def read(self, step: float | None, *, held: bool = True) -> None:
        """Put the crosshair on a step, or take it away; a step outside the window is brought into it."""
        held = held and step is not None
        begin, end = self.window()
        in_sight = step is None or begin <= step <= end
        if in_sight and (step, held) == (self.cross, self.held):
            return
        self.cross, self.held = step, held
        if step is not None and not in_sight:
            self._settle(step - (end - begin) * (0.25 if step < begin else 0.75), end - begin)
        self._tell()

    def _level(self, length: float) -> int:
        return min(self.deepest, max(0, round(math.log2(self.whole / max(length, 1e-9)))))

    def _settle(self, begin: float, length: float) -> None:
        self.zoom = self._level(length)
        newest, _ = scale.window(self.last, self.total, self.zoom)
        follows = length >= self.whole or begin >= newest - SNAP * length
        begin = max(0.0, begin)
        self.pinned = None if follows else (begin, begin + length)

    def _clamp_cross(self) -> None:
        if self.cross is not None:
            begin, end = self.window()
            self.cross = min(end, self.last, max(begin, self.cross))

    def _tell(self) -> None:
        for listener in self._listeners:
            listener()
