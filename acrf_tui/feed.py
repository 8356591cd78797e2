"""The one thread that reads a run: history first, then the stream, posted to a widget in batches.

One fetch is in flight: the next pull waits until the screen took the last batch, so a terminal that stalls lets events
gather where they belong, at the supervisor.
"""

from __future__ import annotations

import dataclasses
import threading
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from textual.message import Message
from textual.message_pump import MessagePump

from acrf_engine.protocol import Ack, Event
from acrf_tui.printable import printable

if TYPE_CHECKING:
    from acrf_engine.run.columns import StepColumns
    from acrf_engine.run.telemetry import History

RunEnded = EOFError
"""Raised by `RunSource.pull` when the supervisor is gone: nothing more will come."""
PULL_SECONDS = 1.0
RETRY_SECONDS = 1.0
FILES = ("path", "baseline")
"""Fields that name files to be opened; all others are there to be shown."""


class RunSource(Protocol):
    """A run as the dashboard needs it; all methods block and are called off the app's thread."""

    @property
    def name(self) -> str:
        """The run's name."""
        ...

    @property
    def folder(self) -> Path:
        """The run folder."""
        ...

    @property
    def read_only(self) -> bool:
        """Commands make no sense: an observer's view, or a run that has ended."""
        ...

    @property
    def skew(self) -> str:
        """Why this version may only watch the run; empty where it may steer, or nothing was pulled yet."""
        ...

    def history(self) -> History:
        """What is needed to draw the run so far, from the store; the older steps of a long run are condensed."""
        ...

    def steps(self, first: float, last: float) -> StepColumns:
        """Every step from `first` to `last`."""
        ...

    def pull(self, after: int, timeout: float) -> list[Event]:
        """Events with a larger `seq`, waiting up to `timeout` seconds; raises RunEnded when there is no supervisor."""
        ...

    def status(self) -> dict[str, Any]:
        """status.json joined with the truth of the lock: state, step, total_steps, eta_s, error, last_checkpoint."""
        ...

    def command(self, name: str, **args: Any) -> Ack:
        """Send a command and wait for its acknowledgement; raises ConnectionError with a clear message."""
        ...


class HistoryRead(Message):
    """The history has been read; `status` is the run's status at that moment."""

    def __init__(self, history: History, status: dict[str, Any]) -> None:
        super().__init__()
        self.history, self.status = history, status


class StepsRead(Message):
    """The steps of a window, in full; None where they could not be read, and why."""

    def __init__(self, first: float, last: float, steps: StepColumns | None, error: str) -> None:
        super().__init__()
        self.first, self.last, self.steps, self.error = first, last, steps, error


class Batch(Message):
    """New events, in order. Call `Feed.taken` when they are in the state."""

    def __init__(self, events: list[Event]) -> None:
        super().__init__()
        self.events = events


class StreamEnded(Message):
    """The supervisor is gone; `status` says what is known of the run now."""

    def __init__(self, status: dict[str, Any]) -> None:
        super().__init__()
        self.status = status


class FeedTrouble(Message):
    """Reading failed and is tried again; an empty text says that it works again."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text


class Answered(Message):
    """A command came back: acknowledged (`ack`), or not delivered (`error`)."""

    def __init__(self, name: str, ack: Ack | None, error: str) -> None:
        super().__init__()
        self.name, self.ack, self.error = name, ack, error


def harmless(value: Any, keep: tuple[str, ...] = FILES) -> Any:
    """`value`, of an event or of status.json, with control characters made visible.

    Captions, file names and other clients' commands come up in texts, and must not speak to the terminal.
    """
    if isinstance(value, str):
        return printable(value, keep="\n\t")
    if isinstance(value, dict):
        return {harmless(key): item if key in keep else harmless(item) for key, item in value.items()}
    if isinstance(value, list) and value and not isinstance(value[0], int | float):
        return [harmless(item) for item in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        shown = {f.name: getattr(value, f.name) for f in dataclasses.fields(value) if f.name not in keep}
        changed = {name: new for name, old in shown.items() if (new := harmless(old)) != old}
        return dataclasses.replace(value, **changed) if changed else value
    return value


class Feed:
    """Reads a source in a daemon thread and posts to `target` until `stop`."""

    def __init__(self, source: RunSource, target: MessagePump) -> None:
        self._source, self._target = source, target
        self._stop = threading.Event()
        self._taken = threading.Event()
        self._reading: tuple[float, float] | None = None
        self._unreadable: tuple[float, float] | None = None
        self._thread = threading.Thread(target=self._run, name=f"feed-{uuid.uuid4().hex[:6]}", daemon=True)

    def start(self) -> None:
        """Begin reading."""
        self._thread.start()

    def stop(self) -> None:
        """Ask the thread to end; a pull that is under way is let go."""
        self._stop.set()
        self._taken.set()

    def taken(self) -> None:
        """The last batch is in the state: fetch the next."""
        self._taken.set()

    @property
    def alive(self) -> bool:
        """The thread is still reading."""
        return self._thread.is_alive()

    def send(self, name: str, **args: Any) -> None:
        """Send a command from a thread of its own; the answer arrives as `Answered`."""
        threading.Thread(target=self._send, args=(name, args), name=f"command-{name}", daemon=True).start()

    def read_steps(self, first: float, last: float) -> None:
        """Read these steps in a thread of its own; they arrive as `StepsRead`.

        Does nothing while others are read, and where the same could not be read the last time.
        """
        if self._reading is None and (first, last) != self._unreadable:
            self._reading = (first, last)
            threading.Thread(target=self._read_steps, args=(first, last), name="steps", daemon=True).start()

    def _read_steps(self, first: float, last: float) -> None:
        steps: StepColumns | None = None
        error = ""
        try:
            steps = self._source.steps(first, last)
        except Exception as problem:  # the store may be locked, the folder gone; what is drawn stays as it is
            error = harmless(str(problem)) or type(problem).__name__
        self._unreadable = (first, last) if steps is None else None
        self._reading = None
        self._post(StepsRead(first, last, steps, error))

    def _send(self, name: str, args: dict[str, Any]) -> None:
        ack: Ack | None = None
        error = ""
        try:
            ack = self._source.command(name, **args)
        except Exception as problem:  # whatever the link raises must reach the user, not end a thread silently
            error = str(problem) or type(problem).__name__
        self._post(Answered(name, harmless(ack), harmless(error)))

    def _post(self, message: Message) -> None:
        if not self._stop.is_set():
            self._target.post_message(message)

    def _run(self) -> None:
        after = self._read_history()
        troubled = False
        while not self._stop.is_set():
            try:
                events = self._source.pull(after, PULL_SECONDS)
            except RunEnded:
                self._post(StreamEnded(self._status()))
                return
            except Exception as problem:  # a broken link is retried and shown, never fatal
                troubled = True
                self._post(FeedTrouble(harmless(str(problem)) or type(problem).__name__))
                self._stop.wait(RETRY_SECONDS)
                continue
            if troubled:
                troubled = False
                self._post(FeedTrouble(""))
            if events:
                after = max(after, max(event.seq for event in events))
                self._taken.clear()
                self._post(Batch(harmless(events)))
                self._taken.wait()

    def _read_history(self) -> int:
        while not self._stop.is_set():
            try:
                history = self._source.history()
            except Exception as problem:  # the store may be locked for a moment
                self._post(FeedTrouble(f"reading the history: {problem}"))
                self._stop.wait(RETRY_SECONDS)
                continue
            self._taken.clear()
            shown = dataclasses.replace(history, events=harmless(history.events))
            self._post(HistoryRead(shown, self._status()))
            self._taken.wait()
            return history.last_seq
        return 0

    def _status(self) -> dict[str, Any]:
        try:
            return dict(harmless(self._source.status()))
        except Exception as problem:  # the folder may be gone; the reason is what the user needs
            return {"state": "interrupted", "error": f"the run's status cannot be read: {problem}", "time": time.time()}
