"""Repeating a run from its config and journal: which settings were changed, and before which step."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from acrf_engine.config import dump, load_config
from acrf_engine.protocol import SETTABLE, Ack, Checkpoint, Event, Plan
from acrf_engine.run.folder import RunError, RunFolder, create_run, fresh_name, write_private
from acrf_engine.run.telemetry import TelemetryReader

SCRIPT = "replay.json"


@dataclass(frozen=True)
class Change:
    """A setting that took another value after `step` updates: by `set`, by a resume, or by a rollback."""

    step: int
    key: str
    value: float
    ramp: int = 0


@dataclass(frozen=True)
class Script:
    """What to repeat: the changes in order, and the step to stop at.

    `plans` holds (step, total): from that step on the schedule planned for that many steps; a resume may extend a run.
    `began` holds the settings that the first step was taken with; it is empty where the journal does not say.
    """

    changes: list[Change]
    until: int
    plans: list[tuple[int, int]] = field(default_factory=list)
    began: dict[str, float] = field(default_factory=dict)

    def planned_at(self, step: int, total: int) -> int:
        """The total that the schedule had in mind at `step`; `total` where the journal does not say."""
        return next((planned for start, planned in reversed(self.plans) if start <= step), total)


def script_of(events: Iterable[Event], until: int) -> Script:
    """What shaped the run, from its journal in order.

    A resumed attempt goes on from a checkpoint, so what was set after that checkpoint and before the resume is dropped;
    what the plan of an attempt says that differs from then on was changed by the resume.
    """
    changes: list[tuple[int, Change]] = []
    saved: dict[int, int] = {}
    plans: list[tuple[int, int]] = []
    began: dict[str, float] = {}
    for event in events:
        match event:
            case Checkpoint():
                saved[event.step] = event.seq
            case Ack(command="set", ok=True, value=float() | int() as value):
                changes.append((event.seq, Change(event.step, event.key, float(value), event.ramp)))
            case Plan(start_step=start):
                stated = {key: float(getattr(event, key.rpartition(".")[2])) for key in SETTABLE}
                if start == 0 and start not in saved:  # from the very beginning, whatever was before
                    changes, plans, began = [], [], stated
                elif start in saved:
                    changes = [(seq, change) for seq, change in changes if seq < saved[start]]
                else:  # saved by a worker whose supervisor was gone: nobody wrote that down
                    changes = [(seq, change) for seq, change in changes if change.step < start]
                now = began | {change.key: change.value for _, change in changes}
                changes += [(event.seq, Change(start, key, stated[key])) for key in now if now[key] != stated[key]]
                plans = [*(plan for plan in plans if plan[0] < start), (start, event.total_steps)]
    return Script([change for _, change in changes if change.step < until], until, plans, began)


def create_replay(original: RunFolder, runs_dir: Path, name: str | None) -> RunFolder:
    """A new run that will repeat `original`. Raises RunError where there is nothing to repeat."""
    status = original.read_status()
    if status.active:
        raise RunError(f"run {original.name} is {status.state}; only an ended run can be repeated")
    if status.step == 0:
        raise RunError(f"run {original.name} took no step: there is nothing to repeat")
    script = script_of(TelemetryReader(original.telemetry).journal(), status.step)
    if (own := read_script(original)) is not None and own.plans:  # a replay of a replay plans as the first run did
        script = replace(script, plans=own.plans)
    config = original.config.read_text(encoding="utf-8")
    if script.began:  # a resume may have changed them since
        config = dump(load_config(original.config, [f"{key}={value!r}" for key, value in script.began.items()]))
    folder = create_run(runs_dir, name or fresh_name(runs_dir, f"{original.name}-replay"), config, status.total_steps)
    write_private(folder.path / SCRIPT, json.dumps(asdict(script), indent=1) + "\n")
    return folder


def read_script(folder: RunFolder) -> Script | None:
    """The script of a replay; None for a run of its own."""
    try:
        raw = json.loads((folder.path / SCRIPT).read_text(encoding="utf-8"))
        plans = [(int(step), int(total)) for step, total in raw.get("plans", [])]
        return Script([Change(**change) for change in raw["changes"]], int(raw["until"]), plans)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(f"{folder.path / SCRIPT}: cannot be read ({error!r})") from None
