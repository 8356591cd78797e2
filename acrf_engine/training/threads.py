"""How many threads torch gets."""

from __future__ import annotations

import os


def training_threads(processes: int = 1) -> int:
    """Threads of each of the `processes` that train on this box: one core is left for the app and the supervisor."""
    return max(1, (len(os.sched_getaffinity(0)) - 1) // processes)
