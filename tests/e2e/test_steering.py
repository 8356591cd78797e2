"""Commands to a live run: answered with the step at which they took effect, and seen in the stream."""

from __future__ import annotations

import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

Cli = Callable[..., subprocess.CompletedProcess[str]]


def test_a_live_run_obeys_and_is_repeated_to_the_same_weights(
    start: Callable[..., Any], cli: Cli, runs: Path, eventually: Callable[[Callable[[], bool]], None]
) -> None:
    run = start("live", "demo", "--steps", "100000", "--set", "scheduler=constant", "--set", "network_dim=4")

    def control(*command: str, status: int = 0) -> str:
        done = cli("control", "live", *command, "--runs", str(runs))
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout

    def ack(command: str) -> dict[str, Any]:
        return run.until(lambda body: body["type"] == "ack" and body["command"] == command)

    run.until_step(3)
    control("pause")
    at = ack("pause")["step"]
    assert run.steps() == list(range(1, at + 1))
    mark = len(run.events)
    eventually(lambda: run.status()["state"] == "paused")

    # Everything from here to `resume` happens while the run stands still.
    assert f"step {at}" in control("set", "learning_rate=5e-5")
    answer = ack("set")
    assert (answer["key"], answer["value"], answer["previous"], answer["step"]) == ("learning_rate", 5e-5, 1e-3, at)
    assert "cannot change" in control("set", "seed=3", status=1)
    assert "learning_rate" in control("set", "learning_rate=fast", status=1)
    control("set", "snr_gamma=0")
    control("checkpoint")
    assert (run.folder / "checkpoints" / f"step-{at:06d}" / "manifest.json").is_file()
    control("preview")
    preview = run.until(lambda body: body["type"] == "preview")
    assert preview["step"] == at
    assert all(Path(preview[name]).read_bytes().startswith(b"\x89PNG") for name in ("path", "baseline"))
    control("resume")
    assert ack("resume")["step"] == at
    assert [body for body in run.events[mark:] if body["type"] in ("step", "pictures")] == []

    first = run.until(lambda body: body["type"] == "step")
    assert (first["step"], first["lr"]) == (at + 1, 5e-5)
    assert first["weights"] == [1.0] * 4
    run.until_step(at + 3)
    assert "checkpoint saved" in control("stop")
    run.end()
    last = run.events[-1]
    assert last["type"] == "stopped"
    assert run.steps() == list(range(1, last["step"] + 1))
    assert run.status()["state"] == "stopped"

    # The journal knows enough to do it all again.
    again = cli("replay", "live", "--headless", "--name", "again", "--runs", str(runs))
    assert again.returncode in (0, 130), again.stderr
    file = f"step-{last['step']:06d}.safetensors"
    once = load_file(run.folder / "lora" / f"live-{file}")
    twice = load_file(runs / "again" / "lora" / f"again-{file}")
    assert once.keys() == twice.keys()
    assert all(torch.equal(once[name], twice[name]) for name in once)


def test_ctrl_c_saves_and_says_how_it_ended(stopped_run: Any) -> None:
    last = stopped_run.events[-1]
    assert last["type"] == "stopped"
    assert stopped_run.status()["state"] == "stopped"
    assert stopped_run.steps() == list(range(1, last["step"] + 1))
    assert (stopped_run.folder / "checkpoints" / f"step-{last['step']:06d}").is_dir()
    assert "Traceback" not in stopped_run.words.read_text()


def test_a_resumed_run_repeats_no_step_and_loses_none(stopped_run: Any, start: Callable[..., Any], runs: Path) -> None:
    from acrf_engine.run.telemetry import TelemetryReader

    step = stopped_run.events[-1]["step"]
    shutil.copytree(stopped_run.folder, runs / "resumed")
    resumed = start("resumed", "resume", "resumed", "--steps", str(step + 8))
    resumed.until_step(step + 1)
    # What a dropped line sends: training goes on.
    resumed.process.send_signal(signal.SIGHUP)
    assert resumed.end() == 0, resumed.words.read_text()
    assert resumed.steps() == list(range(step + 1, step + 9))
    assert resumed.events[-1]["type"] == "finished"
    assert resumed.events[0]["seq"] > stopped_run.events[-1]["seq"]
    history = TelemetryReader(resumed.folder / "telemetry.db").history()
    assert list(history.steps.step) == list(range(1, step + 9))
    assert sum(history.anchor_draws) == 4 * (step + 8)


def test_a_refused_resume_leaves_the_run_as_it_was(stopped_run: Any, start: Callable[..., Any], runs: Path) -> None:
    """What shapes a run cannot change in the middle; having tried must not spoil the run for an honest resume."""
    folder = Path(shutil.copytree(stopped_run.folder, runs / "copy"))
    before = (folder / "config.yaml").read_text()
    tried = start("copy", "resume", "copy", "--set", "network_dim=8")
    assert tried.end() in (1, 2)
    assert "cannot change network_dim" in tried.words.read_text()
    assert (folder / "config.yaml").read_text() == before
