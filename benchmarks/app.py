"""What the app costs: time to the first paint, bytes over the line, CPU, the training beside it, a long history."""

from __future__ import annotations

import math
import os
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from acrf_engine.protocol import StateChanged, Step
from acrf_engine.run.folder import RunFolder, Status, create_run
from acrf_engine.run.telemetry import TelemetryWriter
from acrf_engine.run.wire import to_wire
from benchmarks.live import APP, SETTLING_STEPS, gaps, live_run, median_with_interval, steps_between
from benchmarks.minimal import GREETING
from benchmarks.table import row
from benchmarks.terminal import Terminal, terminal

MINIMAL = [sys.executable, "-m", "benchmarks.minimal"]
SPLASH, USABLE, DRAWN = b"acrf-tui", b"paper", b"balanced"
"""On the terminal: the first paint, a config that can be chosen, the legend of the loss chart."""
SETTLING_S = 5.0
"""An app that has just attached still paints what it has read; the bytes are those of watching."""
TARGET_STEPS_A_SECOND = 5.0


@dataclass(frozen=True)
class Extent:
    """How much is measured."""

    paints: int
    watching_s: float
    cpu_s: float
    blocks: int
    steps_per_block: int
    attaches: int
    long: int


FULL = Extent(paints=15, watching_s=60.0, cpu_s=40.0, blocks=20, steps_per_block=30, attaches=7, long=1_000_000)
QUICK = Extent(paints=3, watching_s=8.0, cpu_s=8.0, blocks=2, steps_per_block=20, attaches=2, long=100_000)
SHORT = 1_000


def measure(quick: bool = False) -> Iterator[dict[str, Any]]:
    """Rows of the table."""
    extent = QUICK if quick else FULL
    place = Path(tempfile.mkdtemp(prefix="acrf-bench-"))
    environment = _environment(place / "home")
    try:
        yield from _of_starting(place, environment, extent)
        yield from _of_attaching(place, environment, extent)
        with live_run(place, "live") as folder:
            yield from _of_watching(folder, environment, extent)
            yield from _of_training_beside(folder, environment, extent)
            speed = 1 / statistics.median(gaps(folder, 30))
        micro_batches = max(1, round(4 * speed / TARGET_STEPS_A_SECOND))
        with live_run(place, "slower", f"gradient_accumulation={micro_batches}") as folder:
            yield from _of_cpu(folder, environment, extent, micro_batches)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _environment(home: Path) -> dict[str, str]:
    """A user who has nothing yet, and an installed program: its byte code is on disk, as pip leaves it."""
    home.mkdir(parents=True)
    folders = {f"XDG_{name}_HOME": str(home / name.lower()) for name in ("CONFIG", "STATE", "CACHE", "DATA")}
    byte_code = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(home / "pyc")}
    return {"HOME": str(home), "ACRF_RUNS": str(home / "runs"), **folders, **byte_code}


# ---- starting --------------------------------------------------------------------------------------------------------


def _of_starting(place: Path, environment: dict[str, str], extent: Extent) -> Iterator[dict[str, Any]]:
    torch = False
    minimal, splash, usable = [], [], []
    for attempt in range(extent.paints + 1):
        with terminal(MINIMAL, environment) as other:
            minimal.append(other.until(GREETING.encode()))
        with terminal(APP, environment) as app:
            splash.append(app.until(SPLASH))
            usable.append(app.until(SPLASH, USABLE))
            torch = torch or app.maps("torch")
        if not attempt:  # this one wrote the byte code
            minimal, splash, usable = [], [], []
    how = "The first paint is the first frame with content; the two programs are started in turn, byte code on disk."
    ratio, text = median_with_interval([ours / theirs for ours, theirs in zip(splash, minimal, strict=True)])
    yield row("app: first paint / that of a minimal Textual app", text, ratio, "1.3", ratio <= 1.3, how)
    ratio, text = median_with_interval([ours / theirs for ours, theirs in zip(usable, minimal, strict=True)])
    yield row("app: launchpad with its configs / a minimal app's first paint", text, ratio)
    for name, times in (("minimal app: first paint", minimal), ("app: first paint", splash),
                        ("app: launchpad with its configs", usable)):  # fmt: skip
        yield row(name, f"{statistics.median(times):.2f} s", statistics.median(times))
    yield row("app: torch in its process", "yes" if torch else "no", float(torch), "no", not torch)


# ---- attaching -------------------------------------------------------------------------------------------------------


def _of_attaching(place: Path, environment: dict[str, str], extent: Extent) -> Iterator[dict[str, Any]]:
    runs = {steps: history_of(place, steps) for steps in (SHORT, extent.long)}
    drawn: dict[int, list[float]] = {steps: [] for steps in runs}
    memory: dict[int, list[float]] = {steps: [] for steps in runs}
    for _ in range(extent.attaches):
        for steps, folder in runs.items():
            with terminal([*APP, "attach", str(folder.path)], environment) as app:
                drawn[steps].append(app.until(b"FINISHED", DRAWN))
                memory[steps].append(app.memory_mb())
    ratio, text = median_with_interval([b / a for a, b in zip(drawn[SHORT], drawn[extent.long], strict=True)])
    how = "Drawn is when the loss chart's legend is on the terminal, from the start of the process."
    long = f"{extent.long:,}"
    yield row(f"attach: until drawn, {long} / {SHORT:,} steps", text, ratio, "2", ratio <= 2, how)
    for steps, times in drawn.items():
        yield row(
            f"attach: until drawn, {steps:,} steps", f"{statistics.median(times):.2f} s", statistics.median(times)
        )
    most = max(memory[extent.long])
    yield row(f"attach: memory of the app, {long} steps", f"{most:.0f} MB", most, "150 MB", most <= 150)
    few = max(memory[SHORT])
    yield row(f"attach: memory of the app, {SHORT:,} steps", f"{few:.0f} MB", few)


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


# ---- watching --------------------------------------------------------------------------------------------------------


def _of_watching(folder: RunFolder, environment: dict[str, str], extent: Extent) -> Iterator[dict[str, Any]]:
    for name, options, bound in (("default", [], 8.0), ("--slow", ["--slow"], 2.0)):
        with terminal([*APP, "attach", str(folder.path), *options], environment) as app:
            rate, full, share, speed = _watched(app, folder, extent.watching_s)
        how = "Watching begins when an attached app has painted what it has read, and goes on for 60 s."
        told = f"{rate:.2f} KB/s"
        yield row(f"app: bytes over the line, {name}, full speed", told, rate, f"{bound:.0f} KB/s", rate <= bound, how)
        yield row(f"app: full repaints while watching, {name}", f"{full}", full, "0", full == 0)
        yield row(f"app: CPU at {speed:.1f} steps/s, {name}", f"{share:.1%} of a core", share)


def _of_cpu(
    folder: RunFolder, environment: dict[str, str], extent: Extent, micro_batches: int
) -> Iterator[dict[str, Any]]:
    with terminal([*APP, "attach", str(folder.path)], environment) as app:
        _, _, share, speed = _watched(app, folder, extent.cpu_s)
    how = (
        f"For the CPU share the demo trains with {micro_batches} micro-batches a step instead of 4, which makes about "
        f"{TARGET_STEPS_A_SECOND:.0f} steps/s on this machine; the speed that it had stands beside the share."
    )
    told = f"{share:.1%} at {speed:.1f} steps/s"
    yield row("app: CPU while attached, share of a core at 5 steps/s", told, share, "5%", share <= 0.05, how)


def _watched(app: Terminal, folder: RunFolder, seconds: float) -> tuple[float, int, float, float]:
    """KB/s, full repaints, share of a core, steps/s."""
    app.until(b"RUNNING", DRAWN)
    time.sleep(SETTLING_S)
    began, moment, spent = time.perf_counter(), time.time(), app.cpu_s()
    time.sleep(seconds)
    passed, spent = time.perf_counter() - began, app.cpu_s() - spent
    frames = [frame for frame in app.frames(began) if frame.time < began + passed]
    sent = sum(frame.bytes for frame in frames)
    speed = steps_between(folder, moment, moment + passed) / passed
    return sent / 1000 / passed, sum(frame.full for frame in frames), spent / passed, speed


def _of_training_beside(folder: RunFolder, environment: dict[str, str], extent: Extent) -> Iterator[dict[str, Any]]:
    """Training speed with an app that watches against none, in alternating blocks."""
    ratios = []
    for block in range(extent.blocks):
        pair = [0.0, 0.0]
        for beside in (block % 2, 1 - block % 2):  # either comes first as often
            if beside:
                with terminal([*APP, "attach", str(folder.path)], environment) as app:
                    app.until(b"RUNNING", DRAWN)
                    pair[1] = statistics.mean(gaps(folder, extent.steps_per_block))
            else:
                pair[0] = statistics.mean(gaps(folder, extent.steps_per_block))
        ratios.append(pair[0] / pair[1])
    ratio, text = median_with_interval(ratios)
    how = (
        f"Training speed is compared in {extent.blocks} pairs of blocks of {extent.steps_per_block} steps, with an app "
        f"that watches and without any, on {os.cpu_count()} cores; the first {SETTLING_STEPS} of a block do not count."
    )
    yield row("training: speed with the app / without", text, ratio, "0.98", ratio >= 0.98, how)
