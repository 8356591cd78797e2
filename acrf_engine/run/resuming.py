"""What may be resumed, and with which changes: one set of rules for the command line and the launchpad."""

from __future__ import annotations

import json
from collections.abc import Sequence

from acrf_engine.config import RunConfig, absolute, dump, load_config
from acrf_engine.run.changes import changed_keys, planned_steps
from acrf_engine.run.folder import RunError, RunFolder, Status, write_private


def prepare_resume(
    folder: RunFolder, overrides: Sequence[str] = (), *, steps: int | None = None, epochs: int | None = None
) -> None:
    """Make an ended run ready to go on, to another total where `steps` or `epochs` say so.

    Nothing is changed where it raises RunError or ConfigError: the run is active, finished at its total, or past the
    one that is asked for, or a change would make it another run.
    """
    try:
        status = folder.read_status()
    except RunError:
        status = _status_anew(folder)
    if status.active:
        raise RunError(f"run {folder.name} is {status.state} already (`acrf-tui attach {folder.name}`)")
    if steps is not None and epochs is not None:
        raise RunError("--steps and --epochs both say how long the run is (give one)")
    total = [f"steps={steps}"] if steps is not None else []
    total += [f"epochs={epochs}", "steps=null"] if epochs is not None else []
    changes = [*overrides, *total]
    config = load_config(folder.config, changes)
    if status.state == "finished" and planned_steps(config, folder) <= status.step:
        raise RunError(
            f"run {folder.name} is finished at step {status.step} "
            "(extend it with `--steps N` or `--epochs N` above that)"
        )
    saved = folder.newest_step()
    if total and 0 < (planned := planned_steps(config, folder)) < saved:
        raise RunError(
            f"run {folder.name} is at step {saved} already and cannot end at {planned} "
            f"(`--steps {saved}` ends it where it is)"
        )
    changed = changed_keys(load_config(folder.config), config)
    if changed and any(folder.checkpoints.glob("step-*")):
        raise RunError(
            f"run {folder.name} cannot change {', '.join(changed)} any more (start a new run with `acrf-tui train "
            f"{folder.config} --set ...`)"
        )
    if changes:
        write_private(folder.config, dump(_absolute(config, folder)))
    given = [override.partition("=")[0].strip() for override in overrides]
    # With those of a resume that ended before its first checkpoint.
    write_private(folder.given, json.dumps(list(dict.fromkeys([*folder.read_given_keys(), *given]))))


def _status_anew(folder: RunFolder) -> Status:
    """For a status.json that cannot be read, as a power cut may leave it: what the checkpoints say.

    Raises RunError where there are none, or where somebody holds the run.
    """
    if not (step := folder.newest_step()):
        folder.recorded_status()  # says what is wrong with it
    status = Status("interrupted", step=step, created=folder.path.stat().st_mtime)
    with folder.hold():
        folder.status.replace(folder.status.with_name("status.json.damaged"))
        folder.write_status(status)
    return status


def _absolute(config: RunConfig, folder: RunFolder) -> RunConfig:
    """`absolute`, except that a run with a checkpoint does not need the LoRA any more that it started from."""
    if not any(folder.checkpoints.glob("step-*")):
        return absolute(config, folder.config)
    started = config.lora.model_copy(update={"init_from": ""})
    resolved = absolute(config.model_copy(update={"lora": started}), folder.config)
    return resolved.model_copy(update={"lora": config.lora})
