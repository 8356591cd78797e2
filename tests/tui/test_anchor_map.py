"""Loss over anchor and step: nothing is lost when buckets double, and a cell without draws is no zero."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acrf_tui.charts.heat import NO_DATA, Levels, characters, fitting, row_of_cells
from acrf_tui.charts.palette import HEAT_LEVELS
from acrf_tui.charts.raster import EMPTY
from acrf_tui.charts.symbols import SYMBOL_SETS
from acrf_tui.panels.anchor_map import heat_values
from acrf_tui.series import BUCKETS, AnchorMap

losses = st.one_of(st.floats(1e-4, 10), st.just(math.nan))
steps = st.lists(st.tuples(st.integers(1, 100_000), st.integers(0, 9), losses), min_size=1, max_size=200)


def filled(found: list[tuple[int, int, float]]) -> AnchorMap:
    drawn = AnchorMap()
    for step, anchor, loss in found:
        drawn.add(step, [anchor], [loss])
    return drawn


@given(steps)
def test_doubling_keeps_every_draw_and_every_loss(found: list[tuple[int, int, float]]) -> None:
    drawn = filled(found)
    assert drawn.draws() == len(found)
    assert len(drawn.buckets) <= BUCKETS
    for anchor in range(10):
        finite = [loss for _, one, loss in found if one == anchor and math.isfinite(loss)]
        mean = drawn.mean(anchor, 0, 200_000)
        assert mean == pytest.approx(sum(finite) / len(finite)) if finite else math.isnan(mean)


@given(steps)
def test_every_bucket_holds_the_draws_of_its_own_steps(found: list[tuple[int, int, float]]) -> None:
    drawn = filled(found)
    for index, bucket in enumerate(drawn.buckets):
        first = index * drawn.width
        assert sum(bucket.draws) == sum(first <= step < first + drawn.width for step, *_ in found)


@given(steps, st.sampled_from([1, 3, 64, 1000]))
def test_a_map_from_the_store_goes_on_where_it_ended(found: list[tuple[int, int, float]], width: int) -> None:
    sums: dict[tuple[int, int], list[float]] = {}
    for step, anchor, loss in found:
        sums.setdefault((step // width, anchor), []).append(1.0 if math.isnan(loss) else loss)
    rows = [
        (bucket * width, bucket * width + width - 1, anchor, len(seen), sum(seen) / len(seen))
        for (bucket, anchor), seen in sums.items()
    ]
    drawn = AnchorMap()
    drawn.load(rows)
    assert drawn.draws() == len(found)
    assert len(drawn.buckets) <= BUCKETS
    drawn.add(100_001, [3], [0.5])
    assert drawn.draws() == len(found) + 1


def test_a_cell_without_draws_says_so_and_a_step_to_come_is_empty() -> None:
    drawn = filled([(step, step % 2, 0.25) for step in range(1, 33) if not 8 <= step < 16])
    values = heat_values(drawn, 0, 64.0, 32, 8)
    assert values[0] == 0.25
    assert values[1] is not None
    assert math.isnan(values[1])
    assert values[3] == 0.25
    assert values[5:] == [None] * 3
    chars = characters(SYMBOL_SETS["ascii"], True)
    row = row_of_cells(values, Levels(0.1, 1.0), chars)
    assert row.text[1] == SYMBOL_SETS["ascii"].nothing != row.text[0]
    assert row.owners[1] == NO_DATA
    assert list(row.owners[5:]) == [EMPTY] * 3


@given(st.floats(1e-6, 1e3), st.floats(1.01, 1e4), st.floats(0, 1), st.floats(0, 1))
def test_a_larger_loss_is_never_a_lower_step_of_colour(low: float, ratio: float, a: float, b: float) -> None:
    levels = Levels(low, low * ratio)
    first, second = sorted((low + a * low * (ratio - 1), low + b * low * (ratio - 1)))
    assert 0 <= levels.of(first) <= levels.of(second) < HEAT_LEVELS
    assert levels.of(low) == 0
    assert levels.of(low * ratio) == HEAT_LEVELS - 1


@given(st.floats(1e-6, 1e3), st.floats(1, 1e4))
def test_the_scale_of_colours_holds_all_values_and_does_not_twitch(low: float, ratio: float) -> None:
    levels = fitting(low, low * ratio, None)
    assert levels.low <= low * (1 + 1e-9)
    assert low * ratio <= levels.high * (1 + 1e-9)
    if ratio > 3:
        assert fitting(low * 1.02, low * ratio * 0.98, levels) is levels


def test_without_colours_every_step_has_its_own_character() -> None:
    for symbols in SYMBOL_SETS.values():
        chars = characters(symbols, False)
        assert len(set(chars)) == HEAT_LEVELS + 1
