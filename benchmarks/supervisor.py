"""What a run's supervisor and an attaching app cost: memory, idle CPU, stalls of the training, time to attach."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import math
import os
import pty
import random
import select
import shutil
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

from acrf_engine.protocol import StateChanged, Step, to_wire
from acrf_engine.run.client import Run
from acrf_engine.run.folder import RunFolder, Status, create_run
from acrf_engine.run.telemetry import TelemetryReader, TelemetryWriter
from benchmarks.engine import _interval

APP = [sys.executable, "-m", "acrf_tui.cli"]
SECONDS, BLOCKS, SETTLING_STEPS, STEPS_PER_BLOCK, ATTACHES = 20.0, 12, 10, 50, 5
SHORT, LONG = 1_000, 100_000


def measure() -> Iterator[dict[str, Any]]:
    """Rows of the table."""
    place = Path(tempfile.mkdtemp(prefix="acrf-bench-"))
    try:
        yield from _of_a_live_run(place)
        yield from _of_attaching(place)
    finally:
        shutil.rmtree(place, ignore_errors=True)


# ---- a live run ------------------------------------------------------------------------------------------------------


def _of_a_live_run(place: Path) -> Iterator[dict[str, Any]]:
    folder = RunFolder(place / "live")
    headless = subprocess.Popen(
        [*APP, "demo", "--headless", "--name", "live", "--runs", str(place), "--steps", "1000000",
         "--set", "scheduler=constant", "--set", "checkpoint.every=0"],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    run = Run(folder)
    try:
        _wait(lambda: folder.status.exists() and folder.recorded_status().step > 5)
        supervisor = psutil.Process(folder.recorded_status().supervisor_pid)
        busy = _cpu_share(supervisor)
        gaps = _stalls(folder)
        memory = supervisor.memory_info().rss / 1e6
        run.command("pause")
        idle = _cpu_share(supervisor)
        run.command("resume")
        yield _row("supervisor: memory, run of the demo", f"{memory:.1f} MB", memory, "40 MB", memory <= 40)
        yield _row("supervisor: CPU while the run is paused", f"{idle:.2%} of a core", idle, "1%", idle <= 0.01)
        yield _row("supervisor: CPU while it trains", f"{busy:.2%} of a core", busy, "(reported)", True)
        ratios = [statistics.mean(stopped) / statistics.mean(alone) for alone, stopped in gaps]
        low, high = _interval(ratios)
        ratio = statistics.median(ratios)
        yield _row(
            "training: step time, app stopped / no app",
            f"{ratio:.3f} [{low:.3f}, {high:.3f}]", ratio, "interval has 1", low <= 1.0,
        )  # fmt: skip
        for index, name in enumerate(("without an app", "with a stopped app")):
            longest = max(max(pair[index]) for pair in gaps)
            yield _row(f"training: longest stall {name}", f"{longest:.2f} s", longest, "(reported)", True)
        run.command("stop")
        headless.wait(60)
    finally:
        run.close()
        _end(headless, folder)


def _cpu_share(process: psutil.Process) -> float:
    """CPU time per second of the clock."""
    spent, began = sum(process.cpu_times()[:2]), time.monotonic()
    time.sleep(SECONDS)
    return float((sum(process.cpu_times()[:2]) - spent) / (time.monotonic() - began))


def _stalls(folder: RunFolder) -> list[tuple[list[float], list[float]]]:
    """Gaps between steps in blocks without an app, and with a stopped one attached, alternating."""
    pairs = []
    for _ in range(BLOCKS):
        alone = _gaps(folder)
        with _app(["attach", str(folder.path)]) as app:
            app.until(b"RUNNING")
            os.kill(app.pid, signal.SIGSTOP)
            pairs.append((alone, _gaps(folder)))
    return pairs


def _gaps(folder: RunFolder) -> list[float]:
    """Seconds between the steps of a block; its first steps may still have shared the machine with a starting app."""
    run, times = Run(folder, observe=True), []
    with contextlib.closing(run):
        for body in run.follow(TelemetryReader(folder.telemetry).last_seq()):
            times += [body["time"]] if body["type"] == "step" else []
            if len(times) > SETTLING_STEPS + STEPS_PER_BLOCK:
                break
    return [after - before for before, after in itertools.pairwise(times[SETTLING_STEPS:])]


# ---- attaching -------------------------------------------------------------------------------------------------------


def _of_attaching(place: Path) -> Iterator[dict[str, Any]]:
    runs = {steps: history_of(place, steps) for steps in (SHORT, LONG)}
    clients = {steps: statistics.median(_client_s(run) for _ in range(ATTACHES)) for steps, run in runs.items()}
    apps: dict[int, list[float]] = {steps: [] for steps in runs}
    for _ in range(ATTACHES):
        for steps, run in runs.items():
            apps[steps].append(_app_s(run))
    drawn = {steps: statistics.median(times) for steps, times in apps.items()}
    for steps in runs:
        yield _row(
            f"attach: history() and first pull, {steps:,} steps", f"{clients[steps] * 1e3:.0f} ms", clients[steps],
            "(reported)", True,
        )  # fmt: skip
    for steps in runs:
        yield _row(
            f"attach: app on a pty until drawn, {steps:,} steps", f"{drawn[steps]:.2f} s", drawn[steps],
            "(reported)", True,
        )  # fmt: skip
    ratio = drawn[LONG] / drawn[SHORT]
    yield _row(f"attach: app until drawn, {LONG:,} / {SHORT:,} steps", f"{ratio:.2f}", ratio, "2", ratio <= 2)


def history_of(place: Path, steps: int) -> RunFolder:
    """A finished run of so many steps, as its telemetry would hold it."""
    folder = create_run(place, f"history-{steps}", "model: tiny\ndataset: demo\n", steps)
    writer, draw = TelemetryWriter(folder.telemetry), random.Random(0)
    began = time.time() - 0.1 * steps
    for seq in range(1, steps + 1):
        loss, anchor = 0.5 + 1.5 * math.exp(-seq / steps) + 0.2 * draw.random(), seq % 10
        step = Step(
            seq, steps, seq / 16, loss, loss, loss / 2, loss / 3, loss, 1e-4, 0.3, 0.1,
            [0.5], [anchor], [0.9], [loss], seq=seq, time=began + 0.1 * seq,
        )  # fmt: skip
        writer.record(to_wire(step))
    writer.record(to_wire(StateChanged("finished", steps, steps, seq=steps + 1, time=time.time())))
    writer.close()
    folder.write_status(Status("finished", step=steps, total_steps=steps, created=began, loss=0.5, attempt=1))
    return folder


def _client_s(folder: RunFolder) -> float:
    began = time.perf_counter()
    run = Run(folder)
    history = run.history()
    with contextlib.suppress(EOFError):
        run.pull(history.last_seq, 1.0)
    run.close()
    return time.perf_counter() - began


def _app_s(folder: RunFolder) -> float:
    """From the start of the process to the chart's legend on the terminal."""
    began = time.perf_counter()
    with _app(["attach", str(folder.path)]) as app:
        app.until(b"FINISHED", b"balanced")
        return time.perf_counter() - began


class _App:
    """The app on a pty of 120 x 40; `until` reads on to what is waited for."""

    def __init__(self, arguments: list[str]) -> None:
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
        self.process = subprocess.Popen(
            [*APP, *arguments], stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
            env={**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor"},
        )  # fmt: skip
        os.close(theirs)
        self.pid, self._fd = self.process.pid, ours

    def until(self, *wanted: bytes, patience_s: float = 60.0) -> None:
        seen, end = b"", time.monotonic() + patience_s
        while not seen or not all(text in seen for text in wanted):
            if time.monotonic() > end:
                raise RuntimeError(f"the app has not drawn {wanted} in {patience_s:.0f} s")
            if select.select([self._fd], [], [], 0.1)[0]:
                seen += os.read(self._fd, 65_536)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._fd)


@contextlib.contextmanager
def _app(arguments: list[str]) -> Iterator[_App]:
    app = _App(arguments)
    try:
        yield app
    finally:
        app.close()


def _wait(true: Callable[[], bool], patience_s: float = 120.0) -> None:
    end = time.monotonic() + patience_s
    while not true():
        if time.monotonic() > end:
            raise RuntimeError("the run does not begin")
        time.sleep(0.05)


def _end(headless: subprocess.Popen[bytes], folder: RunFolder) -> None:
    """Leave no process behind, also after an error."""
    headless.kill()
    headless.wait()
    status = folder.recorded_status()
    for pid in (status.supervisor_pid, status.worker_pid):
        if pid is not None and folder.is_held():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _row(what: str, measured: str, value: float, bound: str, ok: bool) -> dict[str, Any]:
    return {"what": what, "measured": measured, "value": value, "bound": bound, "ok": ok}
