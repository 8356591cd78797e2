"""Small drawings made of characters: bars, meters, sparklines, histograms. Plain text in, plain text out."""

from __future__ import annotations

import math
from collections.abc import Sequence

from acrf_tui.charts.symbols import BRAILLE, SymbolSet


def bar(share: float, width: int, symbols: SymbolSet = BRAILLE) -> str:
    """A horizontal bar of `width` cells filled to `share` (0..1) in eighths of a cell; the rest are spaces."""
    if width <= 0:
        return ""
    share = 0.0 if not math.isfinite(share) else min(1.0, max(0.0, share))
    parts = len(symbols.bar) - 1
    filled = round(share * width * parts)
    if share > 0 and filled == 0:
        filled = 1
    whole, rest = divmod(filled, parts)
    text = symbols.bar[-1] * whole + (symbols.bar[rest] if rest else "")
    return text.ljust(width)[:width]


def meter(share: float, width: int, mark: float | None = None, symbols: SymbolSet = BRAILLE) -> tuple[str, str, str]:
    """A meter in three pieces: filled text, track text, and the whole with `mark` laid over it.

    The first two are what is coloured; `mark` (0..1) is a level such as a peak.
    """
    filled = bar(share, width, symbols).rstrip()
    track = symbols.track * (width - len(filled))
    whole = filled + track
    if mark is not None and width > 0 and math.isfinite(mark):
        place = min(width - 1, max(0, round(mark * width) - (1 if mark >= 1 else 0)))
        whole = whole[:place] + symbols.mark + whole[place + 1 :]
    return filled, track, whole


def sparkline(values: Sequence[float], width: int, low: float, high: float, symbols: SymbolSet = BRAILLE) -> str:
    """The last values in one row: dots in braille, two a cell, else bars; one that is not finite is blank."""
    if width <= 0:
        return ""
    if symbols.dots_x == 2 and symbols.dots_y == 4:
        recent = list(values)[-2 * width :]
        masks = [_dot(value, low, high, symbols.dots_y) for value in recent]
        if len(masks) % 2:
            masks.insert(0, 0)
        pairs = zip(masks[::2], masks[1::2], strict=True)
        return "".join(symbols.table[left][right] for left, right in pairs).rjust(width)
    recent = list(values)[-width:]
    text = "".join(_column(value, low, high, symbols) for value in recent)
    return text.rjust(width)


def _dot(value: float, low: float, high: float, rows: int) -> int:
    if not math.isfinite(value):
        return 0
    share = (value - low) / (high - low) if high > low else 0.0
    return 1 << rows - 1 - round(min(1.0, max(0.0, share)) * (rows - 1))


def _column(value: float, low: float, high: float, symbols: SymbolSet) -> str:
    if not math.isfinite(value):
        return " "
    share = (value - low) / (high - low) if high > low else 0.0
    index = 1 + round(min(1.0, max(0.0, share)) * (len(symbols.column) - 2))
    return symbols.column[index]


def histogram(counts: Sequence[float], height: int, symbols: SymbolSet = BRAILLE) -> list[str]:
    """Vertical bars, one cell each, `height` rows from the top; the largest count fills the height."""
    top = max((count for count in counts if math.isfinite(count)), default=0.0)
    parts = len(symbols.column) - 1
    rows = []
    for row in range(height - 1, -1, -1):
        line = ""
        for count in counts:
            eighths = round(count / top * height * parts) if top > 0 and math.isfinite(count) else 0
            if count > 0 and top > 0 and eighths == 0:
                eighths = 1
            line += symbols.column[min(parts, max(0, eighths - row * parts))]
        rows.append(line)
    return rows


def bin_counts(values: Sequence[float], bins: int, low: float, high: float) -> list[int]:
    """How many values fall in each of `bins` equal parts of low..high; values outside or not finite are left out."""
    counts = [0] * max(1, bins)
    for value in values:
        if math.isfinite(value) and low <= value <= high and high > low:
            counts[min(len(counts) - 1, int((value - low) / (high - low) * len(counts)))] += 1
    return counts
