"""From samples to dots: min/max decimation into dot columns, lines through them, and characters for the cells.

A dot column of a trace is one integer, bit 0 at the top, so a vertical run of dots is one shift. Nothing here knows a
terminal.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from acrf_tui.charts.symbols import SymbolSet

EMPTY = 255
"""Owner of a cell in which nothing is drawn."""


def _blank(count: int) -> array[float]:
    return array("d", [math.nan]) * count


@dataclass(slots=True)
class Columns:
    """Samples of one series, gathered per dot column: first, lowest, highest and last finite value (NaN: none).

    Those four draw the same picture as all samples would. `gap[c]` says that a non-finite sample lies between the
    previous drawn point and the first of column c: the line must not bridge it. `broken[c]` says that a non-finite
    sample lies in column c.
    """

    count: int
    x0: float
    x1: float
    first: array[float] = field(init=False)
    low: array[float] = field(init=False)
    high: array[float] = field(init=False)
    last: array[float] = field(init=False)
    total: array[float] = field(init=False)
    finite: array[float] = field(init=False)
    gap: bytearray = field(init=False)
    broken: bytearray = field(init=False)
    consumed: int = field(default=0, init=False)
    _gap_pending: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self.count = max(1, self.count)
        self.first, self.low, self.high, self.last = (_blank(self.count) for _ in range(4))
        self.total = array("d", bytes(8 * self.count))
        self.finite = array("d", bytes(8 * self.count))
        self.gap = bytearray(self.count)
        self.broken = bytearray(self.count)

    def column_of(self, x: float) -> int:
        """The dot column of x, clamped into the domain."""
        span = self.x1 - self.x0
        position = (x - self.x0) / span if span > 0 else 0.0
        return min(self.count - 1, max(0, int(position * self.count)))

    def append(self, x: float, y: float) -> None:
        """Add one sample; x never decreases from call to call."""
        self.consumed += 1
        if not math.isfinite(y):
            self._gap_pending = True
            self.broken[self.column_of(x)] = 1
            return
        column = self.column_of(x)
        if math.isnan(self.first[column]):
            self.first[column] = self.low[column] = self.high[column] = self.last[column] = y
            self.gap[column] = self._gap_pending
        else:
            self.low[column] = min(self.low[column], y)
            self.high[column] = max(self.high[column], y)
            self.last[column] = y
        self.total[column] += y
        self.finite[column] += 1
        self._gap_pending = False

    def extend(self, xs: Sequence[float], ys: Sequence[float], start: int, stop: int) -> None:
        """Add samples start..stop (xs sorted). Whole columns are reduced at C speed where all is finite."""
        if stop - start < 4 * self.count:
            for index in range(start, stop):
                self.append(xs[index], ys[index])
            return
        span = self.x1 - self.x0
        position = start
        while position < stop:
            column = self.column_of(xs[position])
            edge = self.x0 + (column + 1) * span / self.count
            end = stop if column == self.count - 1 else bisect_left(xs, edge, position, stop)
            end = max(end, position + 1)
            chunk = ys[position:end]
            chunk_sum = sum(chunk)
            if math.isfinite(chunk_sum):
                self.append(xs[position], chunk[0])
                self.low[column] = min(self.low[column], min(chunk))
                self.high[column] = max(self.high[column], max(chunk))
                self.last[column] = chunk[-1]
                self.total[column] += chunk_sum - chunk[0]
                self.finite[column] += len(chunk) - 1
                self.consumed += len(chunk) - 1
            else:
                for index in range(position, end):
                    self.append(xs[index], ys[index])
            position = end

    def smoothed(self, window: int) -> Columns:
        """A trailing mean over `window` columns: calm, and what is drawn does not change when more arrives."""
        calm = Columns(self.count, self.x0, self.x1)
        calm.gap[:] = self.gap
        calm.broken[:] = self.broken
        total = finite = 0.0
        for column in range(self.count):
            # A column counts once however many samples it has: an older part of the run may come in fewer.
            if self.finite[column]:
                total += self.total[column] / self.finite[column]
                finite += 1
            if column >= window and self.finite[column - window]:
                total -= self.total[column - window] / self.finite[column - window]
                finite -= 1
            if self.finite[column]:
                value = total / finite
                calm.first[column] = calm.low[column] = calm.high[column] = calm.last[column] = value
        return calm

    def bounds(self) -> tuple[float, float] | None:
        """Lowest and highest finite value, None without any."""
        lows = [value for value in self.low if value == value]
        if not lows:
            return None
        return min(lows), max(value for value in self.high if value == value)

    def likely_bounds(self, share: float = 0.02) -> tuple[float, float] | None:
        """Bounds that leave out `share` of the columns at each end, so that one spike does not flatten the rest."""
        lows = sorted(value for value in self.low if value == value)
        if not lows:
            return None
        highs = sorted(value for value in self.high if value == value)
        cut = int(len(lows) * share)
        return lows[cut], highs[len(highs) - 1 - cut]


def columns_of_points(xs: Sequence[float], ys: Sequence[float], count: int, x0: float, x1: float) -> Columns:
    """A few points, with the line to their neighbours outside x0..x1 cut off at the edges."""
    columns = Columns(count, x0, x1)
    begin, end = bisect_left(xs, x0), bisect_right(xs, x1)

    def cross(edge: float, left: int) -> None:
        if left >= 0 and left + 1 < len(xs) and xs[left] < edge < xs[left + 1]:
            share = (edge - xs[left]) / (xs[left + 1] - xs[left])
            value = ys[left] + share * (ys[left + 1] - ys[left])
            if math.isfinite(value):  # else the line ends at its last point, which lies outside
                columns.append(edge, value)

    cross(x0, begin - 1)
    for index in range(begin, end):
        columns.append(xs[index], ys[index])
    cross(x1, end - 1)
    return columns


def broken_cells(series: Sequence[Columns], dots_x: int) -> list[int]:
    """The cells in which a sample of any series was not finite."""
    return sorted({column // dots_x for columns in series for column, bad in enumerate(columns.broken) if bad})


def run_of_dots(a: int, b: int) -> int:
    """A column of dots from row a to row b, either order."""
    if a > b:
        a, b = b, a
    return ((1 << (b - a + 1)) - 1) << a


def trace(columns: Columns, row_of: Callable[[float], int], rows: int, *, thick: bool = False) -> list[int]:
    """Dots of a line through the columns; `row_of` maps a value to a dot row (0 is the top), clamped here."""
    masks = [0] * columns.count
    full = (1 << rows) - 1
    previous = -1
    previous_row = 0

    def clamped(value: float) -> int:
        return min(rows - 1, max(0, row_of(value)))

    for column in range(columns.count):
        first = columns.first[column]
        if first != first:
            continue
        masks[column] |= run_of_dots(clamped(columns.high[column]), clamped(columns.low[column]))
        row = clamped(first)
        if previous >= 0 and not columns.gap[column]:
            _join(masks, previous, previous_row, column, row)
        previous, previous_row = column, clamped(columns.last[column])
    if thick:
        masks = [(mask | mask << 1) & full for mask in masks]
    return masks


def _join(masks: list[int], x0: int, y0: int, x1: int, y1: int) -> None:
    """A connected line: column x covers the rows the line crosses within half a column around it."""
    length = x1 - x0
    slope = (y1 - y0) / length
    for step in range(length + 1):
        begin = y0 + slope * max(0.0, step - 0.5)
        end = y0 + slope * min(float(length), step + 0.5)
        masks[x0 + step] |= run_of_dots(round(begin), round(end))


def level(count: int, row: int, *, dash: int = 0) -> list[int]:
    """A horizontal line at dot row `row`; with `dash` it is dotted every `dash` columns."""
    return [1 << row if not dash or index % dash == 0 else 0 for index in range(count)]


@dataclass(frozen=True, slots=True)
class Row:
    """One row of cells: its characters, and per cell the index of the trace that owns it (EMPTY: none)."""

    text: str
    owners: bytes


def compose(traces: Sequence[Sequence[int]], width: int, height: int, symbols: SymbolSet) -> list[Row]:
    """Characters of width x height cells. Where traces meet in a cell the later one takes it whole.

    A cell has one colour, so mixing the dots of two traces would tell a lie about one of them.
    """
    texts = [[" "] * width for _ in range(height)]
    owners = [bytearray([EMPTY]) * width for _ in range(height)]
    dots_y, table = symbols.dots_y, symbols.table
    nibble = (1 << dots_y) - 1
    wide = symbols.dots_x == 2
    for owner, masks in enumerate(traces):
        for x in range(width):
            if wide:
                left, right = masks[2 * x], masks[2 * x + 1]
            else:
                left, right = masks[x], 0
            both = left | right
            if not both:
                continue
            top = ((both & -both).bit_length() - 1) // dots_y
            bottom = min(height - 1, (both.bit_length() - 1) // dots_y)
            for y in range(top, bottom + 1):
                shift = y * dots_y
                a, b = left >> shift & nibble, right >> shift & nibble
                if a or b:
                    texts[y][x] = table[a][b]
                    owners[y][x] = owner
    return [Row("".join(text), bytes(owner)) for text, owner in zip(texts, owners, strict=True)]


def put(rows: list[Row], x: int, y: int, char: str, owner: int) -> None:
    """Replace one cell."""
    if 0 <= y < len(rows) and 0 <= x < len(rows[y].text):
        row = rows[y]
        owners = row.owners[:x] + bytes([owner]) + row.owners[x + 1 :]
        rows[y] = Row(row.text[:x] + char + row.text[x + 1 :], owners)


def changed_span(old: Row, new: Row) -> tuple[int, int] | None:
    """First and one-past-last cell that differ, None when the rows are equal."""
    if old == new:
        return None
    if len(old.text) != len(new.text):
        return 0, max(len(old.text), len(new.text))
    width = len(new.text)
    differs = [
        index for index in range(width) if old.text[index] != new.text[index] or old.owners[index] != new.owners[index]
    ]
    return differs[0], differs[-1] + 1
