"""Repeating a run from its config and journal: which settings were changed, and before which step."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from acrf_engine.protocol import Ack, Checkpoint, Event, Plan
from acrf_engine.run.folder import RunError, RunFolder, create_run, fresh_name, write_private
from acrf_engine.run.telemetry import TelemetryReader

SCRIPT = "replay.json"


@dataclass(frozen=True)
class Change:
    """A `set` that took effect after `step` updates."""

    step: int
    key: str
    value: float
    ramp: int = 0


@dataclass(frozen=True)
class Script:
    """What to repeat: the changes in order, and the step to stop at."""

    changes: list[Change]
    until: int


def script_of(events: Iterable[Event], until: int) -> Script:
    """The changes that shaped the run, from its journal in order.

    A resumed attempt goes on from a checkpoint, so what was set after that checkpoint and before the resume is dropped.
    """
    changes: list[tuple[int, Change]] = []
    saved: dict[int, int] = {}
    for event in events:
        match event:
            case Checkpoint():
                saved[event.step] = event.seq
            case Ack(command="set", ok=True, value=float() | int() as value):
                changes.append((event.seq, Change(event.step, event.key, float(value), event.ramp)))
            case Plan(start_step=start):
                changes = [(seq, change) for seq, change in changes if seq < saved.get(start, 0)]
    return Script([change for _, change in changes if change.step < until], until)


def create_replay(original: RunFolder, runs_dir: Path, name: str | None) -> RunFolder:
    """A new run that will repeat `original`. Raises RunError where there is nothing to repeat."""
    status = original.read_status()
    if status.active:
        raise RunError(f"run {original.name} is {status.state}; only an ended run can be repeated")
    if status.step == 0:
        raise RunError(f"run {original.name} took no step: there is nothing to repeat")
    script = script_of(TelemetryReader(original.telemetry).journal(), status.step)
    config = original.config.read_text(encoding="utf-8")
    folder = create_run(runs_dir, name or fresh_name(runs_dir, f"{original.name}-replay"), config, status.total_steps)
    write_private(folder.path / SCRIPT, json.dumps(asdict(script), indent=1) + "\n")
    return folder


def read_script(folder: RunFolder) -> Script | None:
    """The script of a replay; None for a run of its own."""
    try:
        raw = json.loads((folder.path / SCRIPT).read_text(encoding="utf-8"))
        return Script([Change(**change) for change in raw["changes"]], int(raw["until"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{folder.path / SCRIPT}: cannot be read ({error!r})") from None
