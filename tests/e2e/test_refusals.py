"""What cannot run is refused at once with status 2, naming what and where; and looking costs no torch."""

from __future__ import annotations

import json
import math
import os
import pty
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Cli = Callable[..., subprocess.CompletedProcess[str]]


def train(cli: Cli, config: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return cli("train", str(config), "--headless", "--runs", str(config.parent / "runs"), *more)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "my.yaml"
    path.write_text("model: tiny\ndataset: demo\nsteps: 2\n")
    return path


def test_a_name_that_is_taken_is_refused(cli: Cli, config: Path) -> None:
    (config.parent / "runs" / "night").mkdir(parents=True)
    done = train(cli, config, "--name", "night")
    assert done.returncode == 2
    assert "'night' exists" in done.stderr
    assert list((config.parent / "runs" / "night").iterdir()) == []


def test_an_unknown_key_is_refused_with_file_and_line(cli: Cli, config: Path) -> None:
    config.write_text("model: tiny\nlearnig_rate: 1e-4\n")
    done = train(cli, config)
    assert done.returncode == 2
    assert done.stderr == f"acrf-tui: {config}:2: learnig_rate: unknown key (did you mean learning_rate?)\n"
    assert not (config.parent / "runs").exists()


def test_missing_data_is_refused(cli: Cli, config: Path) -> None:
    config.write_text("dataset: ./nowhere\n")
    done = train(cli, config)
    assert done.returncode == 2
    assert f"{config}:1: dataset: " in done.stderr
    assert "nowhere: there is no such folder" in done.stderr


def test_a_missing_config_and_a_missing_run_are_refused(cli: Cli, runs: Path, tmp_path: Path) -> None:
    assert train(cli, tmp_path / "none.yaml").returncode == 2
    for command in (["resume", "ghost", "--headless"], ["control", "ghost", "pause"], ["logs", "ghost"]):
        done = cli(*command, "--runs", str(runs))
        assert done.returncode == 2
        assert "'ghost'" in done.stderr


def test_pictures_that_are_none_end_the_run_with_status_2(cli: Cli, config: Path) -> None:
    data = config.parent / "data"
    data.mkdir()
    (data / "a.png").write_bytes(b"not a picture")
    config.write_text(f"dataset: {data}\nsteps: 2\n")
    done = train(cli, config)
    assert done.returncode == 2, done.stderr
    assert "none of the pictures" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", [[], ["demo"], ["attach"]])
def test_without_a_terminal_the_app_names_the_headless_way(cli: Cli, tmp_path: Path, command: list[str]) -> None:
    done = cli(*command, "--runs", str(tmp_path))
    assert done.returncode == 2
    assert command == ["attach"] or "--headless" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_dumb_terminal_is_none(tmp_path: Path) -> None:
    controller, terminal = pty.openpty()
    try:
        done = subprocess.run(
            [sys.executable, "-m", "acrf_tui.cli", "demo", "--runs", str(tmp_path)],
            stdin=terminal, stdout=terminal, stderr=subprocess.PIPE, text=True, timeout=60,
            env={**os.environ, "TERM": "dumb"},
        )  # fmt: skip
    finally:
        os.close(terminal)
        os.close(controller)
    assert done.returncode == 2
    assert "--headless" in done.stderr


def test_check_says_what_a_config_will_do_and_trains_nothing(cli: Cli, config: Path) -> None:
    config.write_text("model: tiny\ndataset: demo\nepochs: 3\nbatch_size: 2\n")
    done = cli(
        "check", str(config), "--json", "--set", "gradient_accumulation=2", "--runs", str(config.parent / "runs")
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["pictures"] == 16
    assert report["without_caption"] == 0
    assert sum(report["buckets"].values()) == 16
    batches = sum(math.ceil(count / 2) for count in report["buckets"].values())
    assert report["micro_batches_per_epoch"] == batches
    assert report["steps"] == math.ceil(3 * batches / 2)
    assert not (config.parent / "runs").exists()
    assert "16, 0 without caption" in cli("check", str(config)).stdout


def test_check_refuses_what_train_would_refuse(cli: Cli, config: Path) -> None:
    config.write_text("epochs: 0\n")
    done = cli("check", str(config))
    assert done.returncode == 2
    assert f"{config}:1: epochs:" in done.stderr


@pytest.mark.skipif(shutil.which("nvidia-smi") is not None, reason="there may be a GPU here")
def test_check_refuses_a_gpu_that_is_not_there(cli: Cli, config: Path) -> None:
    """The run would end with status 2 (`cuda is asked for, but torch sees no GPU here`)."""
    done = cli("check", str(config), "--set", "memory.device=cuda")
    assert done.returncode == 2
    assert "memory.device" in done.stderr


HEAVY = ("torch", "diffusers", "transformers", "peft", "accelerate", "bitsandbytes", "safetensors", "numpy")


@pytest.mark.parametrize(
    ("module", "also"),
    [
        ("acrf_tui.cli", ("textual", "rich", "pydantic", "yaml")),
        ("acrf_engine.run.supervisor", ("textual", "rich", "pydantic", "acrf_tui")),
        ("acrf_engine.run.headless", ("textual", "rich")),
        ("acrf_engine.config", ("textual", "rich")),
    ],
)
def test_importing_it_loads_nothing_heavy(module: str, also: tuple[str, ...]) -> None:
    code = f"import {module}, sys; print('\\n'.join({{name.partition('.')[0] for name in sys.modules}}))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert set(loaded) & {*HEAVY, *also} == set()


def test_the_worker_never_loads_the_app() -> None:
    """The supervisor spawns it by module name, so that no console script is imported again in the child."""
    names = "[name for name in sys.modules if name.startswith(('textual', 'acrf_tui'))]"
    code = f"import acrf_engine.training.worker, acrf_engine.training.session, sys; print({names})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
