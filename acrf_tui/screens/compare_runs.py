"""What is known of the runs that are compared, read from their folders, also while they go on."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from acrf_engine.run.curves import Curve, read_curve, stamp_of
from acrf_engine.run.folder import RunError, RunFolder
from acrf_tui.printable import printable, short_path

ABSENT = "–"


@dataclass(frozen=True, slots=True)
class Compared:
    """One run of the comparison; `config` is flat, key by key."""

    folder: Path
    state: str = "starting"
    step: int = 0
    total_steps: int = 0
    error: str = ""
    """Why it cannot be read."""
    curve: Curve = field(default_factory=Curve)
    config: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return printable(self.folder.name)


def flat(values: Any, prefix: str = "") -> dict[str, str]:
    """A config's values by dotted key, as text."""
    if isinstance(values, Mapping) and values:
        found: dict[str, str] = {}
        for key, value in values.items():
            found |= flat(value, f"{prefix}.{key}" if prefix else str(key))
        return found
    if isinstance(values, list) and values and all(isinstance(one, Mapping) for one in values):
        return flat({str(number): one for number, one in enumerate(values, start=1)}, prefix)
    return {prefix: _text(values)} if prefix else {}


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    if value is None or value == "" or value in ([], {}):
        return ABSENT
    if isinstance(value, list):
        return ", ".join(_text(one) for one in value)
    text = printable(str(value))
    return short_path(text) if text.startswith("/") else text


class Reader:
    """Reads one run again and again; what has not changed is not read twice. Not for the UI thread."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self.known = Compared(folder.path)
        self._stamp: tuple[object, ...] = ()

    def read(self) -> Compared:
        """The run as it is now: the very object of the last time where nothing has changed."""
        run = self._status()
        stamp = stamp_of(self.folder)
        if stamp != self._stamp:
            # A copy, because the one that is known is being drawn.
            run = replace(run, curve=read_curve(self.folder, copy.deepcopy(run.curve)))
            self._stamp = stamp
        if not run.config and (config := _config(self.folder)):
            run = replace(run, config=config)
        self.known = run
        return run

    def _status(self) -> Compared:
        run = self.known
        try:
            status = self.folder.read_status()
        except RunError as error:
            found = "unreadable", run.step, run.total_steps, str(error)
        else:
            state = "waiting" if status.waiting else status.state
            found = state, status.step, status.total_steps, ""
        if found == (run.state, run.step, run.total_steps, run.error):
            return run
        return replace(run, state=found[0], step=found[1], total_steps=found[2], error=found[3])


def _config(folder: RunFolder) -> dict[str, str]:
    import yaml

    try:
        return flat(yaml.safe_load(folder.config.read_text(encoding="utf-8")))
    except (OSError, ValueError, yaml.YAMLError):
        return {}
