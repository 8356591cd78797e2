"""What makes a run the same run: the environment it needs to repeat bit for bit, and the config keys that shape it."""

from __future__ import annotations

import json
import platform
from typing import Any

import torch

from acrf_engine.config import RunConfig
from acrf_engine.protocol import SETTABLE

FREE_AFTER_START = (
    "epochs", "steps", "checkpoint", "preview", "safety", "restarts", "hang_timeout", "on_finish", "on_failure"
)  # fmt: skip
"""Config keys that may differ when a run is resumed; the live settings may differ too."""


def environment() -> dict[str, str]:
    """Versions and device that a bit-exact repetition depends on."""
    import accelerate
    import diffusers
    import peft

    import acrf_engine

    return {
        "acrf-tui": acrf_engine.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "diffusers": diffusers.__version__,
        "peft": peft.__version__,
        "accelerate": accelerate.__version__,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine(),
        "threads": str(torch.get_num_threads()),
    }


def changed_keys(before: RunConfig, now: RunConfig) -> list[str]:
    """Keys that shape a run and differ, dotted."""
    free = set(FREE_AFTER_START)
    old, new = _dotted(before.model_dump(mode="json")), _dotted(now.model_dump(mode="json"))
    keys = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    return [key for key in keys if key not in SETTABLE and key.split(".")[0] not in free]


def _dotted(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat.update(_dotted(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = json.dumps(value) if isinstance(value, list) else value
    return flat
