"""Full size on a GPU: seconds a step and peak VRAM over sizes, batches and ways to fit, beside a plain loop.

The architecture of Z-Image-Turbo with random weights: speed and memory are those of the real ones. Every cell is a
process of its own, so what one leaves behind, or does not survive, is not in the next; out of memory is a result.

python -m benchmarks gpu                              # all cells, on the GPU at hand
python -m benchmarks gpu --only "1024 px, batch 4"    # those whose name holds it
python -m benchmarks gpu --tiny                       # all cells on the tiny model, also without a GPU
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.table import row

SIDES, TINY_SIDES, BATCHES = (512, 1024), (64, 128), (1, 4)
PLAIN = "plain loop"
WAYS: dict[str, dict[str, Any]] = {
    f"{PLAIN}, bf16, all kept": {"gradient_checkpointing": "off"},
    f"{PLAIN}, bf16, recomputed": {"gradient_checkpointing": "on"},
    "bf16, all kept": {"gradient_checkpointing": "off"},
    "bf16, recomputed": {"gradient_checkpointing": "on"},
    "bf16, all kept, compiled": {"gradient_checkpointing": "off", "compile": True},
    "bf16, recomputed, compiled": {"gradient_checkpointing": "on", "compile": True},
    "nf4, all kept": {"gradient_checkpointing": "off", "quantization": "nf4"},
    "nf4, recomputed": {"gradient_checkpointing": "on", "quantization": "nf4"},
    "int8, all kept": {"gradient_checkpointing": "off", "quantization": "int8"},
    "int8, recomputed": {"gradient_checkpointing": "on", "quantization": "int8"},
    "offload, recomputed": {"gradient_checkpointing": "on", "offload": True},
}
"""The cells of one size and batch, as values of `memory`; what the config refuses together is not there."""
STEPS, QUICK_STEPS = 8, 2
WARM_UP = 3
PATIENCE_S = 900.0
HOW = (
    "The median of {steps} steps after {warm_up}, LoRA of rank 16 on attention, AdamW, captions of 64 tokens; peak "
    "VRAM is what torch reserved from loading on (the CUDA context comes on top). The plain loop is peft and diffusers "
    "with the same loss, without the engine; recomputed is gradient checkpointing of every block."
)


@dataclass(frozen=True)
class Cell:
    """One combination to measure. `memory` is the config's group; `plain`: without the engine."""

    side: int
    batch: int
    way: str
    steps: int
    warm_up: int = WARM_UP
    memory: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{self.side} px, batch {self.batch}, {self.way}"

    @property
    def plain(self) -> bool:
        return self.way.startswith(PLAIN)


def cells(tiny: bool, quick: bool, only: str = "") -> list[Cell]:
    """The matrix, or those of it whose name holds `only`."""
    steps = QUICK_STEPS if quick or tiny else STEPS
    warm_up = 1 if quick or tiny else WARM_UP
    every = (
        Cell(side, batch, way, steps, warm_up, {"dtype": "bf16", **memory})
        for side, batch, (way, memory) in itertools.product(TINY_SIDES if tiny else SIDES, BATCHES, WAYS.items())
    )
    return [cell for cell in every if only in cell.name]


def measure(quick: bool = False, tiny: bool = False, only: str = "") -> Iterator[dict[str, Any]]:
    """Rows of the table, cell by cell."""
    wanted = cells(tiny, quick, only)
    if not wanted:
        raise SystemExit(f"no cell has {only!r} in its name (for example {cells(tiny, quick)[0].name!r})")
    with tempfile.TemporaryDirectory(prefix="acrf-bench-") as place:
        model = _made(Path(place, "model"), tiny)
        plain: dict[str, float] = {}
        for cell in wanted:
            found = run_cell(cell, model)
            if cell.plain and "step_s" in found:
                plain[f"{cell.side} {cell.batch} {cell.way.removeprefix(f'{PLAIN}, ')}"] = found["step_s"]
            yield from rows_of(cell, found, plain.get(f"{cell.side} {cell.batch} {cell.way}"))


def rows_of(cell: Cell, found: dict[str, Any], plain_s: float | None = None) -> list[dict[str, Any]]:
    """One row a figure; a cell that gave none has one that says why. `plain_s`: the same step without the engine."""
    gpu = {"gpu": found["gpu"]} if found.get("gpu") else {}
    if "step_s" not in found:
        return [{**row(f"{cell.name}: step", found["failed"], None), **gpu}]
    how = HOW.format(steps=cell.steps, warm_up=cell.warm_up)
    rows = [row(f"{cell.name}: step", f"{found['step_s']:.3f} s", found["step_s"], how=how)]
    if found.get("peak_bytes"):
        rows.append(row(f"{cell.name}: peak VRAM", f"{found['peak_bytes'] / 1e9:.1f} GB", found["peak_bytes"] / 1e9))
    if plain_s is not None and not cell.plain:
        ratio = found["step_s"] / plain_s
        rows.append(row(f"{cell.name}: step / plain loop", f"{ratio:.3f}", ratio))
    return [{**one, **gpu} for one in rows]


def run_cell(cell: Cell, model: Path, patience_s: float = PATIENCE_S) -> dict[str, Any]:
    """What a cell's process found: `step_s`, `peak_bytes` and `gpu`, or `failed` in words."""
    command = [sys.executable, "-m", "benchmarks.gpu_cell", str(model), json.dumps(asdict(cell))]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=patience_s, check=False)
    except subprocess.TimeoutExpired:
        return {"failed": f"no result in {patience_s:.0f} s"}
    lines = done.stdout.splitlines()
    if done.returncode == 0 and lines:
        found: dict[str, Any] = json.loads(lines[-1])
        return found
    if done.returncode < 0:
        return {"failed": f"killed by signal {-done.returncode}" + (" (RAM?)" if done.returncode == -9 else "")}
    last = next((line for line in reversed(done.stderr.splitlines()) if line.strip()), "no words")
    return {"failed": f"failed: {last.strip()[:200]}"}


def _made(folder: Path, tiny: bool) -> Path:
    """The model's folder. Ends the program where full size is asked for and there is no GPU."""
    command = [sys.executable, "-m", "benchmarks.gpu_cell", "--make", str(folder), *(["--tiny"] if tiny else [])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit((done.stderr.strip().splitlines() or ["the model could not be made"])[-1])
    return folder
