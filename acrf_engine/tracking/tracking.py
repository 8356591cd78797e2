"""Feeds the trackers from the run's events, in a thread of its own: training never waits for one, nor ends with one.

A plan event says where the run stands (at its start, after a resume, after a rollback), step and validation events
carry the metrics. What goes wrong is told as a warning in the journal; training goes on.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from acrf_engine.config import RunConfig
from acrf_engine.logging_config import TrackerName
from acrf_engine.protocol import Event, Plan, Step, Validation, WarningEvent
from acrf_engine.run.folder import RunFolder
from acrf_engine.run.wire import clip_text
from acrf_engine.tracking.metrics import hyperparameters, of_step, of_validation
from acrf_engine.tracking.tracks import Track, open_tracker, takes_steps_back

if TYPE_CHECKING:
    from accelerate.tracking import GeneralTracker

log = logging.getLogger("acrf.tracking")

WAITING = 10_000
"""Events that may wait for a slow tracker; later ones are left out, and counted."""
FINISH_S = 30.0
"""How long the end of a run waits for trackers to finish."""
Metrics = tuple[str, int, dict[str, float]]
"""Group (train or validation), step, values."""


class Tracking:
    """Passes every event on to `report`, and to the trackers of the config those that they are for."""

    def __init__(self, config: RunConfig, folder: RunFolder, report: Callable[[Event], None]) -> None:
        self._config = config
        self._folder = folder
        self._report = report
        self._every = config.logging.every
        self._events: queue.Queue[Event | None] = queue.Queue(WAITING)
        self._said: deque[str] = deque()
        self._left_out = 0
        self._thread: threading.Thread | None = None

    def report(self, event: Event) -> None:
        """Pass an event on. Never waits."""
        self._report(event)
        if not self._config.logging.trackers:
            return
        self._tell()
        if isinstance(event, Plan) and self._thread is None:
            self._thread = threading.Thread(target=self._run, name="tracking", daemon=True)
            self._thread.start()
        if isinstance(event, Plan | Validation) or (isinstance(event, Step) and self._wanted(event)):
            try:
                self._events.put_nowait(event)
            except queue.Full:
                self._left_out += 1

    def close(self) -> None:
        """Let the trackers finish, for FINISH_S at most."""
        if self._thread is None:
            return
        with contextlib.suppress(queue.Full):
            self._events.put(None, timeout=FINISH_S)
            self._thread.join(FINISH_S)
        if self._thread.is_alive():
            self._said.append(f"the trackers are not done after {FINISH_S:.0f} s: their last metrics may be missing")
        if self._left_out:
            self._said.append(f"the trackers were too slow for {self._left_out:,} events, which are not in them")
        self._tell()

    def _wanted(self, step: Step) -> bool:
        return step.step % self._every == 0 or step.step == step.total_steps

    def _tell(self) -> None:
        """Warnings of the thread, told by the one thread that reports."""
        while self._said:
            self._report(WarningEvent(clip_text(self._said.popleft())))

    def _run(self) -> None:
        feeds: list[Feed] = []
        while (event := self._events.get()) is not None:
            match event:
                case Plan() if not feeds:
                    track = Track(self._folder, self._config.logging, len(event.anchors))
                    given = hyperparameters(self._config, event.anchors)
                    feeds = [Feed(name, track, self._said.append) for name in self._config.logging.trackers]
                    for feed in feeds:
                        feed.start(event.start_step, given)
                case Plan():
                    for feed in feeds:
                        feed.go_back(event.start_step)
                case Step():
                    self._hand(feeds, ("train", event.step, of_step(event)))
                case Validation():
                    self._hand(feeds, ("validation", event.step, of_validation(event)))
        for feed in feeds:
            feed.finish()

    def _hand(self, feeds: list[Feed], metrics: Metrics) -> None:
        for feed in feeds:
            feed.log(metrics)


class Feed:
    """One tracker, and how far its track is. Nothing that its library raises gets out."""

    def __init__(self, name: TrackerName, track: Track, say: Callable[[str], None]) -> None:
        self.name = name
        self._track = track
        self._say = say
        self._tracker: GeneralTracker | None = None
        self._failing = False
        self._position_file = track.run.trackers / f".{name}.json"
        self._reached: dict[str, int] = {}

    def start(self, after: int, given: dict[str, bool | int | float | str]) -> None:
        """Begin, or go on behind step `after`."""
        self._reached = self._recorded()
        fresh = not self._reached
        try:
            self._open(after)
            if fresh and self._tracker is not None:
                self._tracker.store_init_configuration(given)
        except BaseException as error:  # a library may even raise SystemExit
            self._tracker = None
            self._complain("could not start, and the run goes on without it", error)

    def go_back(self, after: int) -> None:
        """The run went back to step `after`: so does the track, where it can."""
        if self._tracker is None or not takes_steps_back(self.name):
            return
        try:
            self._tracker.finish()
            self._open(after)
        except BaseException as error:
            self._tracker = None
            self._complain("could not go back, and the run goes on without it", error)

    def log(self, metrics: Metrics) -> None:
        """Hand metrics over, unless the track has that step already."""
        group, step, values = metrics
        if self._tracker is None or step <= self._reached.get(group, -1):
            return
        try:
            # Recorded first: killed in between, a step is missing, which is better than having it twice.
            self._reached[group] = step
            self._record()
            self._tracker.log(values, step=step)
        except BaseException as error:
            if not self._failing:
                self._complain(f"could not write step {step}; it is tried again with the next", error)
            self._failing = True
        else:
            self._failing = False

    def finish(self) -> None:
        if self._tracker is None:
            return
        try:
            self._tracker.finish()
        except BaseException as error:
            self._complain("did not end well", error)

    def _open(self, after: int) -> None:
        self._tracker = open_tracker(self.name, self._track, after)
        if takes_steps_back(self.name):
            self._reached = {group: min(step, after) for group, step in self._reached.items()}
        self._record()

    def _recorded(self) -> dict[str, int]:
        try:
            raw = json.loads(self._position_file.read_text(encoding="utf-8"))
            return {str(group): int(step) for group, step in raw.items()}
        except (OSError, ValueError, AttributeError, TypeError):
            return {}

    def _record(self) -> None:
        beside = self._position_file.with_suffix(".tmp")
        beside.write_text(json.dumps(self._reached), encoding="utf-8")
        os.replace(beside, self._position_file)

    def _complain(self, what: str, error: BaseException) -> None:
        log.warning("%s", self.name, exc_info=error)
        reason = " ".join(str(error).split()) or type(error).__name__
        self._say(f"tracker {self.name} {what}: {clip_text(reason, 500)}")
