"""What a test plants in the process of a run before it starts; supervisor and worker inherit it."""

from __future__ import annotations

import functools
import os
import random
import resource
from collections.abc import Callable
from pathlib import Path
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


def empty_cache(folder: str) -> None:
    """The data are encoded anew, as in a user's first run."""
    os.environ["XDG_CACHE_HOME"] = folder


def raise_error(error: BaseException, _trainer: Any) -> None:
    raise error


def die_by(number: int, _trainer: Any) -> None:
    os.kill(os.getpid(), number)


def eat_memory(mark: str, _trainer: Any) -> None:
    """Once the file `mark` exists: up to 2 GB, page by page."""
    if os.path.exists(mark):
        eaten = []
        for _ in range(200):
            eaten.append(bytearray(b"\1" * 10_000_000))


def run_out_of_address_space(_trainer: Any) -> None:
    """A limit 64 MB above what is in use, then an allocation beyond it."""
    import torch

    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 64_000_000, before[1]))
    try:
        torch.empty(250_000_000)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def both(*injections: Callable[[], None]) -> None:
    for inject in injections:
        inject()


def short_back_off() -> None:
    from acrf_engine.run import supervisor

    supervisor.MAX_BACKOFF_S = 0.05
