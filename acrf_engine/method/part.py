"""A micro-batch dealt out to several processes: each trains on its part of what one process would train on at once.

Every draw is that of the whole micro-batch, of which a process takes its pictures, so that anchors, jitter and noise
do not depend on the number of processes.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Part:
    """The pictures from `start` to `stop` (excluded) of the `whole` that a micro-batch has.

    A process for which none is left gets the first one again with weight 0 (`idle`), since all processes have to take
    part in every backward pass. Of `processes`, whose gradients are averaged.
    """

    start: int
    stop: int
    whole: int
    processes: int
    idle: bool = False

    @classmethod
    def of(cls, whole: int, rank: int, processes: int) -> Part:
        """The part of process `rank`: contiguous, and of two processes neither has two pictures more than the other."""
        start, stop = (place * whole // processes for place in (rank, rank + 1))
        return cls(start, stop, whole, processes) if start < stop else cls(0, 1, whole, processes, idle=True)

    @property
    def scale(self) -> float:
        """What makes the average over the processes, of sums over their pictures, the mean over the whole."""
        return self.processes / self.whole
