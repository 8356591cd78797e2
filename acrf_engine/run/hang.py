"""How fast a worker goes, and whether it has fallen silent."""

from __future__ import annotations

import time
from collections import deque

HANG_WARNING_S = 120.0


class Pace:
    """The usual time of a step, and the time since the worker's last sign of life."""

    def __init__(self) -> None:
        self._step_times: deque[float] = deque(maxlen=50)
        self._last_sign = time.monotonic()
        self._warned = False

    def begin(self) -> None:
        """A worker has been started."""
        self._last_sign = time.monotonic()

    def sign(self) -> None:
        """The worker has said something."""
        self._last_sign = time.monotonic()
        self._warned = False

    def step(self, seconds: float) -> None:
        """The worker has made a step that took it `seconds`."""
        self._step_times.append(seconds)

    @property
    def usual_s(self) -> float:
        """The median of the last step times, in seconds; 0 before the first step."""
        ordered = sorted(self._step_times)
        return ordered[len(ordered) // 2] if ordered else 0.0

    def silence_s(self) -> float:
        """Seconds since the last sign of life; 0 before the first step, which may take any time."""
        return time.monotonic() - self._last_sign if self._step_times else 0.0

    def warn_of(self, silence_s: float) -> bool:
        """Whether a silence of that length is worth a warning: once, until the next sign."""
        if self._warned or silence_s <= max(HANG_WARNING_S, 20 * self.usual_s):
            return False
        self._warned = True
        return True
