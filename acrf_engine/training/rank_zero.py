"""What rank 0 does for the other ranks of its run: meet them, pass on what they see, and say which one was lost."""

from __future__ import annotations

import logging
import os
import sys
import time
from typing import TYPE_CHECKING, Any

from acrf_engine.config import RunConfig
from acrf_engine.protocol import ErrorEvent, Failed, Progress, RankReadings
from acrf_engine.run.folder import RunFolder
from acrf_engine.run.link import Reporter
from acrf_engine.run.ranks import Seat
from acrf_engine.training.ending import LastWords

if TYPE_CHECKING:
    from acrf_engine.training.board import Watch
    from acrf_engine.training.ranks import Ranks

log = logging.getLogger("acrf.worker")

READINGS_PERIOD_S = 1.0
READINGS_PER_EVENT = 6


class RankZero:
    """Does nothing in a run of one process."""

    def __init__(self, report: Reporter) -> None:
        self._report = report
        self._ranks: Ranks | None = None
        self._watch: Watch | None = None
        self._next_readings = 0.0
        self._ended = False

    def meet(self, config: RunConfig, seat: Seat | None, folder: RunFolder, fresh: bool) -> Ranks:
        """Meet the other ranks and tell them which run this is."""
        from acrf_engine.model.device import choose_device
        from acrf_engine.model.layout import ModelError
        from acrf_engine.training.board import Watch
        from acrf_engine.training.ranks import Ranks, join

        wanted = config.distributed
        if seat is None:
            if wanted.num_processes > 1:
                raise ModelError(f"distributed.num_processes: {wanted.num_processes} are wanted, one was started")
            return Ranks()
        device = choose_device(config.memory.device)
        if wanted.strategy == "fsdp2" and device.type == "cpu":
            raise ModelError(
                "distributed.strategy: fsdp2 needs GPUs: on the CPU accelerate would train with ddp without a word "
                "(use ddp)"
            )
        self._report(Progress("loading", 0, seat.count, f"waiting for {seat.count} processes"))
        self._ranks = ranks = join(config, seat, device)
        assert ranks.board is not None
        ranks.order("run", folder=str(folder.path), config=config.model_dump(mode="json"), fresh=fresh)
        self._watch = Watch(ranks.board, self._give_up, on_gpu=device.type == "cuda")
        self._watch.start()
        return ranks

    def cached(self) -> None:
        """The latents and captions are all there."""
        if self._ranks is not None and self._ranks.board is not None:
            self._ranks.board.tell("cached 0")

    def report_readings(self) -> None:
        """Pass on what every rank sees of its card, about once a second."""
        if self._watch is None or time.monotonic() < self._next_readings:
            return
        self._next_readings = time.monotonic() + READINGS_PERIOD_S
        readings = [*self._watch.readings.values()]
        for start in range(0, len(readings), READINGS_PER_EVENT):
            self._report(RankReadings(readings[start : start + READINGS_PER_EVENT]))

    def explain(self, error: BaseException) -> LastWords | None:
        """Who is to blame for the end of the run, where it is another rank."""
        if self._ranks is None or self._ranks.board is None or self._watch is None:
            return None
        from acrf_engine.training.board import find_lost, lost_somebody

        self._watch.stop()
        if not lost_somebody(error):
            return None
        return find_lost(self._ranks.board)

    def say_last(self, words: LastWords) -> None:
        """Tell the others why rank 0 ends."""
        if self._ranks is not None and self._ranks.board is not None:
            try:
                self._ranks.board.say_last(words)
            except RuntimeError:
                log.exception("the other ranks cannot be told")

    def over(self) -> None:
        """Rank 0 ends; where nobody was told before, the others end too."""
        if self._ranks is None or self._ranks.board is None or self._watch is None:
            return
        self._watch.stop()
        try:
            self._ranks.board.tell("over")
        except RuntimeError:
            log.exception("the other ranks cannot be told")

    def _give_up(self, words: LastWords) -> Any:
        """Of the watching thread: the main one waits for a rank that is gone, and does not notice."""
        log.error("%s", words.message)
        self._report(ErrorEvent(words.message, 0, words.traceback))
        self._report(Failed(0, words.message, kind=words.kind))
        self._report.close(lambda: True)
        sys.stderr.flush()
        os._exit(2 if words.kind == "data" else 1)
