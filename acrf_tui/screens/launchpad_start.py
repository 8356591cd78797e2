"""Start or resume a run on behalf of the launchpad. Everything here blocks: for thread workers only."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from acrf_engine.protocol import RESUMABLE_STATES
from acrf_engine.run.folder import RunError, RunFolder, create_run, fresh_name


@dataclass(frozen=True, slots=True)
class Started:
    """The run that was started, or why there is none."""

    folder: RunFolder | None = None
    error: str = ""


def start(runs_dir: Path, config_path: Path, overrides: Sequence[str] = (), name: str = "") -> Started:
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
    return _launch(folder)


def resume(folder: RunFolder) -> Started:
    """Continue a run from its newest good checkpoint."""
    try:
        status = folder.read_status()
    except RunError as error:
        return Started(error=str(error))
    if status.active:
        return Started(error=f"run {folder.name} is {status.state} already: press enter to watch it")
    if status.state not in RESUMABLE_STATES:
        return Started(
            error=f"run {folder.name} is finished at step {status.step:,}: "
            f"`acrf-tui resume {folder.name} --steps N` trains it further"
        )
    return _launch(folder)


def _launch(folder: RunFolder) -> Started:
    from acrf_engine.run.client import launch

    try:
        launch(folder).close()
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
