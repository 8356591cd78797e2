"""The run's memory: what was written is read back exactly, at any time, also after a resume."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from acrf_engine.protocol import (
    Ack,
    Checkpoint,
    Hardware,
    Memory,
    Pictures,
    Plan,
    Progress,
    StateChanged,
    Step,
    WarningEvent,
)
from acrf_engine.run.telemetry import TelemetryReader, TelemetryWriter
from acrf_engine.run.wire import from_wire, to_wire


def step(number: int, **changes: Any) -> Step:
    values: dict[str, Any] = {
        "step": number, "total_steps": 100, "epoch": number / 7, "loss": 1 / (number + 2), "loss_char": 0.1 * number,
        "loss_cos": 0.2, "loss_fft": 0.3, "loss_balanced": 0.4, "lr": 1e-4 / number, "grad_norm": 2.0,
        "step_time_s": 0.05,
        "sigmas": [0.9, 0.1], "anchors": [number % 3, 2], "weights": [1.0, 0.1], "losses": [0.5, 0.25 * number],
    }  # fmt: skip
    return Step(**{**values, **changes})


def plan(start_step: int) -> Plan:
    return Plan(
        model="m", device="CPU", dtype="float32", pictures=1, buckets={}, batch_size=1, gradient_accumulation=2,
        micro_batches_per_epoch=1, total_steps=100, start_step=start_step, anchors=[1.0, 0.5, 0.1], snr_gamma=5.0,
        weighting="min_snr", jitter_scale=0.02, trainable_parameters=1, base_parameters=1, lora_modules=1, rank=1,
        alpha=1.0, optimizer="AdamW", scheduler="cosine", learning_rate=1e-4, lambda_char=1.0, lambda_cos=0.1,
        lambda_fft=0.1, max_grad_norm=1.0, versions={},
    )  # fmt: skip


class Run:
    """A writer that stamps events as the supervisor does, and a reader of the same file."""

    def __init__(self, path: Path) -> None:
        self.writer = TelemetryWriter(path)
        self.reader = TelemetryReader(path)
        self.seq = 0

    def say(self, *events: Any) -> None:
        for event in events:
            self.seq += 1
            self.writer.record(to_wire(event) | {"seq": self.seq, "time": 1000.0 + self.seq})


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path / "telemetry.db")


def test_an_absent_file_reads_as_an_empty_history(tmp_path: Path) -> None:
    reader = TelemetryReader(tmp_path / "none.db")
    history = reader.history()
    assert (history.last_seq, list(history.steps.step), history.events, history.hardware) == (0, [], [], [])
    assert reader.after(0) == []
    assert reader.last_seq() == 0
    assert not (tmp_path / "none.db").exists()


def test_steps_come_back_bit_for_bit(run: Run) -> None:
    said = [step(number) for number in range(1, 30)]
    run.say(*said)
    run.writer.commit()
    columns = run.reader.history().steps
    for name in ("step", "epoch", "loss", "loss_char", "loss_cos", "loss_fft", "loss_balanced", "lr", "grad_norm"):
        assert [value.hex() for value in getattr(columns, name)] == [float(getattr(s, name)).hex() for s in said]
    assert list(columns.time) == [1001.0 + index for index in range(29)]


def test_the_journal_keeps_whole_events_in_order(run: Run) -> None:
    journal = [
        StateChanged("running", 0, 100, "go"),
        WarningEvent("left out: ü.png: broken"),
        Ack("c1", "set", True, 3, "lr", "learning_rate", 5e-5, 1e-4),
        Checkpoint(4, "/x", 10, 0.1),
    ]
    run.say(*journal)
    events = run.reader.history().events
    assert [type(event) for event in events] == [type(event) for event in journal]
    assert events[2] == Ack("c1", "set", True, 3, "lr", "learning_rate", 5e-5, 1e-4, seq=3, time=1003.0)


def test_journal_events_are_on_disk_at_once(run: Run) -> None:
    run.say(step(1), Ack("c1", "pause", True, 1))
    history = run.reader.history()
    assert len(history.events) == 1
    assert list(history.steps.step) == [1.0]


def test_a_reader_sees_only_what_was_committed_and_the_writer_goes_on(run: Run) -> None:
    run.say(step(1))
    run.writer.commit()
    run.say(step(2))
    assert list(run.reader.history().steps.step) == [1.0]
    run.writer.commit()
    assert list(run.reader.history().steps.step) == [1.0, 2.0]


def test_what_is_not_finite_stays_nan_and_is_a_gap_not_a_zero(run: Run) -> None:
    run.say(step(1), step(2, loss=math.nan, grad_norm=math.inf, losses=[math.nan, 0.5]), step(3))
    run.writer.commit()
    history = run.reader.history()
    assert [math.isnan(value) for value in history.steps.loss] == [False, True, False]
    assert [math.isnan(value) for value in history.steps.grad_norm] == [False, True, False]
    (body,) = [body for body in run.reader.after(0) if body["step"] == 2]
    again = from_wire(body)
    assert isinstance(again, Step)
    assert math.isnan(again.loss)
    assert math.isnan(again.losses[0])


def test_anchors_are_counted_with_their_mean_loss(run: Run) -> None:
    run.say(
        step(1, anchors=[0, 2], losses=[1.0, 4.0]),
        step(2, anchors=[0, 2], losses=[3.0, math.nan]),
        Pictures(2, [0.5], [2], [1.0], [6.0]),
    )
    run.writer.commit()
    history = run.reader.history()
    assert history.anchor_draws == [2, 0, 3]
    assert history.anchor_loss[0] == pytest.approx(2.0)
    assert math.isnan(history.anchor_loss[1])
    assert history.anchor_loss[2] == pytest.approx(5.0)


def test_a_resumed_run_has_each_step_once_and_its_anchors_counted_anew(run: Run) -> None:
    run.say(plan(0), *(step(number, anchors=[number % 3, 2]) for number in range(1, 11)), WarningEvent("killed"))
    run.say(plan(6), *(step(number, loss=9.0, anchors=[1, 1]) for number in range(7, 13)))
    run.writer.commit()

    history = run.reader.history()
    assert list(history.steps.step) == [float(number) for number in range(1, 13)]
    assert list(history.steps.loss)[6:] == [9.0] * 6
    kept = [anchor for number in range(1, 7) for anchor in (number % 3, 2)] + [1] * 12
    assert history.anchor_draws == [kept.count(anchor) for anchor in range(3)]
    assert sum(isinstance(event, WarningEvent) for event in history.events) == 1


def test_a_run_that_starts_over_forgets_all_its_steps(run: Run) -> None:
    run.say(plan(0), step(1), step(2))
    run.say(plan(0), step(1, anchors=[1, 1]))
    run.writer.commit()
    history = run.reader.history()
    assert list(history.steps.step) == [1.0]
    assert history.anchor_draws == [0, 2]


def test_after_gives_what_is_newer_in_the_order_of_seq(run: Run) -> None:
    run.say(step(1), WarningEvent("a"), Hardware([], "no GPU"), step(2), WarningEvent("b"))
    run.writer.commit()
    assert [(body["seq"], body["type"]) for body in run.reader.after(1)] == [
        (2, "warning"), (3, "hardware"), (4, "step"), (5, "warning"),
    ]  # fmt: skip
    assert [body["seq"] for body in run.reader.after(0, limit=2)] == [1, 2]
    assert run.reader.after(5) == []


def test_a_step_read_back_is_the_step_that_was_said_with_all_its_pictures(run: Run) -> None:
    run.say(step(4), Pictures(4, [0.7], [1], [0.5], [0.125]))
    run.writer.commit()
    event = from_wire(run.reader.after(0)[0])
    said = step(4)
    assert isinstance(event, Step)
    assert event.sigmas == [*said.sigmas, 0.7]
    assert event.losses == [*said.losses, 0.125]
    assert (event.seq, event.time, event.loss, event.total_steps) == (1, 1001.0, said.loss, 100)
    assert run.reader.history().recent == [event]


def test_what_passes_is_not_kept(run: Run) -> None:
    run.say(Progress("caching", 1, 2), Memory(1, 2))
    run.writer.commit()
    assert run.reader.after(0) == []


def test_a_second_attempt_goes_on_with_seq(run: Run, tmp_path: Path) -> None:
    run.say(step(1), WarningEvent("x"), Hardware([]))
    run.writer.close()
    assert TelemetryWriter(tmp_path / "telemetry.db").last_seq() == 3
    assert run.reader.last_seq() == 3


def test_nobody_else_can_read_it(run: Run, tmp_path: Path) -> None:
    run.say(step(1))
    run.writer.commit()
    assert (tmp_path / "telemetry.db").stat().st_mode & 0o077 == 0


def test_a_path_with_odd_characters_is_no_obstacle(tmp_path: Path) -> None:
    folder = tmp_path / "räume ?x=1#y%20 &"
    folder.mkdir()
    run = Run(folder / "telemetry.db")
    run.say(step(1))
    run.writer.commit()
    assert list(run.reader.history().steps.step) == [1.0]
