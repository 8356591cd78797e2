"""The supervisor's eyes: which GPUs there are, and a sample of the machine every second."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from acrf_engine.run.devices import Gpu, visible_gpus
from acrf_engine.run.folder import Status
from acrf_engine.run.hardware import GpuReader, sample
from acrf_engine.run.stream import EventStream

HARDWARE_PERIOD_S = 1.0

log = logging.getLogger("acrf.supervisor")


class Survey(threading.Thread):
    """Looks at the hardware, in a thread of its own: a driver that hangs must not hold up the run.

    Args:
        status: the run's; the cards are listed anew while it has no worker.
        elapsed: how long the run has been alive, in seconds.
        stream: takes the samples.
    """

    def __init__(self, status: Status, elapsed: Callable[[], float], stream: EventStream) -> None:
        super().__init__(name="hardware", daemon=True)
        self._status = status
        self._elapsed = elapsed
        self._stream = stream
        self._readings: dict[int, dict[str, Any]] = {}
        self.gpus: list[Gpu] = []
        self.done = threading.Event()
        """Set when the cards were listed for the first time."""

    def take(self, readings: list[dict[str, Any]]) -> None:
        """What the ranks of the run see of themselves; see protocol.RankReadings."""
        self._readings = {**self._readings, **{one["rank"]: one for one in readings}}

    def run(self) -> None:
        reader = GpuReader()
        while not self._stream.ended:
            if (pid := self._status.worker_pid) is None:
                self._readings = {}
                try:
                    self.gpus = visible_gpus(reader)
                except Exception:  # an odd driver costs the choice of the card, not the run
                    log.exception("the GPUs cannot be listed")
                self.done.set()
            self._stream.emit(sample(reader, pid, self._elapsed(), self._readings))
            time.sleep(HARDWARE_PERIOD_S)
