"""What stands around a plot: labels of both axes, and the markers over the step axis."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from acrf_tui.charts import scale
from acrf_tui.charts.lines import Line, line
from acrf_tui.charts.symbols import SymbolSet

if TYPE_CHECKING:
    from acrf_tui.series import Marker

AXIS_WIDTH = 8


def nearest(xs: Sequence[float], x: float) -> int | None:
    """Index of the sample nearest to x, None without any; xs rises."""
    if not len(xs):
        return None
    index = min(len(xs) - 1, bisect_left(xs, x))
    return index - 1 if index and x - xs[index - 1] <= xs[index] - x else index


def cell_of(x: float, begin: float, end: float, width: int) -> int:
    """The cell of x on an axis of `width` cells; outside of them where x is outside of begin..end."""
    if end <= begin:
        return 0
    place = math.floor((x - begin) / (end - begin) * width)
    return width - 1 if x == end else place


def x_of(cell: int, begin: float, end: float, width: int) -> float:
    """The x in the middle of a cell."""
    return begin + (cell + 0.5) / max(1, width) * (end - begin)


def marker_cells(
    markers: Iterable[Marker], begin: float, end: float, width: int, symbols: SymbolSet
) -> dict[int, tuple[str, str]]:
    """Cell -> character and role of the markers inside begin..end. Those of several kinds in one cell become one."""
    kinds: dict[int, str] = {}
    for marker in markers:
        if begin <= marker.step <= end:
            cell = cell_of(marker.step, begin, end, width)
            known = kinds.get(cell, marker.kind)
            kinds[cell] = known if known == marker.kind else ""
    return {
        cell: (symbols.marker(kind), f"marker-{kind}") if kind else (symbols.several, "axis")
        for cell, kind in kinds.items()
    }


def marker_line(cells: dict[int, tuple[str, str]], width: int) -> Line:
    """The markers in a row of their own."""
    spans: list[tuple[str, str]] = []
    used = 0
    for cell in sorted(cells):
        spans += [(" " * (cell - used), "axis"), cells[cell]]
        used = cell + 1
    return line(*spans, (" " * (width - used), "axis"))


def y_lines(mapping: scale.Scale, height: int, symbols: SymbolSet) -> list[Line]:
    """Round numbers at their rows, and the axis at the right edge."""
    marks = scale.ticks(mapping.low, mapping.high, max(3, height // 4), log=mapping.log)
    labels: dict[int, str] = {}
    step = marks[1] - marks[0] if len(marks) > 1 else mapping.high - mapping.low
    for value in marks:
        text = scale.log_label(value) if mapping.log else scale.label(value, step)
        labels.setdefault(mapping.row(value) // symbols.dots_y, text)
    tick, plain = symbols.axis
    return [
        line(
            (f"{labels.get(y, ''):>{AXIS_WIDTH - 2}} "[: AXIS_WIDTH - 1], "axis"),
            (tick if y in labels else plain, "axis"),
        )
        for y in range(height)
    ]


def x_labels(begin: float, end: float, width: int, unit: str) -> str:
    """Round numbers under an x axis, and its unit at the right edge."""
    cells = [" "] * width
    room = width - len(unit) - 1
    marks = scale.ticks(begin, end, max(4, width // 11))
    step = marks[1] - marks[0] if len(marks) > 1 else end
    free = 0
    for value in marks:
        text = scale.label(value, step)
        place = round((value - begin) / (end - begin) * (width - 1)) if end > begin else 0
        start = max(0, place - (len(text) // 2 if value else 0))
        if start >= free and start + len(text) <= room:
            cells[start : start + len(text)] = text
            free = start + len(text) + 2
    cells[room + 1 :] = unit
    return "".join(cells)


def x_lines(
    begin: float, end: float, width: int, markers: Sequence[Marker] | None, symbols: SymbolSet
) -> tuple[Line, ...]:
    """The rows under a plot: the markers (None: no row for them), and the labels."""
    labels = line((x_labels(begin, end, width, "step"), "axis"))
    if markers is None:
        return (labels,)
    return marker_line(marker_cells(markers, begin, end, width, symbols), width), labels
