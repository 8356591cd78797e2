"""Which keys of a config shape a run for good, and which may differ when it is resumed."""

from __future__ import annotations

import json
import math
from typing import Any

from acrf_engine.config import RunConfig
from acrf_engine.protocol import SETTABLE, Plan
from acrf_engine.run.folder import RunFolder
from acrf_engine.run.telemetry import TelemetryReader

FREE_AFTER_START = (
    "epochs", "steps", "checkpoint", "preview", "logging", "safety", "restarts", "hang_timeout", "on_finish",
    "on_failure", "memory.device", "memory.vram", "memory.offload", "memory.gradient_checkpointing",
    "data.num_workers", "validation.every", "validation.keep_best", "distributed.timeout",
)  # fmt: skip
"""Config keys, or groups of them, that may differ when a run is resumed; the live settings may differ too."""
DEALT_OTHERWISE = {"batch_size", "distributed.num_processes", "distributed.strategy", "distributed.backend"}
"""Keys that say how the pictures of a micro-batch are dealt to processes: free where it holds as many as before."""


def changed_keys(before: RunConfig, now: RunConfig) -> list[str]:
    """Keys that shape a run and differ, dotted."""
    free = set(FREE_AFTER_START)
    if before.global_batch == now.global_batch:  # other processes share the same pictures
        free |= DEALT_OTHERWISE
    old, new = _dotted(before.model_dump(mode="json")), _dotted(now.model_dump(mode="json"))
    keys = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    return [key for key in keys if key not in SETTABLE and not {key, key.split(".")[0]} & free]


def _dotted(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat.update(_dotted(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = json.dumps(value) if isinstance(value, list) else value
    return flat


def planned_steps(config: RunConfig, folder: RunFolder) -> int:
    """How many optimizer steps the config plans for the run, by the data that its journal names."""
    if config.steps is not None:
        return config.steps
    plans = [event for event in TelemetryReader(folder.telemetry).journal() if isinstance(event, Plan)]
    per_epoch = plans[-1].micro_batches_per_epoch if plans else 0
    return math.ceil(config.epochs * per_epoch / config.gradient_accumulation)
