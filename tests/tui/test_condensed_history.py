"""A long run's older part in blocks is drawn as all its steps would be."""

from __future__ import annotations

import math
import random
from array import array

from hypothesis import given, settings
from hypothesis import strategies as st

from acrf_engine.run import blocks
from acrf_engine.run.columns import STEP_COLUMNS, StepColumns
from acrf_tui.charts.raster import Columns

B = blocks.BLOCK_STEPS
EXTREMES = ("loss", "loss_balanced", "lr", "grad_norm")


@st.composite
def losses(draw: st.DrawFn) -> list[float]:
    """A course of losses over whole blocks: noise, spikes and stretches that are not finite."""
    rng = random.Random(draw(st.integers(0, 2**32)))
    count = B * draw(st.integers(1, 60))
    values = [rng.lognormvariate(-0.001 * index, 0.4) for index in range(count)]
    for _ in range(draw(st.integers(0, 6))):
        values[rng.randrange(count)] *= 1000
    for _ in range(draw(st.integers(0, 6))):
        begin = rng.randrange(count)
        values[begin : begin + draw(st.integers(1, 2 * B))] = [math.nan] * min(2 * B, count - begin)
    return values[:count]


def columns_of(values: list[float]) -> StepColumns:
    column = array("d", values)
    return StepColumns(*(array("d", range(len(values))) if name == "step" else column for name in STEP_COLUMNS))


def condensed(steps: StepColumns) -> StepColumns:
    found = StepColumns()
    for begin in range(0, len(steps.step), B):
        part = (getattr(steps, name)[begin : begin + B] for name in STEP_COLUMNS)
        found.extend(blocks.condensed(StepColumns(*part)))
    return found


def gathered(columns: StepColumns, name: str, count: int, end: float) -> Columns:
    found = Columns(count, 0.0, end)
    found.extend(columns.step, getattr(columns, name), 0, len(columns.step))
    return found


def picture(columns: Columns) -> list[tuple[float, ...]]:
    """What the raster draws of each dot column; nothing where there is nothing."""
    return [
        (*values, gap) if values[0] == values[0] else ()
        for *values, gap in zip(columns.first, columns.low, columns.high, columns.last, columns.gap, strict=True)
    ]


@settings(max_examples=60, deadline=None)
@given(losses(), st.sampled_from((1, 2, 4)))
def test_dot_columns_of_whole_blocks_are_drawn_exactly(values: list[float], blocks_a_column: int) -> None:
    steps = columns_of(values)
    count = 1
    while count * blocks_a_column * B < len(values):
        count *= 2  # the edges of columns are whole numbers, also as floats
    end = float(count * blocks_a_column * B)
    short = condensed(steps)
    for name in EXTREMES:
        assert picture(gathered(short, name, count, end)) == picture(gathered(steps, name, count, end))


@settings(max_examples=60, deadline=None)
@given(losses(), st.integers(1, 400))
def test_at_any_width_no_extreme_is_lost_or_moved_further_than_its_block(values: list[float], count: int) -> None:
    steps = columns_of(values)
    end = float(len(values))
    count = min(count, len(values) // B)
    short, full = (gathered(one, "loss", count, end) for one in (condensed(steps), steps))
    reach = 1 + -(-B * count // len(values))
    for c in range(count):
        near = range(max(0, c - reach), min(count, c + reach + 1))
        for one, other in ((full, short), (short, full)):
            if one.low[c] == one.low[c]:
                assert min(other.low[n] for n in near if other.low[n] == other.low[n]) <= one.low[c]
                assert max(other.high[n] for n in near if other.high[n] == other.high[n]) >= one.high[c]


@settings(max_examples=40, deadline=None)
@given(losses())
def test_components_which_are_drawn_as_means_keep_their_means(values: list[float]) -> None:
    steps = columns_of(values)
    short = condensed(steps)
    for begin in range(len(values) // B):
        part = [value for value in values[begin * B : (begin + 1) * B] if math.isfinite(value)]
        rows = [value for value in short.loss_char[begin * blocks.ROWS :][: blocks.ROWS] if math.isfinite(value)]
        assert bool(part) == bool(rows)
        assert all(math.isclose(value, sum(part) / len(part), rel_tol=1e-9) for value in rows)


def test_losses_beyond_all_measure_are_no_obstacle() -> None:
    short = condensed(columns_of([1.5e308] * B))
    assert set(short.loss_char) == set(short.loss) == {1.5e308}
