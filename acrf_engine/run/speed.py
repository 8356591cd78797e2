"""How long a step will take: as long as earlier runs of the same kind took on the same device, else it is not known."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from acrf_engine.run.curves import typical_step_time
from acrf_engine.run.folder import RunError, RunFolder

MOST_RUNS = 300
LEAST_STEPS = 3
"""Step times of so many steps, after the warm-up, are a measurement."""
SHAPING = (
    "model",
    "batch_size",
    "distributed.num_processes",
    "distributed.strategy",
    "gradient_accumulation",
    "network_dim",
    "optimizer",
    "lora.targets",
    "lora.refiners",
    "memory.dtype",
    "memory.gradient_checkpointing",
    "memory.quantization",
    "memory.offload",
    "memory.compile",
    "memory.attention",
    "base.training_adapter",
    "data.num_workers",
)
"""Keys on which the time of a step depends; the resolution is compared in pixels."""
LATER = {"distributed.num_processes": 1, "distributed.strategy": "ddp"}
"""What runs had that were made before there were these keys."""


@dataclass(frozen=True)
class Measured:
    """The median step time in seconds, over how many steps, and of which run."""

    seconds: float
    steps: int
    run: str


def measured_step(config: Mapping[str, Any], native: int, device: str, runs: Iterable[RunFolder]) -> Measured | None:
    """What the newest run of the same kind measured on the same device; None where there is none.

    `config` is the resolved config as plain values, `native` the resolution in pixels that `auto` means for its model,
    `device` as a status names it, or "CPU".
    """
    import yaml

    for number, run in enumerate(runs):
        if number >= MOST_RUNS:
            break
        try:
            status = run.recorded_status()
            if status.step < LEAST_STEPS or not _same_device(status.extra.get("device"), device):
                continue
            other = yaml.safe_load(run.config.read_text(encoding="utf-8"))
        except (RunError, OSError, ValueError, yaml.YAMLError):
            continue
        if not isinstance(other, dict) or not _same_kind(config, other, native):
            continue
        seconds, steps = typical_step_time(run)
        if steps >= LEAST_STEPS:
            return Measured(seconds, steps, run.name)
    return None


def _same_kind(config: Mapping[str, Any], other: Mapping[str, Any], native: int) -> bool:
    def pixels(values: Mapping[str, Any]) -> Any:
        return native if (found := _value(values, "resolution")) == "auto" else found

    return pixels(config) == pixels(other) and all(_value(config, key) == _value(other, key) for key in SHAPING)


def _value(values: Any, key: str) -> Any:
    for part in key.split("."):
        values = values.get(part) if isinstance(values, Mapping) else None
    return LATER.get(key) if values is None else values


def _same_device(had: Any, wanted: str) -> bool:
    """Whether it is the same make of card; two of the same machine are as fast as each other."""
    return _make(had if isinstance(had, str) and had else "CPU") == _make(wanted)


def _make(title: str) -> str:
    found = re.fullmatch(r"GPU \d+ \((.*)\)", title)
    return found[1] if found else title
