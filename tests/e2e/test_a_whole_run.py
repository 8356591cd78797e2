"""The run of docs/whole-run.md: a model folder in diffusers layout, photographs in three shapes, two sources, masks, a
regularisation set, mirroring, captions from one word to 150, a held-out picture, a moving average, TensorBoard; then
its LoRA, of alpha 8 and rank 16, in three formats, each loaded back by diffusers.
"""

from __future__ import annotations

import json
import runpy
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from acrf_engine.__main__ import main

Start = Callable[..., Any]
Cli = Callable[..., subprocess.CompletedProcess[str]]

PAGE = runpy.run_path(str(Path(__file__).parents[2] / "docs" / "whole_run.py"))


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the page's script writes."""
    written: Path = PAGE["photographs"](tmp_path_factory.mktemp("whole") / "my data")
    return written


@pytest.fixture(scope="module")
def run(config: Path, start: Start) -> Any:
    whole = start("whole", "train", str(config))
    assert whole.end() == 0, whole.words.read_text()
    return whole


def test_it_trains_every_picture_but_the_held_out_one(run: Any) -> None:
    assert run.of("warning") == []
    (plan,) = run.of("plan")
    assert (plan["pictures"], plan["held_out"]) == (9, 1)
    shapes = {tuple(map(int, name.split("x"))) for name in plan["buckets"]}
    assert {(width > height) - (width < height) for width, height in shapes} == {-1, 0, 1}
    assert run.steps() == list(range(1, 13))
    assert all(body["loss"] > 0 for body in run.of("step"))
    validations = run.of("validation")
    assert [body["step"] for body in validations] == [0, 4, 8, 12]
    assert all(len(body["losses"]) == len(plan["anchors"]) for body in validations)


def test_tensorboard_has_every_step_and_every_validation(run: Any) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    reader = EventAccumulator(str(run.folder / "trackers" / "tensorboard" / "whole"))
    reader.Reload()
    for tag, bodies in (("train/loss", run.of("step")), ("validation/loss", run.of("validation"))):
        found = {scalar.step: scalar.value for scalar in reader.Scalars(tag)}
        assert found == pytest.approx({body["step"]: body["loss"] for body in bodies}, rel=1e-6)


def test_its_lora_in_three_formats_draws_one_picture_in_diffusers(
    config: Path, run: Any, cli: Cli, tmp_path: Path
) -> None:
    model, lora = config.parent / "model", run.folder / "lora" / "whole.safetensors"
    told = json.loads(cli("inspect", str(lora), "--json").stdout)
    assert told["warnings"] == []
    assert told["metadata"]["acrf_weights"] == "moving average (decay 0.9)"
    files = [lora]
    for kind in PAGE["FORMATS"]:
        files.append(tmp_path / f"{kind}.safetensors")
        # What `acrf-tui export` starts, without a process and a second import of torch for each format.
        assert main(["export", str(lora), "--format", kind, "--out", str(files[-1]), "--model", str(model)]) == 0
        assert json.loads(cli("inspect", str(files[-1]), "--json").stdout)["format"].lower() == kind
    base, own, *others = PAGE["drawn"](model, files)
    effect = (own - base).abs().max()
    assert effect > 1e-3
    assert len(others) == 3
    assert all((other - own).abs().max() < 1e-3 * effect for other in others)


def test_the_check_prints_every_source_of_it(config: Path, cli: Cli) -> None:
    text = cli("check", str(config)).stdout
    assert "/train: 4 pictures; captions: 4 from captions file; 2 times an epoch; 4 masks; at 48, 64" in text
    assert "/more: 1 picture; captions: 1 from text file; weight 0.5" in text
    assert "/class: 5 pictures; regularisation, 0.5 for each training picture" in text
    report = json.loads(cli("check", str(config), "--json").stdout)
    assert [source["pictures"] for source in report["sources"]] == [4, 1, 5]
    assert report["sources"][2]["regularisation"] is True
