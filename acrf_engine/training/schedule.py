"""The learning rate over the run (paper, section 6.2): a function of the position alone."""

from __future__ import annotations

import math
from dataclasses import dataclass

from acrf_engine.config import RunConfig
from acrf_engine.optimizer_config import warmup_steps


def schedule_share(config: RunConfig, step: int, total_steps: int) -> float:
    """Where the schedule stands at update `step` (from 0): 1 at the top, 0 at the floor; above 1 never.

    Section 6.2 is `cosine`; `cosine_with_restarts` runs `schedule.cycles` such arcs. Warm-up is not in here.
    """
    warmup = warmup_steps(config.schedule, total_steps)
    span = max(1, total_steps - warmup)
    progress = min(1.0, max(0, step - warmup) / span)
    match config.scheduler:
        case "constant":
            return 1.0
        case "linear":
            return 1.0 - progress
        case "polynomial":
            return float((1.0 - progress) ** config.schedule.power)
        case "cosine":
            return 0.5 * (1 + math.cos(math.pi * progress))
        case "cosine_with_restarts":
            if progress >= 1.0:
                return 0.0
            return 0.5 * (1 + math.cos(math.pi * (progress * config.schedule.cycles % 1.0)))


@dataclass(frozen=True)
class Ramp:
    """A change of the peak rate spread over `steps` updates from update `start` on, so that the loss does not jump."""

    start: int
    steps: int
    previous: float

    def peak(self, target: float, step: int) -> float:
        """The peak at update `step` on the way from `previous` to `target`."""
        share = min(1.0, (step - self.start + 1) / self.steps)
        return self.previous + (target - self.previous) * share


def learning_rate(config: RunConfig, peak: float, step: int, total_steps: int) -> float:
    """The rate of update `step` (from 0) of `total_steps`, where `peak` is the schedule's highest rate now.

    Warm-up reaches the peak with its last update, so that no update is made at a rate of 0. Nothing else enters, so a
    resumed run and a live change of the peak need no scheduler state.
    """
    warmup = warmup_steps(config.schedule, total_steps)
    if step < warmup:
        return peak * (step + 1) / warmup
    if config.scheduler == "constant":
        return peak
    floor = min(config.schedule.min_lr, peak)
    return floor + (peak - floor) * schedule_share(config, step, total_steps)
