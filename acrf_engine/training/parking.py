"""Giving the card back while a run is paused: model and optimizer wait in RAM, bit for bit as they were."""

from __future__ import annotations

import torch

from acrf_engine.model.zimage import free_memory
from acrf_engine.training.trainer import Trainer


def park(trainer: Trainer) -> int:
    """Move model and optimizer state to RAM. Returns the bytes of VRAM given back."""
    before = torch.cuda.memory_reserved() if torch.cuda.is_available() else 0
    move(trainer, torch.device("cpu"))
    free_memory()
    after = torch.cuda.memory_reserved() if torch.cuda.is_available() else 0
    return before - after


def unpark(trainer: Trainer) -> None:
    """Move them back to the training device. Raises torch.OutOfMemoryError where someone else took the room."""
    try:
        move(trainer, trainer.prepared.device)
    except torch.OutOfMemoryError:
        park(trainer)
        raise


def move(trainer: Trainer, device: torch.device) -> None:
    """Move the model, the moving average, and every tensor of the optimizer's state to `device`."""
    trainer.forget_gradients()
    trainer.prepared.transformer.to(device)
    if trainer.ema is not None:
        trainer.ema.to(device)
    for state in trainer.optimizer.optimizer.state.values():
        for name, value in state.items():
            if isinstance(value, torch.Tensor) and not getattr(value, "is_paged", False):
                state[name] = value.to(device)
