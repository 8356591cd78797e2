"""How numbers are written: the same width and unit everywhere, NaN as "NaN", what is not known as a dash."""

from __future__ import annotations

import math
import time

UNKNOWN = "–"
GIB = 1024**3
DAYS = ("Mo", "Tu", "We", "Th", "Fr", "Sa", "Su")


def duration(seconds: float) -> str:
    """Hours, minutes, seconds: 0:12:41; from a day on 3 d 04:12."""
    if not math.isfinite(seconds):
        return UNKNOWN
    whole = max(0, int(seconds))
    days, rest = divmod(whole, 86400)
    hours, rest = divmod(rest, 3600)
    minutes, left = divmod(rest, 60)
    if days:
        return f"{days} d {hours:02d}:{minutes:02d}"
    return f"{hours}:{minutes:02d}:{left:02d}"


def remaining(seconds: float) -> str:
    """A time to go, as coarse as it is uncertain: five-second steps below ten minutes, minutes from an hour on."""
    if not math.isfinite(seconds):
        return UNKNOWN
    grain = 1 if seconds < 60 else 5 if seconds < 600 else 15 if seconds < 3600 else 60
    return duration(math.ceil(seconds / grain) * grain)


def clock(seconds: float) -> str:
    """Local time of a Unix time in eight cells: time of day, with the day of the week where that was not today."""
    if not seconds:
        return "--:--:--"
    then = time.localtime(seconds)
    if then[:3] == time.localtime()[:3]:
        return time.strftime("%H:%M:%S", then)
    return f"{DAYS[then.tm_wday]} {then.tm_hour:02d}:{then.tm_min:02d}"


def age(seconds: float) -> str:
    """How long ago, coarse enough not to change at every look."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{int(seconds // length)} {unit}"
    return "now"


def loss(value: float) -> str:
    """A loss with four significant digits."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    if value and not 1e-3 <= abs(value) < 1e4:
        return f"{value:.2e}"
    return f"{value:.4f}" if abs(value) < 10 else f"{value:.2f}"


def rate(value: float) -> str:
    """A learning rate."""
    return "NaN" if math.isnan(value) else f"{value:.2e}"


def significant(value: float, digits: int = 3) -> str:
    """A number with `digits` significant digits and no exponent."""
    if not math.isfinite(value):
        return UNKNOWN
    if value == 0:
        return "0"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:,.{min(decimals, 6)}f}"


def count(value: int) -> str:
    """An integer with thousands separators."""
    return f"{value:,}"


def gib(value: float) -> str:
    """Bytes in GiB, one decimal."""
    return f"{value / GIB:.1f}"
