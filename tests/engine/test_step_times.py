"""A time is promised only where it was measured: the same kind of run, on the same device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from acrf_engine.check import Report, lines
from acrf_engine.config import build_config, dump
from acrf_engine.run.folder import RunFolder, create_run
from acrf_engine.run.speed import measured_step
from acrf_engine.run.telemetry import TelemetryWriter
from tests.engine.test_curves import Written


def past(runs: Path, name: str, seconds: float, device: str = "", **config: Any) -> RunFolder:
    folder = create_run(runs, name, dump(build_config(config)))
    status = folder.recorded_status()
    status.state, status.step = "finished", 50
    if device:
        status.extra["device"] = device
    folder.write_status(status)
    written = Written.__new__(Written)
    written.folder, written.writer, written.seq = folder, TelemetryWriter(folder.telemetry), 0
    written.steps(1, 50, step_time_s=lambda n: 30.0 if n < 3 else seconds)
    written.writer.close()
    return folder


def ask(runs: list[RunFolder], device: str = "CPU", native: int = 64, **config: Any) -> float | None:
    found = measured_step(build_config(config).model_dump(mode="json"), native, device, runs)
    return found.seconds if found else None


def test_the_newest_run_of_the_same_kind_counts_without_its_warm_up(tmp_path: Path) -> None:
    runs = [past(tmp_path, "new", 0.5), past(tmp_path, "old", 9.0)]
    assert ask(runs) == 0.5
    assert ask(runs, learning_rate=3e-4, epochs=2) == 0.5  # neither changes the time of a step


@pytest.mark.parametrize(
    "config",
    [
        {"batch_size": 2},
        {"gradient_accumulation": 1},
        {"resolution": 128},
        {"network_dim": 32},
        {"lora": {"targets": "ext"}},
    ],
)
def test_another_kind_of_run_says_nothing(tmp_path: Path, config: dict[str, Any]) -> None:
    assert ask([past(tmp_path, "one", 0.5)], **config) is None


def test_auto_is_the_resolution_of_the_model(tmp_path: Path) -> None:
    runs = [past(tmp_path, "one", 0.5)]
    assert ask(runs, resolution=64) == 0.5
    assert ask([past(tmp_path, "two", 0.5, resolution=128)], resolution="auto") is None


def test_another_card_says_nothing_and_a_second_one_of_the_same_make_does(tmp_path: Path) -> None:
    runs = [past(tmp_path, "one", 0.5, "GPU 0 (NVIDIA RTX 4090)")]
    assert ask(runs) is None
    assert ask(runs, "GPU 1 (NVIDIA RTX 3090)") is None
    assert ask(runs, "GPU 1 (NVIDIA RTX 4090)") == 0.5


def test_runs_that_cannot_be_read_are_passed_over(tmp_path: Path) -> None:
    torn, odd, short = (past(tmp_path, name, 0.1) for name in ("torn", "odd", "short"))
    torn.status.write_text("{")
    odd.config.write_text("- a list\n")
    status = short.recorded_status()
    status.step = 1
    short.write_status(status)
    assert ask([torn, odd, short, past(tmp_path, "good", 0.5)]) == 0.5


def test_the_report_names_the_run_that_measured_or_says_that_it_is_not_known() -> None:
    report = Report("c", "m", steps=1000)
    assert any("not known before the first steps" in text for text in lines(report))
    report.step_time_s, report.step_time_run = 0.75, "night"
    assert any("0:12:30 of training: 0.75 s a step, measured in run night" in text for text in lines(report))
