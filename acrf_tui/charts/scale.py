"""Axes: linear or logarithmic rows, bounds that do not twitch, and ticks at round numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass

LOG_FLOOR = 1e-12
_NICE = (1.0, 2.0, 2.5, 5.0, 10.0)
_SHRINK_BELOW = 0.55
"""Bounds shrink only when the data fills less than this share of them."""


@dataclass(frozen=True, slots=True)
class Scale:
    """Maps values to dot rows: `high` is row 0, `low` is the last row. Values outside land on the edge."""

    low: float
    high: float
    rows: int
    log: bool = False

    def row(self, value: float) -> int:
        """Dot row of a finite value."""
        low, high = self.low, self.high
        if self.log:
            value, low, high = (math.log10(max(number, LOG_FLOOR)) for number in (value, low, high))
        if high <= low:
            return self.rows // 2
        share = (high - value) / (high - low)
        return min(self.rows - 1, max(0, round(share * (self.rows - 1))))


class Bounds:
    """Y bounds with hysteresis: they widen at once, and shrink only when much of the range stands empty."""

    def __init__(self) -> None:
        self.low = 0.0
        self.high = 1.0
        self._log: bool | None = None

    def update(self, low: float, high: float, *, log: bool = False) -> tuple[float, float]:
        """Bounds for data in low..high, rounded to nice numbers."""
        if log:
            low, high = max(low, LOG_FLOOR), max(high, LOG_FLOOR)
        inside = self._log == log and self.low <= low and high <= self.high
        if inside and self._share(low, high, log) >= _SHRINK_BELOW:
            return self.low, self.high
        self._log = log
        self.low, self.high = _log_bounds(low, high) if log else _linear_bounds(low, high)
        return self.low, self.high

    def _share(self, low: float, high: float, log: bool) -> float:
        if log:
            whole = math.log10(self.high) - math.log10(max(self.low, LOG_FLOOR))
            return (math.log10(high) - math.log10(low)) / whole if whole > 0 else 1.0
        nice_low, nice_high = _linear_bounds(low, high)
        whole = self.high - self.low
        return (nice_high - nice_low) / whole if whole > 0 else 1.0


def nice_step(span: float, parts: int) -> float:
    """A round step that cuts `span` into about `parts`."""
    if span <= 0 or not math.isfinite(span):
        return 1.0
    raw = span / max(1, parts)
    power = 10.0 ** math.floor(math.log10(raw))
    for factor in _NICE:
        if raw <= factor * power * 1.0000001:
            return factor * power
    return 10.0 * power


def _linear_bounds(low: float, high: float) -> tuple[float, float]:
    if high <= low:
        pad = abs(high) * 0.1 or 1.0
        low, high = low - pad, high + pad
    step = nice_step(high - low, 8)
    bottom = math.floor(low / step + 1e-9) * step
    top = math.ceil(high / step - 1e-9) * step
    if bottom < 0 <= low:
        bottom = 0.0
    return bottom, top


def _log_bounds(low: float, high: float) -> tuple[float, float]:
    bottom, top = _log_down(low), _log_up(high)
    return (bottom, top) if top > bottom else (bottom / 2, top * 2)


def _log_down(value: float) -> float:
    power = 10.0 ** math.floor(math.log10(value))
    return max(factor * power for factor in (1.0, 2.0, 5.0) if factor * power <= value * 1.0000001)


def _log_up(value: float) -> float:
    power = 10.0 ** math.floor(math.log10(value))
    return min(factor * power for factor in (1.0, 2.0, 5.0, 10.0) if factor * power >= value * 0.9999999)


def ticks(low: float, high: float, parts: int, *, log: bool = False) -> list[float]:
    """Round numbers within low..high, about `parts` of them."""
    if log:
        return _log_ticks(low, high, parts)
    step = nice_step(high - low, parts)
    start = math.ceil(low / step - 1e-9)
    found = []
    for index in range(200):
        value = (start + index) * step
        if value > high + step * 1e-6:
            break
        found.append(0.0 if abs(value) < step * 1e-6 else value)
    return found


def _log_ticks(low: float, high: float, parts: int) -> list[float]:
    low = max(low, LOG_FLOOR)
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(max(high, low))) + 1)
    for factors in ((1.0, 2.0, 5.0), (1.0, 3.0), (1.0,)):
        found = [factor * 10.0**decade for decade in decades for factor in factors]
        found = [value for value in found if low * 0.999999 <= value <= high * 1.000001]
        if len(found) <= parts + 1:
            return found or [low, high]
    stride = max(1, -(-len(found) // max(1, parts)))
    return found[::stride]


def label(value: float, step: float) -> str:
    """A tick's label with as many decimals as its step needs, at most 6 characters wide for usual values."""
    magnitude = max(abs(value), abs(step))
    if abs(step) >= 1e4 and magnitude < 1e9:
        return f"{value / 1e3:,.0f}k" if value else "0"
    if 1e5 <= magnitude < 1e9 and abs(step) >= 1:  # a part of a long run: neighbours must stay different
        return f"{value:,.0f}"
    if magnitude and (magnitude >= 1e5 or abs(step) < 1e-4):
        return "0" if value == 0 else _scientific(value, step)
    decimals = 0 if step >= 1 and step == int(step) else max(0, -math.floor(math.log10(abs(step) or 1.0)))
    if round(step, decimals) != round(step, decimals + 1):
        decimals += 1
    return f"{value:,.{decimals}f}"


def _scientific(value: float, step: float) -> str:
    """With as many digits as tell neighbours apart, at most two after the point."""
    digits = min(2, max(0, _exponent(value) - _exponent(step)))
    mantissa, _, power = f"{value:.{digits}e}".partition("e")
    return f"{mantissa.rstrip('0').rstrip('.') if digits else mantissa}e{power[0].strip('+')}{power[1:].lstrip('0')}"


def _exponent(value: float) -> int:
    return int(f"{abs(value):.6e}".partition("e")[2])


def log_label(value: float) -> str:
    """A tick's label on a logarithmic axis."""
    if value >= 1e5 or value < 1e-3:
        return f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e+")
    return f"{value:g}"


def doubling_domain(step: float, total: float, smallest: float = 64.0) -> float:
    """Right end of the x axis: doubles as the run grows, so that appending moves nothing, and ends at the total."""
    end = smallest
    while end < step:
        end *= 2
    return min(end, total) if total >= step and total > 0 else end


def window(step: float, total: float, zoom: int) -> tuple[float, float]:
    """The x range at a zoom level: 0 is all, each further level halves it.

    It moves on by half its length at a time and always holds the last step, so that most appends move nothing.
    """
    end = doubling_domain(step, total)
    if zoom <= 0:
        return 0.0, end
    half = end / 2 ** (zoom + 1)
    return max(0.0, math.floor(step / half) - 1) * half, (max(1.0, math.floor(step / half)) + 1) * half
