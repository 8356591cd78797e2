"""The full-size architecture on the GPU at hand, by the ways to store and compute it, beside a plain loop.

`python -m benchmarks card`: seconds a step and peak VRAM of every setting and size, and of a plain peft + diffusers
loop of the same step. Weights are random: they cost the same time and memory. Without a GPU the same settings are gone
through with the tiny model in float32, which shows that all of them run and says nothing about a card.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.table import gpu_name, row

FULL_SIZES, TINY_SIZES = ((512, 1), (512, 4), (1024, 1), (1024, 4)), ((64, 1), (64, 4), (128, 1))
PATIENCE_S = 1800.0


@dataclass(frozen=True)
class Setting:
    """How the base is stored and computed; one process loads it once and goes through all sizes, small ones first."""

    base: str
    recompute: bool = True
    compile: bool = False
    plain: bool = False

    @property
    def title(self) -> str:
        parts = [self.base, "recomputed" if self.recompute else "blocks kept"]
        return ", ".join([*parts, *["compiled"] * self.compile, *["plain loop"] * self.plain])


SETTINGS = (
    Setting("as is"),
    Setting("as is", plain=True),
    Setting("as is", recompute=False),
    Setting("as is", recompute=False, plain=True),
    Setting("as is", compile=True),
    Setting("as is", recompute=False, compile=True),
    Setting("fp8"),
    Setting("int8"),
    Setting("int8", recompute=False),
    Setting("nf4"),
    Setting("nf4", recompute=False),
    Setting("offload"),
)
QUICK_SETTINGS = SETTINGS[:2]


@dataclass(frozen=True)
class Cell:
    """What was measured at one size; `failed` in the place of the numbers where there was not enough memory."""

    side: int
    batch: int
    step_s: float = 0.0
    peak: int = 0
    estimate: int = 0
    waits: float = 0.0
    failed: str = ""


def measure(quick: bool = False) -> Iterator[dict[str, Any]]:
    """Rows of the table."""
    gpu = gpu_name()
    with tempfile.TemporaryDirectory(prefix="acrf-card-") as folder:
        model = _model(Path(folder)) if gpu else "tiny"
        sizes = (FULL_SIZES if gpu else TINY_SIZES)[: 2 if quick else None]
        measured: dict[tuple[Setting, int, int], Cell] = {}
        for setting in QUICK_SETTINGS if quick else SETTINGS:
            for cell in cells(setting, model, sizes, Path(folder), quick):
                measured[setting, cell.side, cell.batch] = cell
                yield _row(setting, cell, gpu)
        yield from _ratios(measured, gpu)


def cells(setting: Setting, model: str, sizes: Any, folder: Path, quick: bool) -> Iterator[Cell]:
    """One process measures a setting; what it cannot is a result too, and ends nothing."""
    order = {"setting": asdict(setting), "model": model, "sizes": sizes, "folder": str(folder), "quick": quick}
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.card_cells", json.dumps(order)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE"},
    )  # fmt: skip
    try:
        told, errors = process.communicate(timeout=PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        told, errors = process.communicate()
        errors += f"\nnot done after {PATIENCE_S:.0f} s"
    found = [Cell(**json.loads(line)) for line in told.splitlines() if line.startswith("{")]
    yield from found
    reason = (errors.strip().splitlines() or [f"exit {process.returncode}"])[-1]
    for side, batch in sizes[len(found) :]:
        yield Cell(side, batch, failed=reason[:160])


def _row(setting: Setting, cell: Cell, gpu: str) -> dict[str, Any]:
    what = f"card: {cell.side} px, batch {cell.batch}, {setting.title}"
    how = (
        f"One micro-batch a step, rank 16 on q, k, v and out, AdamW8bit, captions of 256 tokens, on {gpu}; the peak is "
        "what torch reserved, in brackets what `check` estimates for training."
        if gpu
        else "No GPU was at hand: the tiny model in float32 on a CPU went through the settings of a card."
    )
    if cell.failed:
        return {**row(what, cell.failed, 0.0, how=how), "value": None}
    text = f"{cell.step_s:.3f} s/step" + (f", {cell.peak / 2**30:.1f} GiB" if gpu else "")
    text += f" [{cell.estimate / 2**30:.1f}]" if gpu and cell.estimate else ""
    return {**row(what, text, cell.step_s, how=how), "cell": asdict(cell)}


def _ratios(measured: dict[tuple[Setting, int, int], Cell], gpu: str) -> Iterator[dict[str, Any]]:
    if not gpu:  # minutes lie between two processes on a busy machine: `benchmarks.engine` alternates them instead
        return
    for (setting, side, batch), theirs in measured.items():
        ours = measured.get((Setting(setting.base, setting.recompute, setting.compile), side, batch))
        if setting.plain and ours and not ours.failed and not theirs.failed:
            kept = "recomputed" if setting.recompute else "blocks kept"
            ratio = ours.step_s / theirs.step_s
            yield row(f"card: step / plain loop, {side} px, batch {batch}, {kept}", f"{ratio:.3f}", ratio)
    waits = [cell.waits for (setting, _, _), cell in measured.items() if not setting.plain and not cell.failed]
    if waits:
        what = "card: waits for the device in a micro-batch of the loop (torch's sync debug mode)"
        yield row(what, f"{max(waits):.1f}", max(waits))


def _model(folder: Path) -> str:
    """A folder of the real sizes with random weights in the transformer; in a process of its own, for its memory."""
    target = folder / "Z-Image-Turbo"
    subprocess.run([sys.executable, "-m", "benchmarks.full_size", str(target), "--weights"], check=True)
    return str(target)
