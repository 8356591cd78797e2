"""Heat maps: numbers in a grid to cells of a few colours, or of a few densities where there are no colours."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from textual.widget import Widget

from acrf_tui.charts import raster
from acrf_tui.charts.palette import HEAT_LEVELS, colour
from acrf_tui.charts.symbols import SymbolSet

COLOURED = (*(f"heat-{level}" for level in range(HEAT_LEVELS)), "muted")
PLAIN = (*["text"] * HEAT_LEVELS, "muted")
NO_DATA = HEAT_LEVELS
"""Owner of a cell without data."""


@dataclass(frozen=True, slots=True)
class Levels:
    """Values low..high in HEAT_LEVELS steps: of equal ratio where low is above 0, else of equal width."""

    low: float
    high: float

    @property
    def log(self) -> bool:
        """The steps have an equal ratio."""
        return self.low > 0

    def of(self, value: float) -> int:
        """The step of a finite value; values outside belong to the first or last one."""
        if self.high <= self.low:
            return 0
        if self.log:
            share = math.log(max(value, self.low) / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return min(HEAT_LEVELS - 1, max(0, int(share * HEAT_LEVELS)))


def fitting(low: float, high: float, before: Levels | None) -> Levels:
    """Levels for values low..high, of two digits; those of before stay while the values fill most of them."""
    found = Levels(_two_digits(low, math.floor), _two_digits(high, math.ceil))
    if before is None or before.log is not found.log or low < before.low or high > before.high:
        return found
    return found if _extent(low, high, found.log) < 0.75 * _extent(before.low, before.high, found.log) else before


def _two_digits(value: float, towards: Callable[[float], int]) -> float:
    if value == 0 or not math.isfinite(value):
        return 0.0
    unit = 10.0 ** (math.floor(math.log10(abs(value))) - 1)
    return float(f"{towards(value / unit) * unit:.2g}")


def _extent(low: float, high: float, log: bool) -> float:
    return math.log(high / low) if log else high - low


def characters(symbols: SymbolSet, coloured: bool) -> tuple[str, ...]:
    """What each step is drawn with, and last a cell without data: dense characters where colour cannot tell."""
    shades = symbols.shades if symbols.name == "ascii" or not coloured else symbols.cell * HEAT_LEVELS
    return (*shades, symbols.nothing)


def is_coloured(widget: Widget) -> bool:
    """Colours can be blended here: true or 256 colours, and a theme that has its own."""
    app = widget.app
    few = app.no_color or getattr(app, "colorless", False) or app.console.color_system in (None, "standard")
    return not few and colour(app.theme_variables, "heat-high").ansi is None


def row_of_cells(values: Sequence[float | None], levels: Levels, chars: Sequence[str]) -> raster.Row:
    """One row: NaN is a cell without data, None an empty one (a step that is still to come)."""
    owners = [
        raster.EMPTY if value is None else levels.of(value) if math.isfinite(value) else NO_DATA for value in values
    ]
    return raster.Row("".join(" " if owner == raster.EMPTY else chars[owner] for owner in owners), bytes(owners))
