"""The matrix of `python -m benchmarks gpu`: every cell works on the tiny model, and one that fails is a result."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from acrf_engine.config import ASSETS, build_config
from benchmarks import gpu, gpu_cell, table
from benchmarks.gpu import Cell

ROOT = Path(__file__).parents[2]
TINY = ASSETS / "tiny"
COMPILED = [way for way in gpu.WAYS if "compiled" in way]


def test_the_matrix_has_every_size_batch_and_way_once() -> None:
    names = [cell.name for cell in gpu.cells(tiny=False, quick=False)]
    assert len(set(names)) == len(names) == 2 * 2 * len(gpu.WAYS)
    assert {"1024 px, batch 4, nf4, recomputed", "512 px, batch 1, plain loop, bf16, all kept"} <= set(names)


@pytest.mark.parametrize("way", gpu.WAYS)
def test_the_config_takes_every_way(way: str) -> None:
    build_config({"model": "tiny", "memory": {"dtype": "bf16", **gpu.WAYS[way]}})


@pytest.mark.parametrize("way", [way for way in gpu.WAYS if way not in COMPILED])
def test_every_way_makes_steps(way: str) -> None:
    cell = Cell(64, 2, way, steps=1, warm_up=1, memory={"dtype": "bf16", **gpu.WAYS[way]})
    assert gpu_cell.found(cell, TINY)["step_s"] > 0


def test_the_plain_loop_trains_what_the_engine_trains(tmp_path: Path) -> None:
    cpu = torch.device("cpu")
    cell = Cell(64, 1, "bf16, all kept", 1, 1, {"dtype": "bf16", "gradient_checkpointing": "off"})
    trainer: Any = gpu_cell.engine_step(cell, TINY, cpu, tmp_path).__self__  # type: ignore[attr-defined]
    plain: Any = gpu_cell.plain_step(cell, TINY, cpu)
    cells = dict(zip(plain.__code__.co_freevars, (one.cell_contents for one in plain.__closure__), strict=True))
    assert sorted(tuple(one.shape) for one in cells["parameters"]) == sorted(
        tuple(one.shape) for one in trainer.prepared.trainable
    )


def test_out_of_memory_is_a_result(monkeypatch: pytest.MonkeyPatch) -> None:
    def step(*_: Any) -> gpu_cell.Step:
        def full() -> None:
            raise torch.OutOfMemoryError("CUDA out of memory")

        return full

    monkeypatch.setattr(gpu_cell, "engine_step", step)
    cell = Cell(1024, 4, "bf16, all kept", 1)
    (row,) = gpu.rows_of(cell, gpu_cell.found(cell, TINY))
    assert (row["measured"], row["value"], row["ok"]) == ("out of memory", None, True)


def test_a_cell_that_dies_or_fails_says_so_and_the_next_goes_on(tmp_path: Path) -> None:
    missing = gpu.run_cell(Cell(64, 1, "bf16, all kept", 1, 1, {"dtype": "bf16"}), tmp_path / "nothing")
    assert "nothing" in missing["failed"]
    late = gpu.run_cell(Cell(64, 1, "bf16, all kept", 1, 1, {"dtype": "bf16"}), TINY, patience_s=0.01)
    assert late == {"failed": "no result in 0 s"}


def test_each_figure_has_a_row_with_the_plain_loop_beside_it() -> None:
    cell = Cell(512, 1, "bf16, recomputed", 8)
    rows = gpu.rows_of(cell, {"step_s": 0.5, "peak_bytes": 14.2e9, "gpu": "NVIDIA X 1"}, plain_s=0.4)
    assert [(one["what"].rpartition(": ")[2], one["measured"]) for one in rows] == [
        ("step", "0.500 s"), ("peak VRAM", "14.2 GB"), ("step / plain loop", "1.250"),
    ]  # fmt: skip
    assert table.results_file("gpu", table.gpu_of(rows)).name == "gpu-nvidia-x-1.json"


def test_a_matrix_measured_in_parts_is_one_table_under_the_name_of_its_gpu(tmp_path: Path) -> None:
    file = tmp_path / "gpu-x.json"
    first = gpu.rows_of(Cell(512, 1, "offload, recomputed", 8), {"step_s": 2.0, "gpu": "X"})
    again = gpu.rows_of(Cell(512, 1, "offload, recomputed", 8), {"step_s": 3.0, "gpu": "X"})
    other = gpu.rows_of(Cell(512, 4, "bf16, all kept", 8), {"failed": "out of memory", "gpu": "X"})
    for rows in (first, again, other):
        file.write_text(table.kept(table.completed(file, rows)), encoding="utf-8")
    page = table.page([file])
    assert ", X, Python" in page
    assert "| 512 px, batch 1, offload, recomputed: step | 3.000 s | (reported) |  |" in page
    assert "| 512 px, batch 4, bf16, all kept: step | out of memory | (reported) |  |" in page
    assert "2.000 s" not in page
    assert "no GPU was at hand" not in page


def test_the_command_goes_through_cells_without_a_gpu_and_says_what_needs_one(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks", "gpu"]
    tiny = ["--tiny", "--only", "64 px, batch 1, nf4, recomputed", "--out", str(tmp_path / "rows.json")]
    done = subprocess.run([*command, *tiny], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (row,) = json.loads((tmp_path / "rows.json").read_text())["rows"]
    assert row["value"] > 0
    if not torch.cuda.is_available():
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (1, "")
        assert "no GPU is at hand" in done.stderr
