"""The tracks of a run hold every step once, whatever happened to it; and no tracker ever stops a run."""

from __future__ import annotations

import csv
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from injections import at_step, spoil
from nursery import TIMELESS, Child, Nursery, assert_golden

LOSS = TIMELESS.index("loss")
TRACKERS: dict[str, Any] = {"logging": {"trackers": ["tensorboard", "csv"]}}
HELD_OUT: dict[str, Any] = {"validation": {"holdout": 2, "every": 5}}


def board(run: Child, metric: str) -> list[tuple[int, float]]:
    """A curve as TensorBoard's own reader has it."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    reader = EventAccumulator(str(run.folder.trackers / "tensorboard" / run.folder.name), {"scalars": 0})
    reader.Reload()
    return [(event.step, event.value) for event in reader.Scalars(metric)]


def sheet(run: Child, group: str, metric: str) -> list[tuple[int, float]]:
    """A column of a CSV file."""
    with (run.folder.trackers / "csv" / f"{group}.csv").open(encoding="utf-8", newline="") as file:
        return [(int(row["step"]), float(row[metric])) for row in csv.DictReader(file) if row[metric]]


def told(run: Child) -> list[tuple[int, float]]:
    """Step and loss as the run's own history has them."""
    return [(step, float.fromhex(row[LOSS])) for step, row in sorted(run.trace().items())]


def assert_each_step_once(run: Child) -> None:
    assert sheet(run, "train", "train/loss") == told(run)
    # TensorBoard stores float32.
    assert board(run, "train/loss") == [(step, pytest.approx(loss, rel=1e-6)) for step, loss in told(run)]


def test_a_killed_and_resumed_run_has_every_step_once_in_its_tracks(nursery: Nursery) -> None:
    """Killed three steps after a checkpoint, which stands on a step that was validated."""
    run = nursery.start(steps=20, **TRACKERS, **HELD_OUT)
    run.until_step(13)
    run.kill_worker()
    run.end()
    run.start()
    assert run.end() == 0, run.log()
    assert_each_step_once(run)
    for curve in (sheet(run, "validation", "validation/loss"), board(run, "validation/loss")):
        assert [step for step, _ in curve] == [0, 5, 10, 15, 20]
    anchors = [sheet(run, "train", f"train/loss_anchor_{index:02d}") for index in range(10)]
    assert sorted(step for column in anchors for step, _ in column) == list(range(1, 21))  # one picture a step
    assert sheet(run, "train", "train/lr") == [(step, 1e-4) for step in range(1, 21)]
    assert {path.name for path in run.folder.trackers.iterdir() if path.is_dir()} == {"csv", "tensorboard"}
    assert run.of("warning") == []


def test_after_a_rollback_the_steps_that_were_taken_back_are_replaced(nursery: Nursery) -> None:
    run = nursery.start(
        steps=20,
        safety={"non_finite": "rollback"},
        inject=partial(at_step, 13, partial(spoil, "gradient", float("nan")), times=1),
        **TRACKERS,
    )
    assert run.end() == 0, run.log()
    assert_each_step_once(run)
    rates = dict(sheet(run, "train", "train/lr"))
    assert (rates[10], rates[11], rates[20]) == (1e-4, 5e-5, 5e-5)


@pytest.mark.fault("A tracker that cannot start, one that cannot write")
def test_trackers_that_fail_are_told_once_and_the_run_is_the_same(nursery: Nursery, golden: Child) -> None:
    """A warning for each in the journal, and every number, the LoRA and the optimizer as without trackers."""
    run = nursery.create(steps=20, **TRACKERS)
    (run.folder.trackers / "csv" / "train.csv").mkdir(parents=True)
    (run.folder.trackers / "tensorboard").write_text("not a folder")
    run.start()
    assert run.end() == 0, run.log()
    said = [body["message"] for body in run.of("warning")]
    assert [message.partition(":")[0] for message in said] == [
        "tracker tensorboard could not start, and the run goes on without it",
        "tracker csv could not start, and the run goes on without it",
    ]
    assert_golden(run, golden, 20)


@pytest.mark.fault("A tracker that fails in the middle of a run")
def test_a_tracker_that_fails_later_is_told_once_and_tried_again(nursery: Nursery, golden: Child) -> None:
    """One warning for a spell of failed writes; what is written after it is in the track."""
    run = nursery.create(steps=20, **TRACKERS)
    file = run.folder.trackers / "csv" / "train.csv"
    run.start(inject=partial(both_ways, str(file)))
    assert run.end() == 0, run.log()
    (said,) = [body["message"] for body in run.of("warning")]
    assert "tracker csv could not write step" in said
    steps = [step for step, _ in sheet(run, "train", "train/loss")]
    assert steps[-1] == 20
    assert len(set(steps)) == len(steps) < 20
    assert_golden(run, golden, 20)


def both_ways(path: str) -> None:
    """The file gives way to a folder before step 8, and may be made again before step 13; the thread is waited for."""
    at_step(7, partial(block, path), times=1)
    at_step(12, partial(unblock, path), times=1)


def block(path: str, _trainer: Any) -> None:
    Child.wait_for(Path(path).exists)
    Path(path).rename(path + ".old")
    Path(path).mkdir()


def unblock(path: str, _trainer: Any) -> None:
    log = Path(path).parents[2] / "worker.log"
    Child.wait_for(lambda: "IsADirectoryError" in log.read_text(encoding="utf-8"))
    Path(path).rmdir()


def test_without_trackers_there_is_nothing_of_them(golden: Child) -> None:
    assert not golden.folder.trackers.exists()
