"""Themes from YAML: shipped ones and the user's own, checked colour by colour."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from textual.color import Color, ColorParseError
from textual.theme import Theme

from acrf_tui.charts.palette import ROLES
from acrf_tui.shipped import shipped

DEFAULT_THEME = "acrf-dark"
COLOURS = (
    "primary",
    "secondary",
    "accent",
    "warning",
    "error",
    "success",
    "foreground",
    "background",
    "surface",
    "panel",
    "boost",
)
FLAGS = ("dark", "ansi")
TEXTUAL_VARIABLES = (
    "ansi-background",
    "ansi-foreground",
    "border",
    "border-blurred",
    "block-cursor-foreground",
    "block-cursor-background",
    "footer-background",
    "footer-foreground",
    "footer-key-foreground",
    "footer-key-background",
    "footer-description-foreground",
    "footer-description-background",
    "footer-item-background",
    "input-selection-background",
    "scrollbar",
    "scrollbar-background",
)
"""Variables of Textual that a theme may set beside our roles."""
ANSI_VARIABLES = {"ansi-background": "ansi_black", "ansi-foreground": "ansi_white"}
"""Textual's own style sheet needs these of an ansi theme, and generates them for all others only."""


def load_themes(folders: Sequence[Path]) -> tuple[list[Theme], list[str]]:
    """The themes of these folders, later ones replacing earlier ones of the same name, and all that is wrong in them.

    A file with any error gives no theme; an absent folder is no error.
    """
    themes: dict[str, Theme] = {}
    errors: list[str] = []
    for folder in folders:
        for file in sorted(folder.glob("*.yaml")):
            theme, problems = read_theme(file)
            errors += problems
            if theme is not None:
                themes[theme.name] = theme
    return list(themes.values()), errors


def shipped_themes() -> list[Theme]:
    """The themes that come with the program."""
    return load_themes([shipped("themes")])[0]


def read_theme(file: Path) -> tuple[Theme | None, list[str]]:
    """One theme, or every error of its file, each naming file and key."""
    try:
        body = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as problem:
        return None, [f"{file}: cannot be read ({problem})"]
    except yaml.YAMLError as problem:
        return None, [f"{file}: is not YAML ({str(problem).splitlines()[0]})"]
    if not isinstance(body, dict):
        return None, [f"{file}: must hold keys and colours, such as `primary: '#7aa2f7'`"]
    errors: list[str] = []
    values: dict[str, Any] = {}
    for key, value in body.items():
        if key == "name":
            continue
        if key in FLAGS:
            if isinstance(value, bool):
                values[key] = value
            else:
                errors.append(f"{file}: {key}: must be true or false, not {value!r}")
        elif key in COLOURS:
            _take_colour(file, str(key), value, values, errors)
        elif key == "variables":
            values["variables"] = _variables(file, value, errors)
        else:
            errors.append(f"{file}: {key}: unknown key (known: name, {', '.join((*FLAGS, *COLOURS))}, variables)")
    name = body.get("name", file.stem)
    if not isinstance(name, str) or not name:
        errors.append(f"{file}: name: must be a word")
    if "primary" not in body:
        errors.append(f"{file}: primary: is missing")
    if errors:
        return None, errors
    if values.get("ansi"):
        values["variables"] = {**ANSI_VARIABLES, **values.get("variables", {})}
    return Theme(name=name, **values), []


def _take_colour(file: Path, key: str, value: object, into: dict[str, Any], errors: list[str], under: str = "") -> None:
    where = f"{under}{key}"
    if not isinstance(value, str):
        hint = " (write it in quotes: # begins a comment)" if value is None else ""
        errors.append(f"{file}: {where}: must be a colour, not {value!r}{hint}")
        return
    try:
        Color.parse(value)
    except ColorParseError:
        errors.append(f"{file}: {where}: {value!r} is not a colour (use '#rrggbb' or a name such as ansi_blue)")
        return
    into[key] = value


def _variables(file: Path, body: object, errors: list[str]) -> dict[str, str]:
    if not isinstance(body, dict):
        errors.append(f"{file}: variables: must hold names and colours")
        return {}
    found: dict[str, str] = {}
    known = (*ROLES, *TEXTUAL_VARIABLES)
    for key, value in body.items():
        if key not in known:
            errors.append(f"{file}: variables.{key}: unknown variable (known: {', '.join(known)})")
        else:
            _take_colour(file, str(key), value, found, errors, "variables.")
    return found
