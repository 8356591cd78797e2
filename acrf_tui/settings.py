"""The user's settings: a small file of choices. What is wrong in it is said, and the app starts all the same."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import platformdirs

from acrf_engine.run.folder import APP_NAME


@dataclass(frozen=True, slots=True)
class Settings:
    """What settings.yaml may hold; see docs/settings.md."""

    symbols: str = "auto"
    """auto (by the locale), braille, block or ascii."""
    notify: str = "none"
    """What happens when the run that is shown ends, fails or meets NaN: none, bell, osc9 (a notification) or both."""
    slow: str = "auto"
    """on: repaint once a second; auto: spare the line over SSH; off: neither."""
    screenshots: str = ""
    """The folder for pictures of the screen; empty: the one `acrf-tui paths` names."""


CHOICES: dict[str, tuple[str, ...]] = {
    "symbols": ("auto", "braille", "block", "ascii"),
    "notify": ("none", "bell", "osc9", "both"),
    "slow": ("auto", "on", "off"),
}


def settings_file() -> Path:
    """Where the settings are."""
    return platformdirs.user_config_path(APP_NAME) / "settings.yaml"


def keys_file() -> Path:
    """Where the user's own keys are."""
    return platformdirs.user_config_path(APP_NAME) / "keys.yaml"


def screenshots_folder(settings: Settings) -> Path:
    """Where pictures of the screen go."""
    if settings.screenshots:
        return Path(settings.screenshots).expanduser()
    return platformdirs.user_data_path(APP_NAME) / "screenshots"


def read_settings(file: Path) -> tuple[Settings, list[str]]:
    """The settings of a file, defaults for what is absent or wrong, and all that is wrong, each with line and key."""
    if not os.path.lexists(file):
        return Settings(), []
    from acrf_engine.yaml_source import ConfigError, load_file

    try:
        body, lines = load_file(file)
    except ConfigError as error:
        return Settings(), [str(error)]
    good: dict[str, Any] = {}
    wrong: list[str] = []
    for key, value in body.items():
        where = f"{file}:{lines.get((str(key),), 1)}: {key}"
        problem = _problem(str(key), value)
        if problem:
            wrong.append(f"{where}: {problem}")
        else:
            good[str(key)] = value
    return Settings(**good), wrong


def _problem(key: str, value: object) -> str:
    known = [field.name for field in fields(Settings)]
    if key not in known:
        return f"there is no such setting ({suggestion(key, known)})"
    if key == "screenshots":
        if not isinstance(value, str) or not value.strip():
            return f"must be a folder, not {value!r} (leave the line out for the usual one)"
        path = Path(value).expanduser()
        return "" if path.is_absolute() else f"{value!r} must begin with / or ~ (the app is started from many folders)"
    if value not in CHOICES[key]:
        if isinstance(value, bool) and key == "slow":
            return f"write {'on' if value else 'off'} ({str(value).lower()} is another word in YAML)"
        return f"{value!r} is none of the choices ({suggestion(str(value), CHOICES[key])})"
    return ""


def suggestion(given: str, known: list[str] | tuple[str, ...]) -> str:
    """What to write instead: the closest of `known`, else all of them."""
    from difflib import get_close_matches

    close = get_close_matches(given, known, n=1)
    return f"did you mean {close[0]}?" if close else f"known: {', '.join(known)}"
