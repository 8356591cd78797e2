"""A LoRA from the run that trained it through every command that takes one, as a user types them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from acrf_engine.config import ASSETS

Cli = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = pytest.mark.full_only

CONFIG = """
model: tiny
dataset: demo
steps: 2
optimizer: AdamW
network_dim: 6
network_alpha: 2
gradient_accumulation: 1
lora: {targets: [to_q, feed_forward.w2], blocks: 0-1, use_rslora: true}
optimization: {ema_decay: 0.9}
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lora")
    (folder / "my.yaml").write_text(CONFIG)
    return folder


def test_a_run_s_lora_through_inspect_export_resize_and_merge(cli: Cli, place: Path) -> None:
    runs = ("--runs", str(place / "runs"))
    done = cli("train", str(place / "my.yaml"), "--headless", *runs, "--name", "one")
    assert done.returncode == 0, done.stderr
    done = cli("inspect", str(place / "runs" / "one" / "lora" / "one.safetensors"), "--json")
    told = json.loads(done.stdout)
    assert (told["kind"], told["format"], told["base"]) == ("LoRA", "diffusers", "the tiny Z-Image")
    assert told["hash"] == told["recorded_hash"]
    assert [module["rank"] for module in told["modules"]] == [6] * 4
    assert told["metadata"]["acrf_weights"] == "moving average (decay 0.9)"
    assert told["warnings"] == []

    done = cli("export", "one", *runs, "--format", "kohya", "--out", str(place / "k.safetensors"))
    assert done.returncode == 0, done.stderr
    assert "format  kohya" in cli("inspect", str(place / "k.safetensors")).stdout
    done = cli("resize", str(place / "k.safetensors"), "--rank", "2", "--out", str(place / "r.safetensors"))
    assert done.returncode == 0, done.stderr
    assert "rank 6 -> 2, 4 modules" in done.stdout
    done = cli("merge", str(place / "r.safetensors"), "--out", str(place / "merged"), "--scale", "-0.5")
    assert done.returncode == 0, done.stderr
    assert "4 changed weights" in done.stdout
    assert (place / "merged" / "model_index.json").is_file()
    done = cli("merge", str(place / "r.safetensors"), "--out", str(place / "merged"))
    assert (done.returncode, "is there already" in done.stderr) == (2, True)


def test_a_run_that_starts_from_it_asks_for_its_rank_and_for_its_modules(cli: Cli, place: Path) -> None:
    """At once, before any model is loaded, where the file itself is not there."""
    file = place / "runs" / "one" / "lora" / "one.safetensors"
    start = ("train", str(place / "my.yaml"), "--headless", "--runs", str(place / "runs"), "--set", "optimizer=AdamW")
    gone = cli(*start, "--set", f"lora.init_from={place / 'gone'}")
    assert (gone.returncode, "there is no such file" in gone.stderr) == (2, True)
    other = cli(*start, "--set", f"lora.init_from={file}", "--set", "network_dim=4", "--name", "other")
    assert other.returncode == 2
    assert "its rank is 6, network_dim is 4" in other.stderr
    assert cli(*start, "--set", f"lora.init_from={file}", "--name", "two").returncode == 0


def test_a_config_of_another_trainer_becomes_one_that_checks(cli: Cli, place: Path, tmp_path: Path) -> None:
    (tmp_path / "k.toml").write_text("network_dim = 8\nlearning_rate = 1e-4\nmax_train_steps = 5\nclip_skip = 2\n")
    done = cli("import", str(tmp_path / "k.toml"), "--out", str(tmp_path / "ours.yaml"))
    assert done.returncode == 0, done.stderr
    assert "clip_skip = 2: the text encoder is never trained here" in done.stdout
    done = cli("check", str(tmp_path / "ours.yaml"), "--set", "model=tiny")
    assert done.returncode == 0, done.stderr
    assert cli("import", str(place / "my.yaml")).returncode == 2


def test_merge_takes_no_other_weights_than_those_that_were_trained_on(cli: Cli, place: Path) -> None:
    single = ASSETS / "tiny" / "transformer" / "diffusion_pytorch_model.safetensors"
    runs = ("--runs", str(place / "runs"))
    done = cli(
        "train",
        str(place / "my.yaml"),
        "--headless",
        *runs,
        "--name",
        "one-file",
        "--set",
        f"base.transformer={single}",
    )
    assert done.returncode == 0, done.stderr
    refused = cli("merge", "one-file", *runs, "--out", str(place / "merged-one-file"))
    assert refused.returncode == 2
    assert f"base.transformer {single}" in refused.stderr
    assert not (place / "merged-one-file").exists()
    done = cli("merge", "one-file", *runs, "--model", str(ASSETS / "tiny"), "--out", str(place / "merged-one-file"))
    assert done.returncode == 0, done.stderr
    done = cli("preview", "one-file", *runs, "--prompt", "a red circle", "--out", str(place / "one-file.png"))
    assert done.returncode == 0, done.stderr
    assert (place / "one-file.png").exists()
