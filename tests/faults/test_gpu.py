"""Cards without room, cards that are lost, drivers that do not answer: planted, because they need no card that way."""

from __future__ import annotations

import signal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from injections import at_step, lost_card, no_nvml, no_room, no_room_in_previews, no_room_while, nvml, poison_the_dice
from nursery import Child, Nursery, assert_golden, assert_repeats


@pytest.mark.full_only
@pytest.mark.fault("CUDA out of memory in a step")
def test_out_of_memory_once_is_tried_again(nursery: Nursery, golden: Child, row: Any) -> None:
    """After the backward pass of one update: tried again from clean gradients, and every number is the straight
    run's."""
    run = nursery.start(steps=20, inject=partial(at_step, 11, no_room, times=1))
    assert run.end() == 0
    assert "trying once more" in run.log()
    assert_golden(run, golden, 20)
    row.lost_steps = 0


@pytest.mark.fault("CUDA out of memory in a step")
def test_out_of_memory_again_pauses_with_advice(nursery: Nursery, golden: Child, row: Any, tmp_path: Path) -> None:
    """The card stays full: the run is saved and paused, the warning names the settings that need less. A resume while
    it is still full pauses again; with room it goes on to the straight run's end."""
    mark = tmp_path / "full"
    mark.touch()
    run = nursery.start(steps=20, inject=partial(no_room_while, str(mark)))
    run.until_state("paused")
    told = run.of("warning")[-1]["message"]
    for word in ("out of memory", "resolution", "batch_size", "gradient_checkpointing"):
        assert word in told
    assert run.newest_checkpoint() == 11
    assert run.command("resume").ok
    run.until_state("paused")
    mark.unlink()
    assert run.command("resume").ok
    assert run.end() == 0
    assert_golden(run, golden, 20)
    row.trials, row.lost_steps = 2, 0


@pytest.mark.full_only
@pytest.mark.fault("CUDA out of memory in a preview")
def test_out_of_memory_in_a_preview_costs_the_preview(nursery: Nursery, golden: Child, row: Any) -> None:
    """A warning for each, training goes on, and every number is the straight run's."""
    run = nursery.start(steps=12, preview={"every": 5}, inject=no_room_in_previews)
    assert run.end() == 0
    warnings = [body["message"] for body in run.of("warning")]
    assert len(warnings) == 2
    assert all("preview failed, training goes on" in told for told in warnings)
    assert_repeats(run, golden, 12)
    row.trials, row.lost_steps = 2, 0


@pytest.mark.fault("A GPU that is lost in a step")
def test_a_lost_card_fails_loudly_and_the_run_resumes(nursery: Nursery, golden: Child, row: Any) -> None:
    """The run fails, the reason holds CUDA's word and what to do, the traceback is in the journal, and the resumed run
    repeats the straight one."""
    run = nursery.start(steps=20, inject=partial(at_step, 12, lost_card))
    assert run.end() == 1
    assert run.status()["state"] == "failed"
    assert "unspecified launch failure" in run.status()["error"]
    assert "resume" in run.status()["error"]
    assert "nvidia-smi" in run.status()["error"]
    assert "session.py" in run.of("error")[0]["traceback"]
    run.start(inject=poison_the_dice)
    row.lost_steps = 12 - run.until_type("plan")["start_step"]
    assert run.end() == 0
    assert row.lost_steps <= 5
    assert_golden(run, golden, 20)


@pytest.mark.fault("NVML missing, without any answer, or hanging")
@pytest.mark.parametrize(
    "inject",
    [
        pytest.param(no_nvml, id="missing", marks=pytest.mark.full_only),
        pytest.param(nvml, id="supports nothing", marks=pytest.mark.full_only),
        pytest.param(
            partial(nvml, "nvmlDeviceGetUtilizationRates"), id="hangs in a reading", marks=pytest.mark.full_only
        ),
        pytest.param(partial(nvml, "nvmlInit"), id="hangs at its start"),
    ],
)
def test_whatever_nvml_does_the_run_goes_on(nursery: Nursery, golden: Child, row: Any, inject: Any) -> None:
    """Steps go on, the run finishes, supervisor and worker leave, and every number is the straight run's."""
    run = nursery.start(steps=12, inject=inject)
    assert run.end() == 0
    assert run.members() == []
    assert_repeats(run, golden, 12)
    if inject is no_nvml:
        assert run.of("hardware")[-1]["note"]
    if inject is nvml:
        (card,) = run.of("hardware")[-1]["devices"]
        assert card["name"]
        assert "memory_used" not in card  # what a card does not report is absent
    row.lost_steps = 0


@pytest.mark.full_only
@pytest.mark.fault("NVML missing, without any answer, or hanging")
def test_a_run_with_a_hanging_driver_can_be_stopped(nursery: Nursery, row: Any) -> None:
    """SIGTERM to the supervisor while a driver call hangs: saved, `stopped`, gone."""
    run = nursery.start(steps=1000, inject=partial(nvml, "nvmlDeviceGetMemoryInfo"))
    run.until_step(5)
    run.kill_supervisor(signal.SIGTERM)
    assert run.end() == 0
    assert run.status()["state"] == "stopped"
    assert run.members() == []
