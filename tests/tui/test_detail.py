"""Zooming into the older part of a long run shows its steps, and only there are they kept."""

from __future__ import annotations

from array import array
from dataclasses import replace
from pathlib import Path

import pytest
from fake_run import START, FakeApp, FakeSource, make_history, make_step
from hypothesis import given, settings
from hypothesis import strategies as st
from waiting import until

from acrf_engine.run import blocks
from acrf_engine.run.columns import STEP_COLUMNS, StepColumns
from acrf_engine.run.telemetry import History
from acrf_tui.detail import DETAIL_STEPS
from acrf_tui.state import RunState

STEPS, SEAM = 6000, 40 * blocks.BLOCK_STEPS


def part(columns: StepColumns, first: float, last: float) -> StepColumns:
    chosen = [index for index, number in enumerate(columns.step) if first <= number <= last]
    return StepColumns(*(array("d", (getattr(columns, name)[i] for i in chosen)) for name in STEP_COLUMNS))


@pytest.fixture(scope="module")
def full() -> History:
    return make_history(STEPS, total=STEPS)


@pytest.fixture(scope="module")
def long(full: History) -> History:
    """The same, with all steps before SEAM condensed."""
    columns = StepColumns()
    for begin in range(0, SEAM, blocks.BLOCK_STEPS):
        columns.extend(blocks.condensed(part(full.steps, begin, begin + blocks.BLOCK_STEPS - 1)))
    columns.extend(part(full.steps, SEAM, STEPS))
    return replace(full, steps=columns, exact_from=float(SEAM))


def loaded(history: History) -> RunState:
    columns = StepColumns(*(getattr(history.steps, name)[:] for name in STEP_COLUMNS))
    state = RunState()
    state.load(replace(history, steps=columns))
    return state


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, STEPS), st.integers(0, STEPS)), max_size=8))
def test_every_view_that_was_asked_for_is_shown_in_full_and_nothing_gathers(
    full: History, long: History, views: list[tuple[int, int]]
) -> None:
    state = loaded(long)
    condensed = len(state.series)
    for view in views:
        begin, end = min(view), max(view)
        wanted = state.detail.wanted(begin, end)
        if wanted is not None:
            first, last = wanted
            assert first <= begin
            assert last >= min(end, SEAM - 1)
            state.take_steps(first, last, part(full.steps, first, last))
        shown = [(s, x) for s, x in zip(state.series.step, state.series.loss, strict=True) if begin <= s <= end]
        assert shown == [(s, x) for s, x in zip(full.steps.step, full.steps.loss, strict=True) if begin <= s <= end]
        assert list(state.series.step) == sorted(set(state.series.step))
        assert state.detail.wanted(begin, end) is None, "it is not read again"
    state.detail.take_out(state.series)
    assert len(state.series) == condensed


def test_a_view_of_more_steps_than_a_screen_can_tell_apart_is_drawn_as_it_is(long: History) -> None:
    state = loaded(long)
    state.detail.exact_from = 900_000.0
    assert state.detail.wanted(0, DETAIL_STEPS + 1) is None
    assert state.detail.wanted(900_000, 1_000_000) is None
    first, last = state.detail.wanted(500_000, 501_000) or (0, 0)
    assert (first, last) == (499_500, 501_500)


def test_a_short_run_never_asks(full: History) -> None:
    assert loaded(full).detail.wanted(0, 100) is None


def test_a_run_that_goes_back_into_what_is_shown_in_full_goes_on_from_there(full: History, long: History) -> None:
    state = loaded(long)
    state.take_steps(1000.0, 2000.0, part(full.steps, 1000, 2000))
    state.apply(replace(make_step(1500), seq=state.last_seq + 1, time=START))
    assert state.series.step[-1] == 1500
    assert list(state.series.step) == sorted(set(state.series.step))
    assert state.detail.exact_from == 1500
    state.take_steps(1400.0, 1600.0, part(full.steps, 1400, 1600))
    assert state.series.step[-1] == 1500, "what was read before is of an attempt that is forgotten"


class LongRun(FakeSource):
    def __init__(self, long: History, full: History) -> None:
        columns = StepColumns(*(getattr(long.steps, name)[:] for name in STEP_COLUMNS))
        super().__init__(replace(long, steps=columns))
        self.full, self.read = full, list[tuple[float, float]]()
        self.broken = False

    def steps(self, first: float, last: float) -> StepColumns:
        self.read.append((first, last))
        if self.broken:
            raise OSError("the disk is gone")
        return part(self.full.steps, first, last)


@pytest.mark.parametrize("broken", [False, True])
async def test_zooming_in_reads_the_steps_once(long: History, full: History, broken: bool, tmp_path: Path) -> None:
    source = LongRun(long, full)
    source.broken = broken
    app = FakeApp(source)
    async with app.run_test(size=(120, 40)) as pilot:
        await until(lambda: app.dashboard.run_state.training)
        await pilot.press("plus")
        await until(lambda: bool(source.read))
        state = app.dashboard.run_state
        if broken:
            await until(lambda: "the disk is gone" in state.journal[-1].text)
        else:
            begin, _ = app.dashboard.loss.chart.view.window()
            await until(lambda: [s for s in state.series.step if s >= begin] == list(range(int(begin), STEPS + 1)))
        ticks = app.dashboard._ticks
        await until(lambda: app.dashboard._ticks > ticks + 3)
        assert len(source.read) == len(set(source.read)) <= 2
