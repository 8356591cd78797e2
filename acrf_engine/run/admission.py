"""How a run gets its device: which ones would do, the line for them, and giving the card back while paused."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence

from acrf_engine.run import waiting
from acrf_engine.run.devices import CPU, Gpu, candidates
from acrf_engine.run.folder import RunError, RunFolder

log = logging.getLogger("acrf.supervisor")

WHEN_BUSY = ("", "--wait", "--share")
"""Where another run uses the device: wait for a GPU but share the CPU, wait for either, share either."""


class Admission:
    """A run's way to its device. Raises RunError for a GPU that is not there."""

    def __init__(self, folder: RunFolder, wanted: str, when_busy: str, gpus: Sequence[Gpu], processes: int = 1) -> None:
        if when_busy not in WHEN_BUSY:
            raise ValueError(f"unknown option {when_busy!r}")
        self._folder = folder
        self._gpus: dict[str, Gpu | None] = {gpu.uuid: gpu for gpu in candidates(wanted, gpus)} or {CPU: None}
        self._count = processes if CPU not in self._gpus else 1
        require_gpus(processes, len(self._gpus) if CPU not in self._gpus else None)
        self.share = when_busy == "--share" or (when_busy != "--wait" and CPU in self._gpus)
        self.device = ""
        self._devices: tuple[str, ...] = ()

    def gpus_now(self, seen: Sequence[Gpu]) -> list[Gpu]:
        """The cards that the run has got, one a process, as they were `seen` last; none on the CPU."""
        last = {gpu.uuid: gpu for gpu in seen}  # the run may have waited for long
        return [last.get(device, gpu) for device in self._devices if (gpu := self._gpus[device]) is not None]

    @property
    def names(self) -> str:
        """What the run waits for, for people."""
        if self._count > 1:
            return f"{self._count} GPUs"
        return " or ".join(f"GPU {gpu.number}" if gpu else "the CPU" for gpu in self._gpus.values())

    def ask(self) -> waiting.Turn:
        """Ask for a device: the one that the run has got, or its place in the line."""
        try:
            turn = waiting.take(self._folder, list(self._gpus), share=self.share, count=self._count)
        except OSError as error:
            log.warning("the line for devices cannot be used (%s); the run starts without it", error)
            turn = waiting.Turn(tuple(self._gpus)[: self._count])
        self._devices, self.device = turn.devices, turn.device
        return turn

    def leave(self) -> None:
        """Let the next run have the device, at the end or while the VRAM is given back."""
        with contextlib.suppress(OSError):
            waiting.leave(self._folder)

    def come_back(self) -> None:
        """The VRAM has been taken again, beside whoever came meanwhile."""
        with contextlib.suppress(OSError):
            waiting.take(self._folder, self._devices, share=True, count=self._count)


def require_gpus(processes: int, gpus: int | None) -> None:
    """Raises RunError where a run of so many processes has fewer GPUs. None: it trains on the CPU, with any number."""
    if gpus is not None and processes > gpus:
        raise RunError(
            f"distributed.num_processes: {processes} processes, but {gpus} GPU{'' if gpus == 1 else 's'} to train on "
            f"here (set it to {gpus}, or start on several boxes: docs/distributed.md)"
        )
