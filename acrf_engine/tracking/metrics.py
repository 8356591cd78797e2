"""What a tracker is told, by the names that users of trainers look for."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from acrf_engine.config import RunConfig
from acrf_engine.protocol import Step, Validation

TRAIN = ("loss", "loss_char", "loss_cos", "loss_fft", "loss_balanced", "lr", "grad_norm", "epoch", "step_time_s")
PRIVATE = ("on_finish", "on_failure")
"""Shell commands may hold passwords, and a tracker may send what it is told to a server."""


def anchor_name(group: str, index: int) -> str:
    """The loss at one anchor; 00 is the noisiest."""
    return f"{group}/loss_anchor_{index:02d}"


def names(group: str, anchors: int) -> list[str]:
    """All metrics of a group (train or validation) in their order."""
    plain = [f"train/{name}" for name in TRAIN] if group == "train" else ["validation/loss"]
    return plain + [anchor_name(group, index) for index in range(anchors)]


def of_step(step: Step) -> dict[str, float]:
    """A step's metrics; per anchor the mean of the unweighted losses of its pictures, for anchors that were drawn."""
    values = {f"train/{name}": float(getattr(step, name)) for name in TRAIN}
    drawn: dict[int, list[float]] = {}
    for anchor, loss in zip(step.anchors, step.losses, strict=True):
        drawn.setdefault(anchor, []).append(loss)
    return values | {anchor_name("train", index): _mean(drawn[index]) for index in sorted(drawn)}


def of_validation(validation: Validation) -> dict[str, float]:
    """A validation's metrics: the loss, and the loss at each anchor."""
    values = {"validation/loss": validation.loss}
    return values | {anchor_name("validation", index): loss for index, loss in enumerate(validation.losses)}


def hyperparameters(config: RunConfig, anchors: Iterable[float]) -> dict[str, bool | int | float | str]:
    """The config by dotted key, in values that every tracker takes; without what may be secret."""
    flat: dict[str, bool | int | float | str] = {}

    def walk(values: dict[str, Any], above: str) -> None:
        for key, value in values.items():
            name = above + key
            if isinstance(value, dict):
                walk(value, f"{name}.")
            elif isinstance(value, bool | int | float | str):
                flat[name] = value
            else:
                flat[name] = "none" if value is None else json.dumps(value, ensure_ascii=False)

    walk(config.model_dump(mode="json", exclude=set(PRIVATE)), "")
    flat["anchors.sigmas"] = json.dumps([round(sigma, 6) for sigma in anchors])
    return flat


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
