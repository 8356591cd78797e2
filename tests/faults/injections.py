"""What a test plants in the process of a run before it starts; supervisor and worker inherit it."""

from __future__ import annotations

import dataclasses
import fcntl
import functools
import os
import random
import resource
import signal
import sys
import threading
import time
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

    Trainer.train_step = acting


def empty_cache(folder: str) -> None:
    """The data are encoded anew, as in a user's first run."""
    os.environ["XDG_CACHE_HOME"] = folder


def die_while_caching(folder: str, entries: int) -> None:
    """As `empty_cache`; the worker is killed as soon as it has cached so many pictures."""
    empty_cache(folder)
    from acrf_engine.data.tensor_files import Cache

    write = Cache.write
    written = 0

    def dying(self: Any, kind: Any, key: str, tensor: Any) -> None:
        nonlocal written
        write(self, kind, key, tensor)
        written += kind == "latents"
        if written == entries:
            os.kill(os.getpid(), signal.SIGKILL)

    Cache.write = dying  # type: ignore[method-assign]


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


def raise_always_at(step: int) -> None:
    at_step(step, functools.partial(raise_error, RuntimeError("the same again")))


def wait_in_back_off() -> None:
    """Eight seconds between attempts, long enough to act in."""
    from acrf_engine.run import supervisor

    supervisor.MAX_BACKOFF_S = 8.0
    attempt = supervisor.Supervisor._attempt

    def attempting(self: supervisor.Supervisor) -> Any:
        self._restarts += 2 * (self._restarts == 0)  # 2 s are too short
        return attempt(self)

    supervisor.Supervisor._attempt = attempting


def die_after_start() -> None:
    """The supervisor is killed when it has just started its worker, before it writes down which."""
    from acrf_engine.run import supervisor

    process_token = supervisor.process_token

    def token(pid: int | None) -> str:
        if pid != os.getpid():
            os.kill(os.getpid(), signal.SIGKILL)
        return process_token(pid)

    supervisor.process_token = token


def slow_saves(seconds: float) -> None:
    from acrf_engine.training import checkpoint

    write = checkpoint.write

    def slowly(*arguments: Any) -> Any:
        time.sleep(seconds)
        return write(*arguments)

    checkpoint.write = slowly


def small_link() -> None:
    """The event queue takes 16 events, and its pipe 4 KB."""
    from acrf_engine.run import supervisor

    supervisor.QUEUE_EVENTS = 16
    enter = supervisor.Supervisor._enter_attempt

    def entering(self: supervisor.Supervisor) -> None:
        enter(self)
        fcntl.fcntl(self.events._writer.fileno(), fcntl.F_SETPIPE_SZ, 4096)

    supervisor.Supervisor._enter_attempt = entering


def spoil(kind: str, value: float, trainer: Any) -> None:
    """Make the next update's loss, its Char component or one element of its gradient `value`."""
    from acrf_engine.training import trainer as module

    if kind == "gradient":
        clip = trainer.accelerator.clip_grad_norm_

        def clip_spoilt(parameters: Any, limit: float) -> Any:
            trainer.accelerator.clip_grad_norm_ = clip
            parameters[0].grad.view(-1)[5] = value
            return clip(parameters, limit)

        trainer.accelerator.clip_grad_norm_ = clip_spoilt
        return
    step = module.acrf_micro_step

    def spoilt_step(*arguments: Any, **options: Any) -> Any:
        module.acrf_micro_step = step
        micro = step(*arguments, **options)
        char = micro.char_B * value if kind == "Char" else micro.char_B
        return dataclasses.replace(micro, loss=micro.loss * value, char_B=char, composite_B=micro.composite_B * value)

    module.acrf_micro_step = spoilt_step


# ---- cards -----------------------------------------------------------------------------------------------------------


def no_room(trainer: Any) -> None:
    """The next update finds no room on the card, after its backward pass."""
    clip = trainer.accelerator.clip_grad_norm_

    def clip_without_room(*arguments: Any) -> Any:
        import torch

        trainer.accelerator.clip_grad_norm_ = clip
        clip(*arguments)
        raise torch.OutOfMemoryError(
            "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of ..."
        )

    trainer.accelerator.clip_grad_norm_ = clip_without_room


def no_room_while(mark: str) -> None:
    """From step 11 on, for as long as the file `mark` exists."""

    def act(trainer: Any) -> None:
        if trainer.step >= 11 and os.path.exists(mark):
            no_room(trainer)

    at_every_step(act)


def at_every_step(act: Callable[[Any], None]) -> None:
    from acrf_engine.training.trainer import Trainer

    train_step = Trainer.train_step

    @functools.wraps(train_step)
    def acting(self: Trainer) -> Any:
        act(self)
        return train_step(self)

    Trainer.train_step = acting


def lost_card(trainer: Any) -> None:
    import torch

    raise torch.AcceleratorError(
        "CUDA error: unspecified launch failure\nSearch for `cudaErrorLaunchFailure' in https://docs.nvidia.com/cuda/"
        "cuda-runtime-api/group__CUDART__TYPES.html for more information."
    )


def no_room_in_previews() -> None:
    import torch

    from acrf_engine.training import previews

    def sample(*_: Any, **__: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    previews.sample = sample


def no_nvml() -> None:
    sys.modules["pynvml"] = None  # what an import of a missing module finds


class NVMLError(Exception):
    pass


class Nvml:
    """A driver with one card that answers `Not Supported` to everything, or hangs for ever in one call."""

    NVMLError = NVMLError

    def __init__(self, hangs_in: str = "") -> None:
        self._hangs_in = hangs_in

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*_: Any) -> Any:
            if name == self._hangs_in:
                threading.Event().wait()
            if name == "nvmlDeviceGetCount":
                return 1
            if name in ("nvmlInit", "nvmlDeviceGetHandleByIndex"):
                return None
            raise NVMLError("Not Supported")

        if not name.startswith("nvml"):
            raise AttributeError(name)
        return call


def nvml(hangs_in: str = "") -> None:
    sys.modules["pynvml"] = Nvml(hangs_in)
