"""Several processes started by another launcher: as many train as were asked for, or the run is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from acrf_engine.run.folder import RunFolder
from acrf_engine.run.ranks import free_port, started_alone
from acrf_engine.run.telemetry import TelemetryReader

CONFIG = "model: tiny\ndataset: demo\nsteps: 2\nbatch_size: {batch}\ngradient_accumulation: 2\noptimizer: AdamW\n"
ACCELERATE = (
    "accelerate.commands.launch", "--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no",
    "--dynamo_backend", "no", "-m",
)  # fmt: skip


@pytest.fixture
def launched(tmp_path: Path) -> Any:
    """Run `python -m LAUNCHER ... acrf_engine CONFIG`, with the run folder at `tmp_path / NAME`."""

    def launch(name: str, *launcher: str, batch: int = 1) -> subprocess.CompletedProcess[str]:
        config = tmp_path / f"{name}.yaml"
        config.write_text(CONFIG.format(batch=batch), encoding="utf-8")
        own = {"XDG_CACHE_HOME": str(tmp_path / "cache"), "CUDA_VISIBLE_DEVICES": ""}
        return subprocess.run(
            [sys.executable, "-m", *launcher, "acrf_engine", str(config), "--runs", str(tmp_path), "--name", name],
            capture_output=True, text=True, cwd=tmp_path, env={**os.environ, **own},
        )  # fmt: skip

    return launch


@pytest.mark.parametrize("flags", [[], ["--cpu"]], ids=["no GPUs", "--cpu"])
def test_a_launch_of_two_that_would_train_with_one_is_refused(launched: Any, tmp_path: Path, flags: list[str]) -> None:
    done = launched("alone", ACCELERATE[0], *flags, *ACCELERATE[1:])
    assert done.returncode != 0
    assert "asked for several processes and has started one" in done.stderr
    assert "--multi_gpu" in done.stderr
    assert not (tmp_path / "alone").exists()


def test_an_address_that_the_cluster_sets_does_not_look_like_several_processes() -> None:
    assert not started_alone({"ACCELERATE_MIXED_PRECISION": "no", "MASTER_ADDR": "node-17"})
    assert not started_alone({"ACCELERATE_MIXED_PRECISION": "no"})
    assert not started_alone({"MASTER_ADDR": "127.0.0.1"})
    assert not started_alone({"ACCELERATE_MIXED_PRECISION": "no", "MASTER_ADDR": "127.0.0.1", "WORLD_SIZE": "1"})


@pytest.mark.full_only
@pytest.mark.parametrize("launcher", ["accelerate", "torchrun"])
def test_two_launched_processes_train_what_one_trains_with_twice_the_batch(
    launched: Any, tmp_path: Path, launcher: str
) -> None:
    port = str(free_port())
    words = {
        "accelerate": (ACCELERATE[0], "--multi_gpu", "--main_process_port", port, *ACCELERATE[1:]),
        "torchrun": ("torch.distributed.run", "--nproc-per-node", "2", "--master-port", port, "-m"),
    }[launcher]
    two = launched("two", *words)
    assert two.returncode == 0, two.stderr
    one = launched("one", batch=2)
    assert one.returncode == 0, one.stderr

    def losses(name: str) -> list[float]:
        return list(TelemetryReader(RunFolder(tmp_path / name).telemetry).history().steps.loss)

    assert json.loads((tmp_path / "two" / "status.json").read_text())["state"] == "finished"
    assert losses("two") == pytest.approx(losses("one"), rel=1e-5)
