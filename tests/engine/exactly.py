"""What two runs are compared by: every number of every step and every tensor, to the last bit."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from torch import Tensor

from acrf_engine.model import lora
from acrf_engine.protocol import Step
from acrf_engine.training import checkpoint
from acrf_engine.training.trainer import Trainer

EXACT = ("loss", "loss_char", "loss_cos", "loss_fft", "loss_balanced", "lr", "grad_norm", "epoch")


def trace(steps: list[Step]) -> list[list[str]]:
    """Everything a step says but its time, without any rounding."""
    return [
        [float(getattr(step, name)).hex() for name in EXACT]
        + [value.hex() for value in (*step.sigmas, *step.weights, *step.losses)]
        + [str(step.anchors), str(step.step)]
        for step in steps
    ]


def train(trainer: Trainer, steps: int) -> list[Step]:
    return [trainer.train_step() for _ in range(steps)]


def poison_the_global_generators() -> None:
    random.seed(666)
    np.random.seed(666)
    torch.manual_seed(666)
    torch.rand(123)


def weights_of(trainer: Trainer) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in lora.weights(trainer.prepared.transformer).items()}


def everything(trainer: Trainer) -> dict[str, Any]:
    """LoRA, its moving average, and all that the optimizer keeps."""
    tensors, structure = checkpoint.flatten(trainer.optimizer.optimizer.state_dict())
    averages = [] if trainer.ema is None else [value.clone() for value in trainer.ema.shadow_params]
    return {
        **{f"lora {name}": value for name, value in weights_of(trainer).items()},
        **{f"average {index}": value for index, value in enumerate(averages)},
        **{f"optimizer {name}": value for name, value in tensors.items()},
        "structure": structure,
    }


def all_equal(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return a.keys() == b.keys() and all(
        torch.equal(a[name], b[name]) if isinstance(a[name], Tensor) else a[name] == b[name] for name in a
    )
