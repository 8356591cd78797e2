"""What every stage of pretraining shares: the options, a model being trained, and randomness by the step."""

from __future__ import annotations

import copy
import math
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from .canvas import Picture
from .muon import Muon

Report = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """What the command line chooses."""

    out: Path
    work: Path
    seed: int
    vae_steps: int
    flow_steps: int
    scenes: int
    device: torch.device


Model = TypeVar("Model", bound=nn.Module)


class Fitting(Generic[Model]):
    """A model being trained: Muon and AdamW, warm-up then cosine, gradient clipping, an averaged copy, checkpoints.

    Parameters whose name `hidden` accepts, if they are matrices or kernels, go to Muon; the others to AdamW. `average`
    is the exponential moving average of the parameters with the given decay; it is what gets exported.
    """

    def __init__(self, model: Model, steps: int, checkpoint: Path, hidden: Callable[[str], bool], decay: float) -> None:
        self.model = model
        self.average = copy.deepcopy(model)
        self.model.train()
        self.average.eval().requires_grad_(False)
        self.steps, self.step, self.decay, self.checkpoint = steps, 0, decay, checkpoint
        named = list(model.named_parameters())
        inner = [parameter for name, parameter in named if parameter.ndim >= 2 and hidden(name)]
        outer = [parameter for name, parameter in named if parameter.ndim < 2 or not hidden(name)]
        self.optimizers: list[torch.optim.Optimizer] = [
            Muon(inner, lr=0.02),
            torch.optim.AdamW(outer, lr=2e-3, betas=(0.9, 0.99), weight_decay=0.01),
        ]
        self.schedules = [torch.optim.lr_scheduler.LambdaLR(each, self._rate) for each in self.optimizers]
        if checkpoint.exists():
            self._load()

    def _rate(self, step: int) -> float:
        """Multiplier of the learning rates: linear over 50 steps, then cosine down to 2 %."""
        progress = min(1.0, step / max(1, self.steps))
        return min(1.0, (step + 1) / 50) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress)))

    def update(self, loss: Tensor) -> None:
        """One optimizer step on `loss`, then the average follows."""
        self.model.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer, schedule in zip(self.optimizers, self.schedules, strict=True):
            optimizer.step()
            schedule.step()
        self.step += 1
        decay = min(self.decay, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(list(self.average.parameters()), list(self.model.parameters()), 1 - decay)

    def save(self) -> None:
        """Write the checkpoint beside its place and rename it, so that an interruption leaves the old one."""
        state = {
            "step": self.step,
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizers": [each.state_dict() for each in self.optimizers],
            "schedules": [each.state_dict() for each in self.schedules],
        }
        partial = self.checkpoint.with_suffix(".partial")
        torch.save(state, partial)
        os.replace(partial, self.checkpoint)

    def _load(self) -> None:
        state = torch.load(self.checkpoint, map_location="cpu", weights_only=True)
        self.step = state["step"]
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        for schedule, saved in zip(self.schedules, state["schedules"], strict=True):
            schedule.load_state_dict(saved)


class Progress:
    """Prints the mean of recent losses every `every` steps."""

    def __init__(self, name: str, total: int, every: int, report: Report) -> None:
        self.name, self.total, self.every, self.report = name, total, every, report
        self.recent: list[float] = []
        self.started = time.monotonic()

    def add(self, step: int, loss: float) -> None:
        """Count one step; `step` starts at 1."""
        self.recent.append(loss)
        if step % self.every == 0 or step == self.total:
            seconds = time.monotonic() - self.started
            mean = sum(self.recent) / len(self.recent)
            self.report(f"{self.name} step {step}/{self.total} loss {mean:.5f} time {seconds:.0f} s")
            self.recent.clear()


def step_rng(seed: int, stage: int, step: int) -> np.random.Generator:
    """The randomness of one step: it depends on nothing before it, so a resumed stage goes on as if uninterrupted."""
    return np.random.default_rng([seed, stage, step])


def torch_generator(rng: np.random.Generator) -> torch.Generator:
    return torch.Generator().manual_seed(int(rng.integers(2**62)))


def to_tensor(drawn: Iterable[Picture], device: torch.device) -> Tensor:
    """Pictures of one size as float `[B, 3, height, width]` in [-1, 1]."""
    stacked = torch.from_numpy(np.stack(list(drawn)))
    return stacked.to(device).permute(0, 3, 1, 2).float() / 127.5 - 1.0
