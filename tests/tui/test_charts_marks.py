"""Bars, meters, sparklines, histograms and styled lines."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acrf_tui.charts.lines import first_difference, fit, joined, line, spread, width_of, wrap
from acrf_tui.charts.marks import bar, bin_counts, histogram, meter, sparkline
from acrf_tui.charts.symbols import SYMBOL_SETS

SETS = st.sampled_from(sorted(SYMBOL_SETS))


@given(st.floats(allow_nan=True, allow_infinity=True), st.integers(0, 60), SETS)
def test_a_bar_is_as_wide_as_asked(share: float, width: int, name: str) -> None:
    assert len(bar(share, width, SYMBOL_SETS[name])) == width


@given(st.floats(0, 1), st.floats(0, 1), st.integers(1, 60))
def test_a_larger_share_is_never_a_shorter_bar(a: float, b: float, width: int) -> None:
    low, high = sorted((a, b))
    assert len(bar(low, width).rstrip()) <= len(bar(high, width).rstrip())


@given(st.floats(0, 1.2), st.integers(1, 60), st.one_of(st.none(), st.floats(0, 1.2)))
def test_a_meter_is_as_wide_as_asked_and_shows_its_mark(share: float, width: int, mark: float | None) -> None:
    filled, track, whole = meter(share, width, mark)
    assert len(whole) == width == len(filled) + len(track)
    assert ("┃" in whole) is (mark is not None)


def test_something_is_never_shown_as_nothing() -> None:
    assert bar(0.0001, 20).strip()
    assert not bar(0.0, 20).strip()


@given(st.lists(st.one_of(st.floats(0, 100), st.just(math.nan)), max_size=90), st.integers(1, 40), SETS)
def test_a_sparkline_is_as_wide_as_asked(values: list[float], width: int, name: str) -> None:
    assert len(sparkline(values, width, 0.0, 100.0, SYMBOL_SETS[name])) == width


def test_a_sparkline_shows_a_missing_value_as_a_blank() -> None:
    assert sparkline([1.0, math.nan, 1.0], 3, 0.0, 1.0, SYMBOL_SETS["block"]) == "█ █"
    assert not sparkline([math.nan] * 4, 2, 0.0, 1.0).strip()


def test_a_histogram_fills_its_height_with_the_largest_count() -> None:
    rows = histogram([0, 1, 4], 2)
    assert rows == ["  █", " ▄█"]
    assert histogram([], 3) == ["", "", ""]


def test_bins_count_what_is_inside_and_finite() -> None:
    assert bin_counts([0.0, 0.1, 0.99, 1.0, 1.5, math.nan], 2, 0.0, 1.0) == [2, 2]


def test_a_line_is_cut_on_the_left_side_only() -> None:
    spans = spread(line(("a long left side", "text")), line(("right", "bold text")), 12)
    assert width_of(spans) == 12
    assert spans[-1] == ("right", "bold text")
    assert "…" in "".join(text for text, _ in spans)


def test_cells_of_wide_characters_are_counted() -> None:
    assert fit("訓練画像", 5) == "訓練…"
    assert width_of(line("訓練")) == 4
    assert wrap("one two three", 7) == ["one two", "three"]


@pytest.mark.parametrize(
    ("old", "new", "span"),
    [
        (line("abc"), line("abc"), None),
        (line("abc"), line("abd"), (2, 3)),
        (line("abc"), line("ab"), (2, 3)),
        (line(("ab", "text"), ("c", "muted")), line(("ab", "text"), ("c", "bad")), (2, 3)),
        ((), line("x"), (0, 1)),
    ],
)
def test_only_cells_that_differ_are_repainted(old: tuple, new: tuple, span: tuple[int, int] | None) -> None:
    assert first_difference(old, new) == span


def test_neighbours_of_one_style_become_one_piece() -> None:
    assert joined(line(("a", "text"), (" ", "muted"), ("b", "text"), ("", "bad"))) == [("a b", "text")]
    assert joined(line(("a", "reverse good"), (" ", "text"))) == [("a", "reverse good"), (" ", "text")]
