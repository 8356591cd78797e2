"""The validation as an app sees it: points in step order, each step once, and a line in the journal."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from fake_run import START, make_plan, make_step
from hypothesis import given
from hypothesis import strategies as st

from acrf_engine.protocol import Event, Progress, StateChanged, Validation
from acrf_engine.run.telemetry import TelemetryReader, TelemetryWriter
from acrf_engine.run.wire import to_wire
from acrf_tui.state import RunState
from acrf_tui.validation_curve import ValidationCurve


def measured(step: int, loss: float, **changes: int) -> Validation:
    return Validation(step, loss, [loss], changes.pop("pictures", 4), 1.25, time=START, **changes)


def points(state: RunState) -> list[tuple[float, float]]:
    return list(zip(*state.validation, strict=True))


@given(st.lists(st.tuples(st.integers(0, 30), st.floats(0, 9)), max_size=40))
def test_the_curve_holds_each_step_once_and_what_was_measured_last(measures: list[tuple[int, float]]) -> None:
    curve, expected = ValidationCurve.empty(), {}
    for step, loss in measures:
        curve.add(step, loss)
        expected = {earlier: value for earlier, value in expected.items() if earlier < step} | {step: loss}
    assert dict(zip(curve.steps, curve.losses, strict=True)) == expected
    assert list(curve.steps) == sorted(expected)


def test_a_run_resumed_from_an_earlier_checkpoint_forgets_the_points_after_it() -> None:
    state = RunState()
    for event in (make_plan(seq=1), measured(0, 0.5, seq=2), measured(100, 0.4, seq=3), measured(200, 0.3, seq=4)):
        state.apply(event)
    assert points(state) == [(0, 0.5), (100, 0.4), (200, 0.3)]
    state.apply(make_plan(start_step=150, seq=5))
    assert points(state) == [(0, 0.5), (100, 0.4)]
    state.apply(measured(200, 0.31, seq=6))
    assert points(state) == [(0, 0.5), (100, 0.4), (200, 0.31)]


def test_an_app_that_attaches_draws_the_same_points(tmp_path: Path) -> None:
    """From the store, resumes included."""
    writer = TelemetryWriter(tmp_path / "telemetry.db")
    events: list[Event] = [
        make_plan(), measured(0, 0.5), measured(100, 0.4), measured(200, math.nan), make_plan(start_step=100),
        measured(100, 0.4), measured(200, 0.35),
    ]  # fmt: skip
    for seq, event in enumerate(events, 1):
        writer.record(to_wire(event) | {"seq": seq, "time": START + seq})
    writer.close()
    state = RunState()
    state.load(TelemetryReader(tmp_path / "telemetry.db").history())
    assert points(state) == [(0, 0.5), (100, 0.4), (200, 0.35)]


@pytest.mark.parametrize(
    ("event", "text"),
    [
        (measured(100, 0.12344), "validation 0.1234 on 4 pictures, 1.2 s"),
        (measured(100, 0.5, pictures=1), "validation 0.5000 on 1 picture, 1.2 s"),
        (measured(100, math.nan), "validation NaN on 4 pictures, 1.2 s"),
    ],
)
def test_the_journal_says_it_in_a_line(event: Validation, text: str) -> None:
    state = RunState()
    state.apply(event)
    assert [(entry.kind, entry.text, entry.step) for entry in state.journal] == [("validation", text, 100)]


def test_a_validation_under_way_is_seen_until_it_ends_or_training_goes_on() -> None:
    state = RunState()
    state.apply(StateChanged("running", 5, 100))
    state.apply(Progress("validating", 1, 4, "held-out pictures"))
    under_way = state.validating()
    assert under_way is not None
    assert (under_way.done, under_way.total) == (1, 4)
    state.apply(Progress("validating", 4, 4, "held-out pictures"))
    assert state.validating() is None
    for after in (make_step(6), StateChanged("stopping", 5, 100)):
        state.apply(StateChanged("running", 5, 100))
        state.apply(Progress("validating", 1, 4, "held-out pictures"))
        assert state.validating() is not None
        state.apply(after)
        assert state.validating() is None
