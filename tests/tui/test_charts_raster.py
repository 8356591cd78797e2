"""The rasteriser: what is drawn is what was measured."""

from __future__ import annotations

import math
from array import array
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acrf_tui.charts.raster import (
    EMPTY,
    Columns,
    Row,
    broken_cells,
    changed_span,
    columns_of_points,
    compose,
    put,
    trace,
)
from acrf_tui.charts.scale import Bounds, Scale, doubling_domain, label, nice_step, ticks, window
from acrf_tui.charts.symbols import SYMBOL_SETS

finite = st.floats(-1e6, 1e6, allow_nan=False, width=32)
samples = st.lists(st.one_of(finite, st.just(math.nan), st.just(math.inf)), min_size=1, max_size=400)


def gather(values: list[float], count: int) -> Columns:
    columns = Columns(count, 0.0, float(len(values)))
    columns.extend(array("d", range(len(values))), array("d", values), 0, len(values))
    return columns


def rows_of(mask: int) -> list[int]:
    return [row for row in range(mask.bit_length()) if mask >> row & 1]


@given(samples, st.integers(1, 60))
def test_decimation_keeps_the_lowest_and_the_highest_value(values: list[float], count: int) -> None:
    seen = [value for value in values if math.isfinite(value)]
    assert gather(values, count).bounds() == ((min(seen), max(seen)) if seen else None)


@given(samples, st.integers(1, 30))
def test_gathering_at_once_equals_gathering_one_by_one(values: list[float], count: int) -> None:
    at_once = gather(values, count)
    one_by_one = Columns(count, 0.0, float(len(values)))
    for index, value in enumerate(values):
        one_by_one.append(float(index), value)
    for name in ("first", "low", "high", "last", "finite"):
        assert repr(getattr(at_once, name)) == repr(getattr(one_by_one, name)), name
    assert at_once.gap == one_by_one.gap
    assert at_once.consumed == one_by_one.consumed == len(values)


@given(samples, st.integers(1, 60), st.integers(1, 80))
def test_all_dots_lie_inside_the_plot(values: list[float], count: int, rows: int) -> None:
    columns = gather(values, count)
    low, high = columns.bounds() or (0.0, 1.0)
    for mask in trace(columns, Scale(low / 2, high / 2, rows).row, rows, thick=True):
        assert 0 <= mask < 1 << rows


@given(st.lists(finite, min_size=2, max_size=300), st.integers(2, 60), st.integers(2, 80))
def test_a_rising_series_is_drawn_rising(values: list[float], count: int, rows: int) -> None:
    values = sorted(values)
    masks = trace(gather(values, count), Scale(values[0], values[-1], rows).row, rows)
    drawn = [rows_of(mask) for mask in masks if mask]
    assert drawn, "a series of finite values is visible"
    for left, right in pairwise(drawn):
        assert right[0] <= left[0]
        assert right[-1] <= left[-1]


@given(st.lists(finite, min_size=2, max_size=200), st.integers(4, 60), st.integers(4, 60))
def test_a_line_without_gaps_is_connected(values: list[float], count: int, rows: int) -> None:
    columns = gather(values, count)
    low, high = columns.bounds() or (0.0, 1.0)
    masks = trace(columns, Scale(low, high, rows).row, rows)
    drawn = [index for index, mask in enumerate(masks) if mask]
    assert drawn == list(range(drawn[0], drawn[-1] + 1))
    for left, right in pairwise(drawn):
        a, b = rows_of(masks[left]), rows_of(masks[right])
        assert a == list(range(a[0], a[-1] + 1))
        assert max(a[0], b[0]) - min(a[-1], b[-1]) <= 1


def test_a_million_points_keep_the_extremes_of_every_column() -> None:
    """Against a second formula: which column a point belongs to, point by point."""
    count, total = 157, 1_000_000
    xs = array("d", range(total))
    ys = array("d", (math.sin(x * 12.9898) * 43758.5453 % 1.0 for x in range(total)))
    for spike in range(0, total, 99_991):
        ys[spike] = 5.0 if spike % 2 else math.nan
    columns = Columns(count, 0.0, float(total))
    columns.extend(xs, ys, 0, total)
    expected: list[list[float]] = [[] for _ in range(count)]
    for x, y in zip(xs, ys, strict=True):
        if y == y:
            expected[min(count - 1, int(x / total * count))].append(y)
    assert list(columns.low) == [min(values) for values in expected]
    assert list(columns.high) == [max(values) for values in expected]
    assert sum(columns.broken) == len(range(0, total, 2 * 99_991))


class Counted(list[float]):
    """A list that counts how many of its values are read."""

    reads = 0

    def __getitem__(self, index):
        found = super().__getitem__(index)
        Counted.reads += len(found) if isinstance(index, slice) else 1
        return found


def test_appending_to_a_long_series_reads_the_new_point_only() -> None:
    count = 20_000
    xs, ys = Counted(range(count)), Counted([1.0] * count)
    columns = Columns(100, 0.0, 2.0 * count)
    columns.extend(xs, ys, 0, count)
    Counted.reads = 0
    xs.append(float(count))
    ys.append(2.0)
    columns.extend(xs, ys, columns.consumed, len(ys))
    assert Counted.reads <= 4


@given(samples, st.integers(1, 60), st.data())
def test_nan_never_moves_the_bounds(values: list[float], count: int, data: st.DataObject) -> None:
    spots = data.draw(st.lists(st.integers(0, len(values)), max_size=8))
    holed = list(values)
    for spot in sorted(spots, reverse=True):
        holed.insert(spot, data.draw(st.sampled_from([math.nan, math.inf, -math.inf])))
    assert gather(holed, count).bounds() == gather(values, count).bounds()
    assert gather(holed, count).likely_bounds(0.0) == gather(values, count).likely_bounds(0.0)


@given(samples, st.integers(1, 40), st.sampled_from([1, 2]))
def test_every_value_that_is_not_finite_is_marked_in_its_cell(values: list[float], width: int, dots: int) -> None:
    count = width * dots
    columns = gather(values, count)
    bad = {columns.column_of(float(x)) // dots for x, value in enumerate(values) if not math.isfinite(value)}
    assert broken_cells([columns], dots) == sorted(bad)


@given(st.lists(finite, min_size=2, max_size=120), st.integers(4, 40), st.integers(2, 12))
def test_all_symbol_sets_draw_in_the_same_places(values: list[float], width: int, height: int) -> None:
    """A cell with dots in a coarse set has dots in the finest one at most a cell away, and the other way round."""
    drawn: dict[str, set[tuple[int, int]]] = {}
    low, high = min(values), max(values)
    for name, symbols in SYMBOL_SETS.items():
        rows = height * symbols.dots_y
        masks = trace(gather(values, width * symbols.dots_x), Scale(low, high, rows).row, rows)
        text = [row.text for row in compose([masks], width, height, symbols)]
        drawn[name] = {(x, y) for y, line in enumerate(text) for x, char in enumerate(line) if char != " "}
    for one in drawn.values():
        for other in drawn.values():
            assert all(any((x + i, y + j) in other for i in (-1, 0, 1) for j in (-1, 0, 1)) for x, y in one)


cells = st.tuples(st.text(" ab", min_size=6, max_size=6), st.binary(min_size=6, max_size=6))


@given(cells, cells)
def test_repainting_the_changed_span_makes_the_new_row(old: tuple[str, bytes], new: tuple[str, bytes]) -> None:
    before, after = Row(*old), Row(*new)
    span = changed_span(before, after)
    if span is None:
        assert before == after
        return
    left, right = span
    text = before.text[:left] + after.text[left:right] + before.text[right:]
    owners = before.owners[:left] + after.owners[left:right] + before.owners[right:]
    assert Row(text, owners) == after
    differs = [i for i in range(6) if (before.text[i], before.owners[i]) != (after.text[i], after.owners[i])]
    assert span == (min(differs), max(differs) + 1)


@given(st.lists(st.tuples(st.floats(0, 1000), finite), min_size=2, max_size=20), st.integers(2, 60))
def test_a_line_between_points_far_apart_is_seen_inside(points: list[tuple[float, float]], count: int) -> None:
    xs = sorted({x for x, _ in points})
    ys = [y for _, y in points][: len(xs)]
    for left, right in pairwise(range(len(xs))):
        if xs[right] - xs[left] < 1e-3:
            continue
        third = (xs[right] - xs[left]) / 3
        columns = columns_of_points(xs, ys, count, xs[left] + third, xs[right] - third)
        low, high = columns.bounds() or (math.nan, math.nan)
        slack = 1e-6 * (1 + abs(ys[left]) + abs(ys[right]))
        assert min(ys[left], ys[right]) - slack <= low <= high <= max(ys[left], ys[right]) + slack
        assert all(trace(columns, Scale(low, high, 8).row, 8)), "the line runs from edge to edge"


def test_nan_is_a_gap_that_the_line_does_not_bridge() -> None:
    values = [1.0] * 10 + [math.nan] * 10 + [1.0] * 10
    masks = trace(gather(values, 30), Scale(0.0, 2.0, 8).row, 8)
    assert all(masks[:10])
    assert not any(masks[10:20])
    assert all(masks[20:])


def test_a_series_of_nan_only_draws_nothing() -> None:
    columns = gather([math.nan] * 50, 20)
    assert columns.bounds() is None
    assert not any(trace(columns, Scale(0.0, 1.0, 8).row, 8))


def test_a_smoothed_series_stays_within_its_values_and_keeps_its_gaps() -> None:
    values = [1.0, 3.0] * 20 + [math.nan] * 10 + [2.0] * 10
    calm = gather(values, 60).smoothed(8)
    assert calm.bounds() == (pytest.approx(1.0), pytest.approx(2.0))
    assert math.isnan(calm.first[45])
    assert calm.gap[50] == 1


def test_appending_changes_no_column_that_is_past() -> None:
    columns = Columns(40, 0.0, 64.0)
    for step in range(30):
        columns.append(float(step), math.sin(step))
    before = trace(columns, Scale(-1.0, 1.0, 16).row, 16)
    columns.append(30.0, 0.3)
    after = trace(columns, Scale(-1.0, 1.0, 16).row, 16)
    assert [a == b for a, b in zip(before, after, strict=True)].count(False) <= 2


@pytest.mark.parametrize("name", sorted(SYMBOL_SETS))
def test_every_symbol_set_fills_the_cells_asked_for(name: str) -> None:
    symbols = SYMBOL_SETS[name]
    columns = Columns(20 * symbols.dots_x, 0.0, 100.0)
    for step in range(100):
        columns.append(float(step), float(step))
    rows = 5 * symbols.dots_y
    drawn = compose([trace(columns, Scale(0.0, 99.0, rows).row, rows)], 20, 5, symbols)
    assert [len(row.text) for row in drawn] == [20] * 5
    assert drawn[0].text.rstrip()
    assert drawn[-1].text[0] != " "
    if name == "ascii":
        assert all(row.text.isascii() for row in drawn)


def test_where_traces_meet_the_later_one_owns_the_whole_cell() -> None:
    braille = SYMBOL_SETS["braille"]
    rows = compose([[0b1111] * 4, [0b0001, 0, 0, 0]], 2, 1, braille)
    assert rows == [Row("⠁⣿", bytes([1, 0]))]
    put(rows, 1, 0, "●", 2)
    assert rows == [Row("⠁●", bytes([1, 2]))]


def test_changed_span_is_what_differs_in_text_or_colour() -> None:
    old = Row("abcd", bytes([EMPTY] * 4))
    assert changed_span(old, Row("abcd", bytes([EMPTY] * 4))) is None
    assert changed_span(old, Row("aXcd", bytes([EMPTY] * 4))) == (1, 2)
    assert changed_span(old, Row("abcd", bytes([EMPTY, 0, EMPTY, 1]))) == (1, 4)


@given(st.floats(1e-6, 1e6), st.floats(1e-6, 1e6), st.booleans())
def test_bounds_hold_the_data_and_do_not_twitch(low: float, span: float, log: bool) -> None:
    bounds = Bounds()
    bottom, top = bounds.update(low, low + span, log=log)
    assert bottom <= low * 1.000001
    assert low + span <= top * 1.000001
    inner = bounds.update(low + span * 0.02, low + span * 0.98, log=log)
    if not log:
        assert inner == (bottom, top)


def test_bounds_shrink_when_most_of_the_range_is_empty() -> None:
    bounds = Bounds()
    bounds.update(0.0, 10.0)
    assert bounds.update(0.1, 0.9)[1] <= 1.0


@given(st.floats(-1e5, 1e5), st.floats(1e-4, 1e5), st.integers(2, 8))
def test_ticks_are_inside_and_few(low: float, span: float, parts: int) -> None:
    found = ticks(low, low + span, parts)
    assert len(found) <= parts + 1
    assert all(low - span * 1e-3 <= value <= low + span * 1.001 for value in found)


def test_log_ticks_are_round() -> None:
    assert ticks(0.02, 1.0, 6, log=True) == pytest.approx([0.02, 0.05, 0.1, 0.2, 0.5, 1.0])
    assert ticks(1e-6, 1.0, 4, log=True)


def test_labels_have_the_decimals_of_their_step() -> None:
    assert [label(value, 0.05) for value in (0.0, 0.05, 0.1)] == ["0.00", "0.05", "0.10"]
    assert label(0.25, 0.25) == "0.25"
    assert label(2.5, 2.5) == "2.5"
    assert label(1200.0, 200.0) == "1,200"
    assert [label(n * 5e-6, 5e-6) for n in (0, 1, 19, 20, 21)] == ["0", "5e-6", "9.5e-5", "1e-4", "1.05e-4"]
    assert label(2e10, 1e10) == "2e10"
    assert [label(value, 2e5) for value in (0.0, 2e5, 1e6)] == ["0", "200k", "1,000k"]
    assert [label(value, 2e4) for value in (8e4, 1e5, 9.8e5)] == ["80k", "100k", "980k"]
    assert [label(value, 500.0) for value in (991_500.0, 992_000.0)] == ["991,500", "992,000"]
    assert nice_step(0.0, 4) == 1.0


def test_the_domain_doubles_and_ends_at_the_total() -> None:
    assert doubling_domain(10, 4000) == 64
    assert doubling_domain(65, 4000) == 128
    assert doubling_domain(3000, 4000) == 4000
    assert doubling_domain(10, 40) == 40
    assert doubling_domain(100, 0) == 128


@given(st.integers(1, 100_000), st.integers(0, 8))
def test_every_zoom_shows_the_last_step(step: int, zoom: int) -> None:
    begin, end = window(step, 100_000, zoom)
    whole = window(step, 100_000, 0)[1]
    assert begin <= step <= end
    assert end - begin <= max(whole / 2**zoom, 1e-9) * 1.000001
