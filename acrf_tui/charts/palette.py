"""Roles of colour: what a panel means by a colour, looked up in the theme that is on.

A theme may define our own variables (`themes/*.yaml`); any other Textual theme works too, each role then falls back to
one of the variables that every theme has.
"""

from __future__ import annotations

from functools import lru_cache

from rich.style import Style
from textual.color import Color, ColorParseError
from textual.widget import Widget

ROLES: dict[str, str] = {
    "series-raw": "secondary",
    "series-balanced": "primary",
    "series-char": "accent",
    "series-cos": "success",
    "series-fft": "warning",
    "series-rate": "primary",
    "series-gradient": "accent",
    "series-validation": "warning",
    "series-limit": "error",
    "series-weight": "secondary",
    "run-1": "primary",
    "run-2": "warning",
    "run-3": "success",
    "run-4": "error",
    "run-5": "accent",
    "run-6": "secondary",
    "marker-anchor": "accent",
    "marker-sigma": "primary",
    "marker-set": "accent",
    "marker-checkpoint": "success",
    "marker-preview": "secondary",
    "marker-warning": "warning",
    "marker-attempt": "foreground",
    "crosshair": "foreground",
    "heat-low": "primary",
    "heat-high": "warning",
    "meter-fill": "primary",
    "meter-track": "surface-lighten-2",
    "meter-mark": "foreground",
    "spark": "secondary",
    "good": "success",
    "warn": "warning",
    "bad": "error",
    "accent": "accent",
    "key": "accent",
    "text": "foreground",
    "axis": "foreground",
    "muted": "foreground",
}
"""Role -> the Textual theme variable used where the theme does not define the role itself."""

FAINT: dict[str, float] = {
    "muted": 0.40,
    "axis": 0.55,
    "meter-track": 0.45,
    "series-raw": 0.35,
    "marker-set": 0.20,
    "marker-checkpoint": 0.30,
    "marker-preview": 0.10,
    "marker-attempt": 0.30,
    "crosshair": 0.55,
    "heat-low": 0.55,
}
"""Roles that, when they fall back, are blended this far into the background."""


HEAT_LEVELS = 8
"""Steps of colour of a heat map, roles heat-0 to heat-7: more cost bytes and cannot be told apart."""


@lru_cache(maxsize=4096)
def _parse(value: str) -> Color | None:
    # Cached here: Textual caches no failure, and looks each time through all colour names for one that is meant.
    try:
        return Color.parse(value)
    except ColorParseError:
        return None


def colour(variables: dict[str, str], role: str) -> Color:
    """The colour of a role under these theme variables."""
    own = _parse(variables.get(role, ""))
    if own is not None:
        return own
    found = _parse(variables.get(ROLES.get(role, "foreground"), "")) or Color.parse("ansi_default")
    background = _parse(variables.get("background", ""))
    if role in FAINT and found.ansi is None and background is not None and background.ansi is None:
        return found.blend(background, FAINT[role], alpha=1.0)
    return found


def heat(variables: dict[str, str], level: int) -> Color:
    """The colour of one of the HEAT_LEVELS steps of a heat map, 0 is the lowest. 16 colours give two of them."""
    low, high = colour(variables, "heat-low"), colour(variables, "heat-high")
    if low.ansi is not None or high.ansi is not None:
        return low if 2 * level < HEAT_LEVELS else high
    return low.blend(high, level / (HEAT_LEVELS - 1), alpha=1.0)


def style_of(widget: Widget, spec: str) -> Style:
    """The Rich style of a spec such as "muted", "bold good" or "reverse bad", on the widget's background."""
    *attributes, role = spec.split()
    kind, _, level = role.partition("-")
    if kind == "heat" and level.isdecimal():
        found = heat(widget.app.theme_variables, int(level))
    else:
        found = colour(widget.app.theme_variables, role)
    style = widget.rich_style + Style(
        color=found.rich_color,
        bold="bold" in attributes or None,
        reverse="reverse" in attributes or None,
    )
    if found.ansi is not None and role in FAINT and role not in widget.app.theme_variables:
        style += Style(dim=True)
    return style
