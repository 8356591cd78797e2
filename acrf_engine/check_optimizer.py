"""The optimizer's part of a check: whether it can be used here, what it keeps, and what its rate is."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from acrf_engine.config import RunConfig
from acrf_engine.optimizer_config import (
    KINDS,
    STEP_RATE,
    rate_meaning,
    rate_text,
    schedule_text,
    state_bytes,
    unusable,
    warmup_steps,
)
from acrf_engine.yaml_source import ConfigError


@dataclass
class OptimizerReport:
    """Name, schedule and bytes of state of a run's optimizer."""

    name: str
    rate: str
    state_bytes: int
    notes: list[str] = field(default_factory=list)


def look_at_optimizer(
    config: RunConfig, on_gpu: bool, shapes: list[tuple[int, ...]], total_steps: int
) -> OptimizerReport:
    """`shapes` are those of the trained tensors. Raises ConfigError naming what is missing or refused.

    Only a class by its import path, and arguments, have to be tried, and load torch.
    """
    name = config.optimizer
    if why := unusable(name, on_gpu):
        raise ConfigError(f"optimizer: {why}")
    per_number = 0.0
    if name not in KINDS or config.optimization.optimizer_args:
        import torch

        from acrf_engine.training.optim import require_restorable

        per_number = require_restorable(config, torch.device("cuda" if on_gpu else "cpu"))
    kept = state_bytes(name, shapes) if name in KINDS else round(per_number * sum(map(math.prod, shapes)))
    report = OptimizerReport(
        name + "".join(f", {key} {value}" for key, value in config.optimization.optimizer_args.items()),
        f"{rate_text(config.learning_rate)}, {schedule_text(config.scheduler, config.schedule)}",
        kept,
    )
    if rate_meaning(name) != STEP_RATE:
        report.notes.append(f"learning_rate of {name}: {rate_meaning(name)}")
    warmup = warmup_steps(config.schedule, total_steps)
    if warmup >= total_steps:
        report.notes.append(f"warm-up takes {warmup:,} of {total_steps:,} steps: the schedule itself is never reached")
    return report
