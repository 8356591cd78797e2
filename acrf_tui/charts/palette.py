"""Roles of colour: what a panel means by a colour, looked up in the theme that is on.

A theme may define our own variables (`themes/*.yaml`); any other Textual theme works too, each role then falls back to
one of the variables that every theme has.
"""

from __future__ import annotations

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

FAINT: dict[str, float] = {"muted": 0.40, "axis": 0.55, "meter-track": 0.45, "series-raw": 0.35}
"""Roles that, when they fall back, are blended this far into the background."""


def _parse(value: str) -> Color | None:
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


def style_of(widget: Widget, spec: str) -> Style:
    """The Rich style of a spec such as "muted", "bold good" or "reverse bad", on the widget's background."""
    *attributes, role = spec.split()
    found = colour(widget.app.theme_variables, role)
    style = widget.rich_style + Style(
        color=found.rich_color,
        bold="bold" in attributes or None,
        reverse="reverse" in attributes or None,
    )
    if found.ansi is not None and role in FAINT and role not in widget.app.theme_variables:
        style += Style(dim=True)
    return style
