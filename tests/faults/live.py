"""A training that goes on while apps, sockets and terminals are maltreated, and what is looked at meanwhile."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import select
import signal
import socket
import statistics
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

from acrf_engine.run.client import Run
from acrf_engine.run.folder import RunError, RunFolder, Status
from acrf_engine.run.link import read_socket_path
from acrf_engine.run.telemetry import TelemetryReader
from tests.e2e.terminal import Terminal

APP = [sys.executable, "-m", "acrf_tui.cli"]
UNHURRIED = ["nice", "-n", "10"]
"""A training that has no end takes what the tests beside it leave."""
PATIENCE_S = 90.0
NOBODY = 65534
MODES = {
    "the alternate screen": b"?1049",
    "mouse clicks": b"?1000",
    "mouse moves": b"?1003",
    "mouse coordinates": b"?1006",
    "bracketed paste": b"?2004",
    "focus reports": b"?1004",
}


def eventually(true: Callable[[], bool], what: str, patience_s: float = PATIENCE_S) -> None:
    """Wait for something that sends no event."""
    end = time.monotonic() + patience_s
    while not true():
        assert time.monotonic() < end, what
        time.sleep(0.02)


def cli(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """`acrf-tui ...` to its end, without a terminal."""
    options = {"stdin": subprocess.DEVNULL, "timeout": PATIENCE_S, "encoding": "utf-8", "errors": "replace"} | options
    return subprocess.run([*APP, *arguments], capture_output=True, **options)


def left_on(raw: bytes) -> list[str]:
    """What a program, by all that it wrote to its terminal, has left switched on; a hidden cursor counts."""
    found = [name for name, mode in MODES.items() if raw.rfind(mode + b"h") > raw.rfind(mode + b"l")]
    return found + (["a hidden cursor"] if raw.rfind(b"?25l") > raw.rfind(b"?25h") else [])


def takes_lines(terminal: Terminal) -> bool:
    """Whether the terminal echoes and collects lines again, as a shell leaves it to its programs."""
    flags = termios.tcgetattr(terminal._fd)[3]
    return bool(flags & termios.ECHO) and bool(flags & termios.ICANON)


class LiveRun:
    """A headless run of the built-in model that goes on until it is ended."""

    def __init__(self, runs: Path, name: str, *more: str, environment: dict[str, str] | None = None) -> None:
        runs.mkdir(parents=True, exist_ok=True)
        self.runs = runs
        self.folder = RunFolder(runs / name)
        self.words = runs / f".{name[:60]}.stderr"
        with self.words.open("wb") as stderr:
            self.process = subprocess.Popen(
                [*UNHURRIED, *APP, "demo", "--headless", "--name", name, "--runs", str(runs), "--steps", "1000000",
                 "--set", "scheduler=constant", "--set", "checkpoint.every=50", *more],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=stderr, env=environment,
            )  # fmt: skip
        eventually(self._begun, f"no first step: {self.words.read_text(errors='replace')}")

    def _begun(self) -> bool:
        assert self.process.poll() is None, self.words.read_text(errors="replace")
        with contextlib.suppress(RunError):
            return self.status().step > 0
        return False

    def status(self) -> Status:
        return self.folder.recorded_status()

    @property
    def supervisor(self) -> int:
        pid = self.status().supervisor_pid
        assert pid is not None
        return pid

    @property
    def worker(self) -> int:
        pid = self.status().worker_pid
        assert pid is not None
        return pid

    def next_steps(self, count: int, after: int = 0) -> list[dict[str, Any]]:
        """The next `count` step events, as they come, after what is stored by now and after the number `after`."""
        found: list[dict[str, Any]] = []
        run = Run(self.folder, observe=True)
        try:
            stored = TelemetryReader(self.folder.telemetry).last_seq()
            for body in run.follow(max(stored, after)):
                found += [body] if body["type"] == "step" else []
                if len(found) == count:
                    return found
        finally:
            run.close()
        raise AssertionError(f"the run ended: {self.status()}")

    def trains_on(self) -> None:
        """Steps keep coming, in order, and none is left out."""
        steps = [body["step"] for body in self.next_steps(3)]
        assert steps == list(range(steps[0], steps[0] + 3))

    def control(self, *command: str) -> subprocess.CompletedProcess[str]:
        return cli("control", str(self.folder.path), *command)

    def answers(self) -> None:
        """A command from another terminal is carried out."""
        done = self.control("set", "snr_gamma=5")
        assert done.returncode == 0, done.stderr
        assert "done at step" in done.stdout

    def attach(self, *more: str, columns: int = 120, rows: int = 40, **environment: str) -> Line:
        return Line([*APP, "attach", str(self.folder.path), *more], columns, rows, **environment)

    def connect(self) -> socket.socket:
        """A bare connection to the supervisor's socket."""
        path = read_socket_path(self.folder.socket)
        assert path is not None
        bare = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        bare.connect(path)
        bare.settimeout(PATIENCE_S)
        return bare

    def end(self) -> None:
        """Leave no process behind, whatever the test did."""
        pids = [self.process.pid]
        with contextlib.suppress(RunError):
            status = self.status()
            pids += [pid for pid in (status.supervisor_pid, status.worker_pid) if pid]
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()


class Line(Terminal):
    """A terminal whose line can drop."""

    def drain(self) -> None:
        """Read what is there now."""
        while select.select([self._fd], [], [], 0)[0] and self._read():
            pass

    def hang_up(self) -> None:
        os.close(self._fd)

    def close(self) -> None:
        # After a hang-up the descriptor is closed already.
        with contextlib.suppress(OSError):
            super().close()


@contextlib.contextmanager
def closing(terminal: Line) -> Iterator[Line]:
    """The terminal, closed and its program ended afterwards."""
    try:
        yield terminal
    finally:
        terminal.close()


def descriptors_and_threads(pid: int) -> tuple[int, int]:
    return len(os.listdir(f"/proc/{pid}/fd")), len(os.listdir(f"/proc/{pid}/task"))


def as_nobody(act: Callable[[], Any]) -> str:
    """What comes of `act` in a process of the user nobody: its result, or the error's name."""
    reader, writer = os.pipe()
    if (pid := os.fork()) == 0:
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            said = str(act())
        except OSError as error:
            said = type(error).__name__
        except BaseException as error:
            said = f"unexpected: {error!r}"
        os.write(writer, said.encode())
        os._exit(0)
    os.close(writer)
    with open(reader, encoding="utf-8") as pipe:
        said = pipe.read()
    os.waitpid(pid, 0)
    return said


def settled(pid: int) -> tuple[int, int]:
    """`descriptors_and_threads`, once those that served the last client are gone."""
    seen = [descriptors_and_threads(pid)]
    while len(seen) < 6 or len(set(seen[-6:])) > 1:
        time.sleep(0.05)
        seen.append(descriptors_and_threads(pid))
    return seen[-1]


def no_more(pid: int, before: tuple[int, int]) -> bool:
    """Whether the process has no more descriptors and no more threads than before."""
    return all(now <= then for now, then in zip(descriptors_and_threads(pid), before, strict=True))


def resident_mb(pid: int) -> float:
    return float(psutil.Process(pid).memory_info().rss / 1e6)


def gaps(steps: list[dict[str, Any]]) -> list[float]:
    """Seconds between the steps' time stamps."""
    times = [body["time"] for body in steps]
    return [after - before for before, after in itertools.pairwise(times)]


def median_gap(steps: list[dict[str, Any]]) -> float:
    return statistics.median(gaps(steps))


def shown_step(terminal: Terminal) -> int:
    """The step that the dashboard shows; 0 where it shows none."""
    found = re.search(r"step\s+([\d,]+)", terminal.text)
    return int(found[1].replace(",", "")) if found else 0
