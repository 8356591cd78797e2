"""RunState: events in, what panels show out."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest
from fake_run import START, make_hardware, make_history, make_plan, make_step

from acrf_engine.protocol import (
    Ack,
    Checkpoint,
    ErrorEvent,
    Failed,
    Finished,
    Pictures,
    Progress,
    StateChanged,
    Step,
    Stopped,
    WarningEvent,
)
from acrf_tui.state import RunState


def begun(**plan: object) -> RunState:
    state = RunState()
    state.apply(StateChanged("starting", 0, 0, seq=1, time=START))
    state.apply(make_plan(seq=2, time=START + 1, **plan))
    state.apply(StateChanged("running", 0, 4000, seq=3, time=START + 2))
    return state


def step_at(number: int, seq: int, **changes: object) -> Step:
    return replace(make_step(number), seq=seq, time=START + 2 + number * 0.125, **changes)


def test_a_step_moves_everything_that_shows_progress() -> None:
    state = begun()
    for number in range(1, 21):
        state.apply(step_at(number, number + 3))
    assert (state.step, state.total_steps, len(state.series)) == (20, 4000, 20)
    assert sum(state.anchors.draws) == 80
    assert state.images_per_second() == pytest.approx(4 / 0.125, rel=0.1)
    assert state.eta() == pytest.approx(3980 * 0.125, rel=0.1)
    assert state.elapsed(START + 10) == pytest.approx(10)
    assert state.gaps == 0


def test_an_event_seen_before_changes_nothing() -> None:
    state = begun()
    assert state.apply(step_at(1, 4))
    assert not state.apply(step_at(1, 4))
    assert len(state.series) == 1


def test_a_jump_of_seq_is_counted_and_merged_steps_too() -> None:
    state = begun()
    state.apply(step_at(1, 4))
    state.apply(step_at(7, 9, merged=5))
    assert state.gaps == 4
    assert state.merged == 5


def test_nan_stays_nan() -> None:
    state = begun()
    state.apply(step_at(1, 4, loss=math.nan, losses=[math.nan] * 4))
    assert math.isnan(state.series.loss[0])
    assert sum(state.anchors.draws) == 4
    assert all(math.isnan(state.anchors.mean(a)) for a in range(len(state.anchors.draws)))


def test_steps_repeated_after_a_resume_replace_the_old_ones() -> None:
    state = begun()
    for number in range(1, 11):
        state.apply(step_at(number, number + 3))
    version = state.series_version
    state.apply(step_at(6, 20, loss=9.0))
    assert list(state.series.step) == [1, 2, 3, 4, 5, 6]
    assert state.series.loss[-1] == 9.0
    assert state.series_version == version + 1


def test_history_with_repeated_steps_keeps_the_later_ones() -> None:
    history = make_history(10)
    for name, column in vars(history.steps).items():
        for number in (7, 8):
            column.append(float(number) if name == "step" else 5.0)
    state = RunState()
    state.load(history)
    assert list(state.series.step) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert list(state.series.loss[-2:]) == [5.0, 5.0]


def test_history_then_stream_equals_the_stream_alone() -> None:
    history = make_history(300)
    loaded = RunState()
    loaded.load(history)
    streamed = RunState()
    for event in [*history.events[:4], *(step_at(n, 0) for n in range(1, 301))]:
        streamed.apply(replace(event, seq=0))
    assert loaded.series.step == streamed.series.step
    assert loaded.series.loss == streamed.series.loss
    assert loaded.anchors.draws == streamed.anchors.draws
    for anchor in range(10):
        assert loaded.anchors.mean(anchor) == pytest.approx(streamed.anchors.mean(anchor))
    assert loaded.step == streamed.step == 300
    assert loaded.sigmas == streamed.sigmas
    assert loaded.last_seq == 310
    assert not loaded.apply(step_at(301, 310)), "the stream repeats nothing of the history"
    assert loaded.apply(step_at(301, 311))


def test_a_pause_is_not_in_the_estimate_and_slow_outliers_neither() -> None:
    state = begun()
    for number in range(1, 41):
        slow = 60.0 if number in (10, 30) else 0.5
        state.apply(step_at(number, number + 3, step_time_s=slow))
    assert state.step_seconds() == pytest.approx(0.5)
    assert state.eta() == pytest.approx(3960 * 0.5)


def test_time_between_two_attempts_is_not_elapsed_time() -> None:
    state = begun()
    state.apply(StateChanged("stopped", 5, 4000, seq=4, time=START + 100))
    assert state.elapsed(START + 5000) == pytest.approx(100)
    state.apply(StateChanged("starting", 5, 4000, attempt=2, seq=5, time=START + 10_000))
    assert state.elapsed(START + 10_010) == pytest.approx(110)


def test_a_death_without_a_word_ends_the_elapsed_time_at_the_last_event() -> None:
    state = begun()
    state.apply(step_at(8, 4))
    state.apply(StateChanged("starting", 5, 4000, attempt=2, seq=5, time=START + 10_000))
    assert state.elapsed(START + 10_000) == pytest.approx(3.0)


def test_commands_and_their_answers_are_in_the_journal() -> None:
    state = begun()
    state.apply(Ack("c1", "set", True, 12, "", "learning_rate", 5e-5, 1e-4, seq=4, time=START + 3))
    state.apply(Ack("c2", "preview", False, 13, "not supported by this model", seq=5, time=START + 4))
    state.apply(Ack("c3", "set", True, 14, "", "snr_gamma", 3.0, 5.0, seq=6, time=START + 5))
    done, refused, _ = list(state.journal)[-3:]
    assert (done.kind, done.step, done.text) == ("done", 12, "set learning_rate 0.0001 → 5e-05")
    assert (refused.kind, refused.text) == ("refused", "preview refused: not supported by this model")
    assert state.base_rate == 5e-5
    assert state.gamma() == 3.0
    assert state.preview_refused


def test_checkpoints_warnings_and_errors_are_in_the_journal() -> None:
    state = begun()
    state.apply(Checkpoint(200, "checkpoints/step-000200", 41_000_000, 0.4, seq=4, time=START + 3))
    state.apply(WarningEvent("2 pictures have no caption", 0, seq=5, time=START + 3))
    state.apply(ErrorEvent("CUDA out of memory", 9, seq=6, time=START + 3))
    state.apply(StateChanged("failed", 9, 4000, "CUDA out of memory", seq=7, time=START + 3))
    state.apply(Failed(9, "CUDA out of memory", seq=8, time=START + 3))
    kinds = [entry.kind for entry in state.journal]
    assert kinds[-3:] == ["checkpoint", "warning", "error"]
    assert (state.state, state.error, state.ended) == ("failed", "CUDA out of memory", True)


def test_last_words_end_the_run() -> None:
    for last, expected in (
        (Finished(9, "x.safetensors"), "finished"),
        (Stopped(9, "asked"), "stopped"),
        (Failed(9, "killed", "interrupted"), "interrupted"),
    ):
        state = begun()
        state.apply(replace(last, seq=4, time=START + 50))
        assert state.state == expected
        assert state.elapsed(START + 500) == pytest.approx(50)


def test_a_supervisor_that_vanishes_leaves_an_interrupted_run() -> None:
    state = begun()
    state.vanish("interrupted", "killed by signal 9", START + 60)
    assert (state.state, state.error) == ("interrupted", "killed by signal 9")
    assert state.journal[-1].kind == "error"
    finished = begun()
    finished.apply(Finished(9, "", seq=4, time=START + 50))
    finished.vanish("finished", "", START + 60)
    assert finished.state == "finished"


def test_status_still_running_without_a_supervisor_is_interrupted() -> None:
    state = begun()
    state.vanish("running", "", START + 60)
    assert state.state == "interrupted"
    assert "without a word" in state.error


def test_pictures_of_a_long_step_follow_it() -> None:
    state = begun()
    state.apply(step_at(1, 4))
    state.apply(Pictures(1, [0.5], [3], [1.0], [0.2], seq=5, time=START))
    assert sum(state.anchors.draws) == 5
    assert state.sigmas[-1] == (0.5, 1.0)


def test_phases_tell_how_long_they_take() -> None:
    state = RunState()
    state.apply(Progress("caching", 1, 24, seq=1, time=START))
    state.apply(Progress("caching", 2, 24, seq=2, time=START + 5))
    assert state.phase_since == START
    state.apply(Progress("loading", 0, 0, seq=3, time=START + 9))
    assert state.phase_since == START + 9


def test_what_is_remembered_is_bounded() -> None:
    state = begun()
    rng = random.Random(1)
    for _ in range(3000):
        state.note("note", str(rng.random()), START)
    for number in range(700):
        state.apply(replace(make_hardware(1, number), seq=number + 4, time=START))
    assert len(state.journal) == 2000
    assert len(state.hardware_history) == 600
