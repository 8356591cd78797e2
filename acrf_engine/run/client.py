"""A run as the app and the command line hold it: start it, read its history, follow it, command it."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from acrf_engine import __version__
from acrf_engine.protocol import PROTOCOL_VERSION, Ack, Event
from acrf_engine.run.columns import StepColumns
from acrf_engine.run.folder import RunError, RunFolder, remember, require_utf8
from acrf_engine.run.link import Connection, read_socket_path
from acrf_engine.run.ranks import PLACES
from acrf_engine.run.telemetry import History, TelemetryReader
from acrf_engine.run.wire import from_wire

LAUNCH_PATIENCE_S = 30.0
ACK_PATIENCE_S = 620.0
SAID_BY_US = "acrf-tui: "
NOT_TAKEN = 2
"""The exit status of a supervisor that could not take the run: another one, started at the same time, holds it."""


class Run:
    """A run, live or ended, followed by pulling with a cursor; what the supervisor has forgotten is read from disk."""

    def __init__(self, folder: RunFolder, observe: bool = False) -> None:
        self.run_folder = folder
        self.name = folder.name
        self.folder = folder.path
        self.observe = observe
        self._telemetry = TelemetryReader(folder.telemetry)
        self._follow: Connection | None = None
        self.skew = ""
        """Why this version may only watch, where the supervisor is of another one; known after the first pull."""

    @property
    def read_only(self) -> bool:
        """Whether commands make no sense: an observer's view, a run that has ended, or a supervisor too different."""
        return self.observe or bool(self.skew) or not self.run_folder.is_held()

    def history(self) -> History:
        """As much of the past as an app needs to draw it."""
        return self._telemetry.history(condensed=True)

    def steps(self, first: float, last: float) -> StepColumns:
        """Every step from `first` to `last`, where the history holds them condensed; bounded to 65,536 of them."""
        return self._telemetry.steps(first, last)

    def status(self) -> dict[str, Any]:
        return dataclasses.asdict(self.run_folder.read_status())

    def pull_bodies(self, after: int, timeout: float) -> list[dict[str, Any]]:
        """Wire events after `after`, waiting up to `timeout` seconds. Raises EOFError at the end of the run."""
        try:
            if self._follow is None:
                self._follow = self._connect()
                self.skew = self._skew_of(self._follow)
            answer = self._follow.ask({"op": "pull", "after": after, "wait": timeout}, timeout_s=timeout + 30)
        except OSError:
            self._hang_up()
            if self.run_folder.is_held() and self._socket_exists():
                time.sleep(min(timeout, 0.2))
                return []
            if rest := self._telemetry.after(after):
                return rest
            raise EOFError(f"run {self.name} has ended") from None
        if "gap" in answer:
            return self._telemetry.after(after)
        events: list[dict[str, Any]] = answer.get("events", [])
        if not events and answer.get("ended"):
            self._hang_up()
            raise EOFError(f"run {self.name} has ended")
        return events

    def pull(self, after: int, timeout: float) -> list[Event]:
        """Events after `after`; those of a newer version that this one does not know are left out."""
        events = (from_wire(body) for body in self.pull_bodies(after, timeout))
        return [event for event in events if event is not None]

    def follow(self, after: int) -> Iterator[dict[str, Any]]:
        """Wire events after `after` until the run has ended."""
        while True:
            try:
                bodies = self.pull_bodies(after, 1.0)
            except EOFError:
                return
            for body in bodies:
                after = body["seq"]
                yield body

    def command(self, name: str, **args: Any) -> Ack:
        """Send a command and wait until it has taken effect or was refused. Raises ConnectionError, saying why."""
        if self.observe:
            raise ConnectionError("this app only observes; attach without --observe to steer the run")
        try:
            connection = self._connect()
        except OSError:
            state = self.run_folder.read_status().state
            raise ConnectionError(f"run {self.name} is {state}: there is no worker to command") from None
        with contextlib.closing(connection):
            if skew := self._skew_of(connection):
                raise ConnectionError(skew)
            answer = connection.ask({"op": "command", "name": name, "args": args}, timeout_s=ACK_PATIENCE_S)
        event = from_wire(answer["ack"]) if "ack" in answer else None
        if not isinstance(event, Ack):
            raise ConnectionError(str(answer.get("error", "the supervisor gave no answer")))
        return event

    def _skew_of(self, connection: Connection) -> str:
        hello = connection.ask({"op": "hello"})
        if "error" in hello:  # turned away
            raise ConnectionError(hello["error"])
        if hello.get("protocol") == PROTOCOL_VERSION:
            return ""
        return (
            f"run {self.name} is supervised by acrf-tui {hello.get('version')}, this is {__version__}: "
            "it can be watched, but not steered from here"
        )

    def _socket_exists(self) -> bool:
        path = read_socket_path(self.run_folder.socket)
        return path is not None and os.path.exists(path)

    def _connect(self) -> Connection:
        path = read_socket_path(self.run_folder.socket)
        if path is None:
            raise FileNotFoundError("no socket")
        return Connection(path)

    def _hang_up(self) -> None:
        if self._follow is not None:
            self._follow.close()
            self._follow = None

    def close(self) -> None:
        self._hang_up()


def launch(folder: RunFolder, when_busy: str = "", *, seated: bool = False) -> Run:
    """Start a supervisor that outlives this process; returns once it answers. Raises RunError with its last words.

    Where another run uses the device, a run waits for a GPU and shares the CPU; `--wait` or `--share` does it for both.
    `seated`: this process is rank 0 of those that another launcher has started, and so is the worker.
    """
    require_utf8(folder.path)
    remember(folder)
    attempts = folder.recorded_status().attempt
    mark = folder.log.stat().st_size if folder.log.exists() else 0
    with open(os.open(folder.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "acrf_engine.run.supervisor", str(folder.path), *filter(None, [when_busy])],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env=supervisor_environment(seated),
        )
    run = Run(folder)
    end = time.monotonic() + LAUNCH_PATIENCE_S
    while time.monotonic() < end:
        code = process.poll()
        with contextlib.suppress(RunError):
            status = folder.recorded_status()
            if status.supervisor_pid == process.pid and run._socket_exists():
                return run
            if code not in (None, NOT_TAKEN) and status.attempt > attempts:
                return run  # it has begun and ended already; its history tells how
        if code is not None:
            raise RunError(f"run {folder.name} could not start: {_last_words(folder.log, mark)}")
        time.sleep(0.01)
    raise RunError(
        f"run {folder.name}: the supervisor does not answer after {LAUNCH_PATIENCE_S:.0f} s (see {folder.log})"
    )


def supervisor_environment(seated: bool = False) -> dict[str, str]:
    """The environment of supervisor and worker: quiet, UTF-8, and idle threads that sleep instead of spinning.

    Without another launcher's places, where not `seated`: they are those of some other program.
    """
    environment = {name: value for name, value in os.environ.items() if seated or name not in PLACES}
    environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    environment.setdefault("PYTHONUTF8", "1")
    environment.setdefault("TOKENIZERS_PARALLELISM", "false")
    environment.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    environment.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    return environment


def _last_words(log: Path, mark: int) -> str:
    with contextlib.suppress(OSError):
        lines = log.read_bytes()[mark:].decode("utf-8", "replace").strip().splitlines()
        said = [line for line in lines if line.startswith(SAID_BY_US)]  # another supervisor may write to the same log
        if lines:
            return (said or lines)[-1].removeprefix(SAID_BY_US)
    return f"see {log}"
