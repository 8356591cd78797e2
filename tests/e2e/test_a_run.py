"""`acrf-tui demo --headless` to its end, and what one can do with the run afterwards."""

from __future__ import annotations

import json
import stat
import subprocess
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from safetensors.torch import load_file

Cli = Callable[..., subprocess.CompletedProcess[str]]


def test_every_step_is_told_once_and_in_order(finished_demo: Any) -> None:
    assert finished_demo.steps() == list(range(1, 41))
    assert all(body["total_steps"] == 40 and body["merged"] == 0 for body in finished_demo.of("step"))


def test_seq_rises_and_the_last_event_is_finished(finished_demo: Any) -> None:
    seqs = [body["seq"] for body in finished_demo.events]
    assert all(before < after for before, after in pairwise(seqs))
    assert finished_demo.events[-1]["type"] == "finished"
    assert sum(body["type"] == "finished" for body in finished_demo.events) == 1


def test_the_states_of_the_run_are_told_in_order(finished_demo: Any) -> None:
    states = [body["state"] for body in finished_demo.of("state")]
    assert list(dict.fromkeys(states)) == ["starting", "caching", "running", "finished"]


def test_a_step_event_holds_what_the_contract_names(finished_demo: Any) -> None:
    body = finished_demo.of("step")[20]
    wanted = {
        "type", "seq", "time", "step", "epoch", "loss", "loss_char", "loss_cos", "loss_fft", "loss_balanced", "lr",
        "grad_norm", "step_time_s", "sigmas", "anchors", "weights", "losses",
    }  # fmt: skip
    assert wanted <= set(body)
    assert len(body["sigmas"]) == len(body["anchors"]) == len(body["weights"]) == len(body["losses"]) == 4
    assert all(0.001 <= sigma <= 0.999 for sigma in body["sigmas"])


def test_the_anchors_are_covered_evenly(finished_demo: Any) -> None:
    """40 steps of 4 pictures are 16 rounds of the 10 anchors."""
    drawn = [anchor for body in finished_demo.of("step") for anchor in body["anchors"]]
    assert [drawn.count(anchor) for anchor in range(10)] == [16] * 10


def test_the_run_folder_is_as_designed(finished_demo: Any) -> None:
    folder: Path = finished_demo.folder
    names = {path.name for path in folder.iterdir()}
    assert {"config.yaml", "status.json", "telemetry.db", "worker.log", "checkpoints", "lora"} <= names
    assert (folder / "checkpoints" / "step-000040" / "manifest.json").is_file()
    assert (folder / "lora" / "demo-40-step-000040.safetensors").is_file()
    assert (folder / "lora" / "demo-40.safetensors").is_file()
    status = finished_demo.status()
    assert (status["state"], status["step"], status["total_steps"]) == ("finished", 40, 40)
    assert (status["worker_pid"], status["supervisor_pid"]) == (None, None)


def test_nobody_but_its_user_can_look_into_it(finished_demo: Any) -> None:
    assert stat.S_IMODE(finished_demo.folder.stat().st_mode) == 0o700
    open_ones = [path for path in finished_demo.folder.rglob("*") if path.stat().st_mode & 0o077]
    assert open_ones == []


def test_nothing_is_left_running_or_lying_about(finished_demo: Any) -> None:
    leftovers = [path.name for path in finished_demo.folder.rglob(".*")]
    assert leftovers == []
    assert not (finished_demo.folder / "socket").exists()


def test_the_lora_loads_in_diffusers_and_changes_the_picture(finished_demo: Any) -> None:
    import torch
    from diffusers import ZImagePipeline

    from acrf_engine.config import ASSETS

    pipeline = ZImagePipeline.from_pretrained(str(ASSETS / "tiny"), torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)

    def draw() -> torch.Tensor:
        return pipeline(
            "a red circle", num_inference_steps=8, guidance_scale=0.0, width=64, height=64, output_type="latent",
            generator=torch.Generator().manual_seed(1),
        ).images  # fmt: skip

    before = draw()
    path = finished_demo.folder / "lora" / "demo-40.safetensors"
    pipeline.load_lora_weights(str(path.parent), weight_name=path.name)
    assert pipeline.get_active_adapters()
    after = draw()
    assert torch.isfinite(after).all()
    assert (after - before).abs().max().item() > 1e-3


def test_preview_draws_a_picture(finished_demo: Any, runs: Path, cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "new" / "p.png"
    done = cli("preview", "demo-40", "--prompt", "a blue star", "--steps", "2", "--out", str(out), "--runs", str(runs))
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(out)
    with Image.open(out) as picture:
        assert (picture.size, picture.mode) == ((64, 64), "RGB")


def test_export_writes_the_other_formats(finished_demo: Any, runs: Path, cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "k.safetensors"
    done = cli("export", "demo-40", "--format", "kohya", "--out", str(out), "--runs", str(runs))
    assert done.returncode == 0, done.stderr
    modules = 4 * 4  # layers x (q, k, v, out)
    assert f"{modules} modules" in done.stdout
    assert len(load_file(out)) == 3 * modules


def test_the_run_is_listed(finished_demo: Any, runs: Path, cli: Cli) -> None:
    done = cli("runs", "--json", "--runs", str(runs))
    rows = {row["name"]: row for row in json.loads(done.stdout)}
    row = rows["demo-40"]
    assert (row["state"], row["step"], row["total_steps"], row["folder"]) == (
        "finished", 40, 40, str(finished_demo.folder),
    )  # fmt: skip
    assert row["loss"] == finished_demo.of("step")[-1]["loss"]
    text = cli("runs", "--runs", str(runs)).stdout
    assert any("demo-40" in line and "finished" in line and "40/40" in line for line in text.splitlines())


def test_the_log_is_shown(finished_demo: Any, runs: Path, cli: Cli) -> None:
    done = cli("logs", "demo-40", "--runs", str(runs))
    assert done.returncode == 0
    assert done.stdout == (finished_demo.folder / "worker.log").read_text()


def test_its_history_is_the_stream(finished_demo: Any) -> None:
    from acrf_engine.run.telemetry import TelemetryReader

    history = TelemetryReader(finished_demo.folder / "telemetry.db").history()
    told = finished_demo.of("step")
    assert [value.hex() for value in history.steps.loss] == [body["loss"].hex() for body in told]
    assert list(history.steps.step) == finished_demo.steps()
    assert history.anchor_draws == [16] * 10


def test_a_finished_run_is_not_resumed_by_mistake(finished_demo: Any, runs: Path, cli: Cli) -> None:
    done = cli("resume", "demo-40", "--headless", "--runs", str(runs))
    assert done.returncode == 2
    assert "finished at step 40" in done.stderr
    assert cli("resume", "demo-40", "--headless", "--steps", "40", "--runs", str(runs)).returncode == 2


def test_an_ended_run_cannot_be_commanded(finished_demo: Any, runs: Path, cli: Cli) -> None:
    done = cli("control", "demo-40", "pause", "--runs", str(runs))
    assert done.returncode == 1
    assert "finished" in done.stderr


@pytest.mark.parametrize("kind", ["runs", "sample configs", "cache", "tiny model", "demo pictures"])
def test_paths_name_places_that_are_there(cli: Cli, runs: Path, kind: str, finished_demo: Any) -> None:
    done = cli("paths", "--runs", str(runs))
    (line,) = [line for line in done.stdout.splitlines() if line.startswith(kind)]
    assert Path(line.removeprefix(kind).strip()).is_dir()
