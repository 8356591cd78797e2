"""The benchmark of a card goes through all settings also where there is no card."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from benchmarks.card import SETTINGS, Cell, Setting, cells
from benchmarks.card_cells import measure
from benchmarks.full_size import _random_block, _write_shard


@pytest.mark.parametrize("setting", [one for one in SETTINGS if not one.compile], ids=lambda one: one.title)
def test_a_setting_is_measured_at_every_size(setting: Setting, tmp_path: Path) -> None:
    found = list(measure(setting, "tiny", [(64, 1), (80, 2)], tmp_path, quick=True))
    assert [(cell.side, cell.batch, cell.failed) for cell in found] == [(64, 1, ""), (80, 2, "")]
    assert all(cell.step_s > 0 for cell in found)
    assert all(Cell(**json.loads(json.dumps(asdict(cell)))) == cell for cell in found)


def test_a_process_that_fails_is_a_result_for_every_size_that_it_left(tmp_path: Path) -> None:
    found = list(cells(Setting("as is"), str(tmp_path / "nothing"), [(64, 1), (64, 4)], tmp_path, quick=True))
    assert [(cell.side, cell.batch) for cell in found] == [(64, 1), (64, 4)]
    assert all("nothing" in cell.failed for cell in found)


def test_random_weights_fill_a_file_of_the_real_layout(tmp_path: Path) -> None:
    """More than one block of them, and no hole at the end."""
    from safetensors.torch import load_file

    columns = len(_random_block()) // 2 + 3
    _write_shard(tmp_path / "one.safetensors", {"weight": (1, columns)}, weights=True)
    weight = load_file(tmp_path / "one.safetensors")["weight"]
    assert weight.shape == (1, columns)
    assert weight[0, -3:].count_nonzero() == 3
    assert weight.float().std().item() == pytest.approx(0.02, rel=0.01)
