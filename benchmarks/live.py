"""A real training of the tiny model for others to look at, and what it does in the meantime."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from acrf_engine.run.client import Run
from acrf_engine.run.folder import RunError, RunFolder
from acrf_engine.run.telemetry import TelemetryReader

APP = [sys.executable, "-m", "acrf_tui.cli"]
SETTLING_STEPS = 10


@contextlib.contextmanager
def live_run(place: Path, name: str, *settings: str) -> Iterator[RunFolder]:
    """The demo without an end and without checkpoints, past its first steps; `settings` are KEY=VALUE."""
    folder = RunFolder(place / name)
    given = ("scheduler=constant", "checkpoint.every=0", *settings)
    headless = subprocess.Popen(
        [*APP, "demo", "--headless", "--name", name, "--runs", str(place), "--steps", "1000000",
         *(part for setting in given for part in ("--set", setting))],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        _wait_for_steps(folder)
        yield folder
        with contextlib.closing(Run(folder)) as run:
            run.command("stop")
        headless.wait(60)
    finally:
        _end(headless, folder)


def gaps(folder: RunFolder, steps: int) -> list[float]:
    """Seconds between the next `steps` steps, after a few that may have shared the machine with a starting app."""
    times: list[float] = []
    with contextlib.closing(Run(folder, observe=True)) as run:
        for body in run.follow(TelemetryReader(folder.telemetry).last_seq()):
            times += [body["time"]] if body["type"] == "step" else []
            if len(times) > SETTLING_STEPS + steps:
                break
    return [after - before for before, after in itertools.pairwise(times[SETTLING_STEPS:])]


def steps_between(folder: RunFolder, begin: float, end: float) -> int:
    """How many steps were made between two moments (Unix seconds)."""
    return sum(begin <= moment < end for moment in TelemetryReader(folder.telemetry).history().steps.time)


def interval(values: list[float]) -> tuple[float, float]:
    """A 95 % interval of the median, from order statistics."""
    ordered = sorted(values)
    margin = round(0.98 * len(ordered) ** 0.5)
    middle = len(ordered) // 2
    return ordered[max(0, middle - margin)], ordered[min(len(ordered) - 1, middle + margin)]


def median_with_interval(values: list[float]) -> tuple[float, str]:
    """The median, and its text with the interval."""
    low, high = interval(values)
    middle = statistics.median(values)
    return middle, f"{middle:.3f} [{low:.3f}, {high:.3f}]"


def _wait_for_steps(folder: RunFolder, patience_s: float = 120.0) -> None:
    end = time.monotonic() + patience_s
    while True:
        with contextlib.suppress(RunError):
            if folder.status.exists() and folder.recorded_status().step > 5:
                return
        if time.monotonic() > end:
            raise RuntimeError(f"the run does not begin (see {folder.log})")
        time.sleep(0.05)


def _end(headless: subprocess.Popen[bytes], folder: RunFolder) -> None:
    """Leave no process behind, also after an error."""
    headless.kill()
    headless.wait()
    with contextlib.suppress(RunError):
        status = folder.recorded_status()
        for pid in (status.supervisor_pid, status.worker_pid):
            if pid is not None and folder.is_held():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
