"""The window over the steps and the crosshair, shared by all charts."""

from __future__ import annotations

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from acrf_tui.charts.axes import cell_of, marker_cells, nearest, x_of
from acrf_tui.charts.symbols import SYMBOL_SETS
from acrf_tui.charts.view import SHORTEST, ChartView
from acrf_tui.series import Marker


def view_at(last: float, total: float = 100_000.0, zoom: int = 0) -> ChartView:
    view = ChartView(zoom=zoom)
    view.data(last, total)
    return view


def test_the_newest_steps_are_followed_until_somebody_looks_back() -> None:
    view = view_at(50_000, zoom=3)
    before = view.window()
    view.data(70_000, 100_000)
    assert view.window() != before
    view.pan(-1)
    looked_at = view.window()
    view.data(90_000, 100_000)
    assert not view.follows
    assert view.window() == looked_at
    view.follow()
    assert view.follows
    begin, end = view.window()
    assert begin <= 90_000 <= end
    assert end - begin == pytest.approx(looked_at[1] - looked_at[0])


@given(st.integers(2, 6), st.floats(-3, -0.2), st.floats(-3, -0.2))
def test_two_pans_are_one(zoom: int, first: float, second: float) -> None:
    once, twice = view_at(90_000, zoom=zoom), view_at(90_000, zoom=zoom)
    once.pan(first + second)
    assume(once.window()[0] > 0)
    twice.pan(first)
    twice.pan(second)
    assert twice.window() == pytest.approx(once.window())


@given(st.integers(2, 6), st.floats(-3, -0.2))
def test_panning_back_and_forth_returns(zoom: int, share: float) -> None:
    view = view_at(90_000, zoom=zoom)
    view.pan(-0.5)
    start = view.window()
    assume(start[0] + share * (start[1] - start[0]) > 0)
    view.pan(share)
    view.pan(-share)
    assert view.window() == pytest.approx(start)


@given(
    st.floats(1, 1e6),
    st.floats(0, 1e6),
    st.lists(
        st.one_of(
            st.tuples(st.just("pan"), st.floats(-2, 2)),
            st.tuples(st.just("zoom"), st.integers(-3, 3)),
            st.tuples(st.just("read"), st.floats(0, 1)),
            st.tuples(st.just("wheel"), st.floats(0, 1)),
            st.tuples(st.just("data"), st.floats(1, 2)),
            st.tuples(st.just("follow"), st.just(0.0)),
        ),
        max_size=12,
    ),
)
def test_whatever_is_done_the_window_is_sound(last: float, total: float, doings: list[tuple[str, float]]) -> None:
    view = view_at(last, total)
    for doing, amount in doings:
        if doing == "pan":
            view.pan(amount)
        elif doing == "zoom":
            view.zoom_by(int(amount))
        elif doing == "read":
            view.read(amount * view.last)
            begin, end = view.window()
            assert begin - 1e-6 * end <= view.cross <= end * (1 + 1e-6), "what is read is in sight"
        elif doing == "wheel":
            begin, end = view.window()
            view.zoom_by(1, begin + amount * (end - begin))
        elif doing == "data":
            view.data(view.last * amount, total)
        else:
            view.follow()
        begin, end = view.window()
        assert begin >= 0
        assert end > begin
        assert math.isfinite(end)
        assert end - begin >= min(view.whole, SHORTEST) * 0.49
        if view.follows:
            assert begin <= view.last <= end * (1 + 1e-9)


def test_a_step_that_the_wheel_left_behind_is_brought_back_when_it_is_read_again() -> None:
    view = view_at(32, total=0)
    view.read(0)
    begin, end = view.window()
    view.zoom_by(1, end)
    assert view.window()[0] > 0
    view.read(0)
    begin, end = view.window()
    assert begin <= 0 < end


@given(st.integers(1, 4), st.floats(0.05, 0.6))
def test_the_wheel_keeps_the_step_under_the_pointer(levels: int, share: float) -> None:
    view = view_at(90_000, zoom=2)
    view.pan(-1)
    begin, end = view.window()
    step = begin + share * (end - begin)
    view.zoom_by(levels, step)
    left, right = view.window()
    assert (step - left) / (right - left) == pytest.approx(share, abs=1e-6)
    view.zoom_by(-levels, step)
    assert view.window() == pytest.approx((begin, end))


def test_keys_zoom_around_the_crosshair_and_without_one_around_the_newest_step() -> None:
    view = view_at(90_000)
    view.zoom_by(3)
    assert view.follows
    view.zoom_by(-3)
    view.read(20_000)
    view.zoom_by(4)
    begin, end = view.window()
    assert begin < 20_000 < end
    assert end < 90_000


def test_panning_at_the_whole_range_and_past_the_end_follows() -> None:
    view = view_at(90_000)
    view.pan(-1)
    assert view.follows
    view.zoom_by(2)
    view.pan(-0.5)
    assert not view.follows
    view.pan(5)
    assert view.follows


def test_listeners_hear_what_a_user_does_and_not_new_data() -> None:
    view, heard = view_at(1000), []
    view.listen(lambda: heard.append(1))
    view.data(1001, 0)
    assert not heard
    view.read(500)
    view.read(500)
    assert len(heard) == 1, "the same step again is no news"


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=60, unique=True), st.floats(-10, 1.1e6))
def test_the_nearest_sample_is_the_nearest(xs: list[float], x: float) -> None:
    xs = sorted(xs)
    index = nearest(xs, x)
    assert index is not None
    assert abs(xs[index] - x) == min(abs(value - x) for value in xs)


@given(st.floats(0, 1e5), st.floats(1, 1e5), st.integers(1, 300), st.data())
def test_a_cell_holds_its_own_middle(begin: float, length: float, width: int, data: st.DataObject) -> None:
    cell = data.draw(st.integers(0, width - 1))
    assert cell_of(x_of(cell, begin, begin + length, width), begin, begin + length, width) == cell


def test_markers_of_one_kind_stay_and_of_several_become_one() -> None:
    symbols = SYMBOL_SETS["ascii"]
    marks = [Marker(10, "set", ""), Marker(11, "set", ""), Marker(500, "checkpoint", ""), Marker(504, "preview", "")]
    cells = marker_cells([*marks, Marker(5000, "warning", "")], 0, 1000, 50, symbols)
    assert cells == {0: ("s", "marker-set"), 25: ("+", "axis")}
