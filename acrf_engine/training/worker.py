"""The worker process: load, train, obey, and say how it ended.

Commands act between steps and are acknowledged with the step at which they took effect. The worker never waits for a
reader, and leaves with a checkpoint when its supervisor is gone.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

from acrf_engine.config import load_config
from acrf_engine.protocol import Ack, Command, ErrorEvent, Event, Failed, Progress, StateChanged, Stopped
from acrf_engine.run import ranks as places
from acrf_engine.run.folder import RunError, RunFolder
from acrf_engine.run.link import Inbox, Reporter
from acrf_engine.run.wire import clip_text
from acrf_engine.training.ending import LastWords, Orphaned, StopAsked, for_the_user, is_the_users
from acrf_engine.training.rank_zero import RankZero
from acrf_engine.training.threads import training_threads

log = logging.getLogger("acrf.worker")

ORPHANED_EXIT = 75


class Worker:
    """One attempt at a run, inside its own process."""

    def __init__(
        self, folder: RunFolder, reporter: Reporter, inbox: Inbox, supervisor_pid: int, reached: Any = None
    ) -> None:
        self.folder = folder
        self.report = reporter
        self.inbox = inbox
        self.supervisor_pid = supervisor_pid
        self.reached = reached
        self.step = folder.recorded_status().step
        self._signalled = False
        self._waiting: list[Command] = []
        self.crew = RankZero(reporter)

    def run(self) -> Event:
        """Prepare, then train to the end. Returns the last event; raises Orphaned after a last checkpoint."""
        config = load_config(self.folder.config)
        self.report(StateChanged("caching", self.step, 0))
        # torch and the model classes take seconds to import, so the first events are out before them.
        self.report(Progress("loading", 0, 0, "starting torch"))
        import torch

        from acrf_engine.tracking.tracking import Tracking
        from acrf_engine.training.checkpoint import in_place
        from acrf_engine.training.plan import plan_event
        from acrf_engine.training.preparation import prepare
        from acrf_engine.training.session import Session
        from acrf_engine.training.trainer import Trainer

        seat = places.seat()
        torch.set_num_threads(training_threads(seat.neighbours if seat else 1))
        fresh = not in_place(self.folder.checkpoints)
        ranks = self.crew.meet(config, seat, self.folder, fresh)
        prepared = prepare(config, self.report, self._pulse, fresh=fresh, cached=self.crew.cached)
        tracking = Tracking(config, self.folder, self.report)
        trainer = Trainer(config, self.folder, prepared, tracking.report, ranks)
        tracking.report(plan_event(trainer))

        def watch() -> None:
            if self.reached is not None:
                self.reached.value = trainer.step
            self.watch()
            ranks.keep_waiting()

        session = Session(trainer, tracking.report, self.inbox, watch, self._waiting)
        try:
            last = session.run()
            ranks.order("end")
            return last
        except Orphaned:
            ranks.order("end")
            raise
        finally:
            self.step = trainer.step
            trainer.close()
            tracking.close()

    def _pulse(self) -> None:
        """During loading and caching: only stop has a meaning yet; the rest waits for the first step."""
        self.watch()
        for command in self.inbox.poll():
            if command.name == "stop":
                self.report(Ack(command.id, command.name, True, self.step, "stopped before the first step"))
                raise StopAsked("asked to stop before the first step")
            self._waiting.append(command)

    def watch(self) -> None:
        """Raises Orphaned when the supervisor is gone, StopAsked when this process was asked to end."""
        if os.getppid() != self.supervisor_pid:
            raise Orphaned
        self.crew.report_readings()
        if self._signalled:
            raise StopAsked("the worker was asked to end (SIGTERM)")

    def on_signal(self, *_: Any) -> None:
        self._signalled = True


def main(run_folder: str, events: Any, commands: Any, supervisor_pid: int, reached: Any = None) -> None:
    """Entry of a worker process, of any rank; `reached` is a shared counter of the steps taken."""
    if (seat := places.seat()) is not None and seat.rank > 0:
        from acrf_engine.training import follower

        follower.main(seat, run_folder)
    faulthandler.enable()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s", stream=sys.stderr)
    folder = RunFolder(Path(run_folder))
    reporter = Reporter(events)
    worker = Worker(folder, reporter, Inbox(commands), supervisor_pid, reached)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, worker.on_signal)
    code = 0
    try:
        reporter(worker.run())
    except Orphaned:
        log.error("the supervisor is gone: checkpoint saved, leaving")
        _record_interruption(folder, worker)
        code = ORPHANED_EXIT
    except StopAsked as stop:
        reporter(Stopped(worker.step, stop.reason))
    except BaseException as error:
        traceback.print_exc()
        words = worker.crew.explain(error) or LastWords(
            for_the_user(error), clip_text(traceback.format_exc()), "data" if is_the_users(error) else "failed"
        )
        worker.crew.say_last(words)
        reporter(ErrorEvent(words.message, worker.step, words.traceback))
        reporter(Failed(worker.step, words.message, kind=words.kind))
        code = 2 if words.kind == "data" else 1
    worker.crew.over()
    reporter.close(lambda: os.getppid() == supervisor_pid)
    sys.stderr.flush()
    sys.stdout.flush()
    os._exit(code)  # no interpreter shutdown: a library's thread must not keep a finished run alive


def _record_interruption(folder: RunFolder, worker: Worker) -> None:
    """The supervisor cannot say it any more, so the worker does, once it has the lock."""
    try:
        with folder.hold():
            status = folder.recorded_status()
            status.state = "interrupted"
            status.error = "the supervisor went without a word; a checkpoint was saved, continue with `acrf-tui resume`"
            status.supervisor_pid = status.worker_pid = None
            status.step = worker.step
            folder.write_status(status)
    except RunError:
        log.warning("someone else holds the run already")
