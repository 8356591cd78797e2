"""What a test plants in the process of a run before it starts; supervisor and worker inherit it."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable
from typing import Any


def poison_the_dice() -> None:
    """Every global random generator stands elsewhere than in any run before."""
    import numpy
    import torch

    seed = random.SystemRandom().randrange(2**31)
    random.seed(seed)
    numpy.random.seed(seed)
    torch.manual_seed(seed)
    torch.rand(7), numpy.random.rand(7), random.random()


def at_step(step: int, act: Callable[[Any], None], times: int = 10**9, mark: str = "") -> None:
    """Call `act(trainer)` before the update after `step` updates is tried; `times` bounds how often.

    `mark`, a file, counts over restarts of the worker, which forgets what the process before it did.
    """
    from acrf_engine.training.trainer import Trainer

    train_step = Trainer.train_step
    tried = 0

    @functools.wraps(train_step)
    def acting(self: Trainer) -> Any:
        nonlocal tried
        if self.step == step and tried < times:
            tried += 1
            if mark:
                with open(mark, "a", encoding="utf-8") as file:
                    file.write(f"{self.step}\n")
            act(self)
        return train_step(self)

    Trainer.train_step = acting  # type: ignore[method-assign]
