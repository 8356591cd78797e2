"""What a run's supervisor costs: memory, idle CPU, stalls of the training beside a stopped app."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from acrf_engine.run.client import Run
from acrf_engine.run.folder import RunFolder
from benchmarks.live import APP, gaps, interval, live_run
from benchmarks.table import row
from benchmarks.terminal import terminal

SECONDS, BLOCKS, STEPS_PER_BLOCK = 20.0, 12, 50
QUICK_SECONDS, QUICK_BLOCKS = 4.0, 2


def measure(quick: bool = False) -> Iterator[dict[str, Any]]:
    """Rows of the table."""
    place = Path(tempfile.mkdtemp(prefix="acrf-bench-"))
    try:
        with live_run(place, "live") as folder, contextlib.closing(Run(folder)) as run:
            yield from _of_a_live_run(folder, run, quick)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _of_a_live_run(folder: RunFolder, run: Run, quick: bool) -> Iterator[dict[str, Any]]:
    supervisor = psutil.Process(folder.recorded_status().supervisor_pid)
    seconds = QUICK_SECONDS if quick else SECONDS
    busy = _cpu_share(supervisor, seconds)
    pairs = _stalls(folder, QUICK_BLOCKS if quick else BLOCKS)
    memory = supervisor.memory_info().rss / 1e6
    run.command("pause")
    idle = _cpu_share(supervisor, seconds)
    run.command("resume")
    yield row("supervisor: memory, run of the demo", f"{memory:.1f} MB", memory, "40 MB", memory <= 40)
    yield row("supervisor: CPU while the run is paused", f"{idle:.2%} of a core", idle, "1%", idle <= 0.01)
    yield row("supervisor: CPU while it trains", f"{busy:.2%} of a core", busy)
    ratios = [statistics.mean(stopped) / statistics.mean(alone) for alone, stopped in pairs]
    low, high = interval(ratios)
    ratio = statistics.median(ratios)
    yield row(
        "training: step time, app stopped / no app",
        f"{ratio:.3f} [{low:.3f}, {high:.3f}]", ratio, "interval has 1", low <= 1.0,
    )  # fmt: skip
    for index, name in enumerate(("without an app", "with a stopped app")):
        longest = max(max(pair[index]) for pair in pairs)
        yield row(f"training: longest stall {name}", f"{longest:.2f} s", longest)


def _cpu_share(process: psutil.Process, seconds: float) -> float:
    """CPU time per second of the clock."""
    spent, began = sum(process.cpu_times()[:2]), time.monotonic()
    time.sleep(seconds)
    return float((sum(process.cpu_times()[:2]) - spent) / (time.monotonic() - began))


def _stalls(folder: RunFolder, blocks: int) -> list[tuple[list[float], list[float]]]:
    """Gaps between steps in blocks without an app, and with a stopped one attached, alternating."""
    pairs = []
    for _ in range(blocks):
        alone = gaps(folder, STEPS_PER_BLOCK)
        with terminal([*APP, "attach", str(folder.path)]) as app:
            app.until(b"RUNNING")
            os.kill(app.pid, signal.SIGSTOP)
            pairs.append((alone, gaps(folder, STEPS_PER_BLOCK)))
    return pairs
