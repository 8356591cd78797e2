"""Runs that want the same GPU: the first trains, the others wait in a line that can be changed, and take their turn."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Cli = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = pytest.mark.full_only

ONE_CARD = """
from tests.nvml import GIB, Nvml, card
_card = card("RTX 4090", 2 * GIB, 60) | {"nvmlDeviceGetUUID": "GPU-aaa"}
_nvml = Nvml(_card)


def __getattr__(name):
    return getattr(_nvml, name)
"""


@pytest.fixture
def one_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The supervisors of this test see one GPU; the workers train on the CPU all the same, for torch sees none."""
    (tmp_path / "pynvml.py").write_text(ONE_CARD)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{Path(__file__).parents[2]}")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def rows(cli: Cli, runs: Path) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in json.loads(cli("runs", "--json", "--runs", str(runs)).stdout)}


def test_runs_take_turns_on_a_gpu(one_gpu: None, start: Callable[..., Any], cli: Cli, runs: Path) -> None:
    def waits(body: dict[str, Any]) -> bool:
        return body["type"] == "state" and "waiting for GPU 0" in body["reason"]

    first = start("first", "demo", "--steps", "100000", "--set", "scheduler=constant")
    first.until(lambda body: body["type"] == "progress")
    second = start("second", "demo", "--steps", "3")
    assert second.until(waits)["reason"] == "waiting for GPU 0: first uses it"
    third = start("third", "demo", "--steps", "3")
    assert third.until(waits)["reason"] == "waiting for GPU 0: first uses it, 1 ahead in the line"

    # They are listed, in order, in a state of the contract, and their supervisors hold them.
    listed = rows(cli, runs)
    assert (listed["second"]["state"], listed["second"]["waiting"][:19]) == ("starting", "GPU 0, number 1 in ")
    queue = json.loads(cli("queue", "--json").stdout)
    assert [(place["name"], bool(place["using"])) for place in queue] == [
        ("first", True), ("second", False), ("third", False),
    ]  # fmt: skip

    # What makes no sense yet is refused; the order can be changed; a waiting run can be cancelled.
    refused = cli("control", "second", "pause", "--runs", str(runs))
    assert (refused.returncode, "there is no worker yet" in refused.stdout) == (1, True)
    assert "number 1" in cli("queue", "third", "--to", "1", "--runs", str(runs)).stdout
    third.until(lambda body: waits(body) and body["reason"].endswith("first uses it"))
    assert cli("queue", "second", "--cancel", "--runs", str(runs)).returncode == 0
    assert second.end() == 0
    assert (second.events[-1]["type"], second.steps()) == ("stopped", [])

    # The turn comes when the first has ended.
    first.until_step(1)
    assert cli("control", "first", "stop", "--runs", str(runs)).returncode == 0
    assert first.end() == 0
    assert third.end() == 0, third.words.read_text()
    assert third.steps() == [1, 2, 3]
    assert third.status()["extra"]["device"] == "GPU 0 (RTX 4090)"
    assert cli("queue").stdout == "no run uses or waits for a device\n"

    # What was cancelled can be resumed, also without waiting.
    resumed = start("second", "resume", "second", "--share")
    assert resumed.end() == 0, resumed.words.read_text()
    assert resumed.steps() == [1, 2, 3]


def test_a_card_that_is_not_there_is_refused(one_gpu: None, start: Callable[..., Any]) -> None:
    run = start("no-card", "demo", "--steps", "3", "--set", "memory.device=cuda:1")
    assert run.end() == 2
    assert "cuda:1: there is no such GPU here (there are: cuda:0 RTX 4090)" in run.words.read_text()
