"""Start, resume and queue runs on behalf of the launchpad. Everything here blocks: for thread workers only."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from acrf_engine.run.folder import RunError, RunFolder, create_run, fresh_name


@dataclass(frozen=True, slots=True)
class Started:
    """The run that was started, or why there is none."""

    folder: RunFolder | None = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class DeviceChoice:
    """A way to give a run its device: overrides of the config, and what to do where another run has it."""

    label: str
    detail: str
    overrides: tuple[str, ...] = ()
    when_busy: str = ""


def start(
    runs_dir: Path, config_path: Path, overrides: Sequence[str] = (), name: str = "", when_busy: str = ""
) -> Started:
    """Make a run of a config and launch it."""
    from acrf_engine.config import absolute, dump, load_config
    from acrf_engine.yaml_source import ConfigError

    try:
        config = absolute(load_config(config_path, list(overrides)))
        chosen = name or fresh_name(runs_dir, config_path.stem)
        folder = create_run(runs_dir, chosen, dump(config), config.steps or 0)
    except (ConfigError, RunError) as error:
        return Started(error=str(error))
    except OSError as error:
        return Started(error=f"the run cannot be started: {error}")
    return _launch(folder, when_busy)


def resume(folder: RunFolder, steps: int | None = None) -> Started:
    """Continue a run from its newest good checkpoint, to `steps` in all where given."""
    from acrf_engine.run.resuming import prepare_resume
    from acrf_engine.yaml_source import ConfigError

    try:
        prepare_resume(folder, steps=steps)
    except (ConfigError, RunError) as error:
        return Started(error=str(error))
    except OSError as error:
        return Started(error=f"the run cannot be resumed: {error}")
    return _launch(folder)


def device_choices(config_path: Path) -> list[DeviceChoice]:
    """What to ask before a start: which GPU, where there are several, and whether to wait for a busy one.

    Empty where nothing is to be asked.
    """
    from acrf_engine.config import load_config
    from acrf_engine.run.devices import candidates, visible_gpus
    from acrf_engine.run.hardware import GpuReader
    from acrf_engine.run.waiting import holders
    from acrf_engine.yaml_source import ConfigError

    try:
        allowed = candidates(load_config(config_path).memory.device, visible_gpus(GpuReader()))
    except (ConfigError, RunError):
        return []  # the start says what is wrong
    busy = {gpu.uuid: found[0] for gpu in allowed if (found := holders(gpu.uuid))}
    if not busy and len(allowed) < 2:
        return []
    choices = []
    for gpu in sorted(allowed, key=lambda gpu: (gpu.uuid in busy, -gpu.memory_free)):
        card = (f"memory.device=cuda:{gpu.index}",)
        room = f"{gpu.memory_free / 2**30:.1f} of {gpu.memory_total / 2**30:.1f} GiB free" if gpu.memory_total else ""
        if gpu.uuid not in busy:
            choices.append(DeviceChoice(f"Start on {gpu.title}", room, card))
            continue
        holder = busy[gpu.uuid]
        choices.append(DeviceChoice(f"Wait for {gpu.title}", f"{holder} uses it", card, "--wait"))
        choices.append(DeviceChoice(f"Start beside {holder} on GPU {gpu.number}", room, card, "--share"))
    if len(busy) == len(allowed) > 1:
        choices.insert(0, DeviceChoice("Wait for whichever is free first", "all are in use", (), "--wait"))
    return choices


def move_up(folder: RunFolder) -> str:
    """Move a waiting run one place up the line; returns what to tell."""
    from acrf_engine.run import waiting

    places = [place.run for place in waiting.places() if not place.using]
    try:
        number = waiting.move(folder, places.index(str(folder.path))) if str(folder.path) in places else 0
    except (RunError, OSError) as error:
        return str(error)
    return f"{folder.name} is number {number} in the line" if number else f"{folder.name} does not wait any more"


def cancel(folder: RunFolder) -> str:
    """Take a waiting run out of the line; returns what to tell."""
    from acrf_engine.run.client import Run

    try:
        return f"{folder.name}: {Run(folder).command('stop').message}"
    except (ConnectionError, RunError) as error:
        return str(error)


def _launch(folder: RunFolder, when_busy: str = "") -> Started:
    from acrf_engine.run.client import launch

    try:
        launch(folder, when_busy).close()
    except (RunError, OSError) as error:
        _note_failure(folder, str(error))
        return Started(error=str(error))
    return Started(folder)


def _note_failure(folder: RunFolder, error: str) -> None:
    # Without a supervisor nobody else writes the state: the list would call it "starting" for a while.
    with contextlib.suppress(RunError, OSError):
        status = folder.recorded_status()
        if status.active and status.supervisor_pid is None:
            status.state, status.error = "failed", error
            folder.write_status(status)


def yaml_override(key: str, value: str) -> str:
    """`key=value` for a text of any kind, quoted so that YAML reads back exactly that text."""
    import yaml

    quoted = yaml.dump(value, default_style='"', allow_unicode=False, width=10**9).strip()
    return f"{key}={quoted}"
