"""What a run needs to go on bit for bit: its own config, data and anchors, and the environment that it began in."""

from __future__ import annotations

import platform
from collections.abc import Mapping

import torch

from acrf_engine.config import RunConfig
from acrf_engine.optimizer_config import package_of, version_of
from acrf_engine.protocol import WarningEvent
from acrf_engine.run.changes import changed_keys
from acrf_engine.run.folder import RunFolder
from acrf_engine.training.checkpoint import CheckpointError
from acrf_engine.training.preparation import Prepared, Report
from acrf_engine.training.saved_state import Saved


class MismatchError(CheckpointError):
    """A run cannot be resumed: its config or data are not those it began with; the message names what changed."""


def require_same_run(saved: Saved, config: RunConfig, folder: RunFolder, prepared: Prepared, report: Report) -> None:
    """Raises MismatchError, by name, where config, data or anchors are not those of the checkpoint.

    Another environment is only warned of.
    """
    name, state = saved.path.name, saved.state
    if changed := changed_keys(state.run_config(), config):
        raise MismatchError(
            f"{folder.config}: {', '.join(changed)} changed since {name}; a resumed run must go on as it "
            "began (undo the change, or start a new run)"
        )
    if state.dataset != prepared.dataset.fingerprint:
        what = _changed_parts(state.dataset_parts, prepared.dataset.parts)
        raise MismatchError(
            f"{what} changed since {name}; a resumed run must see the same data (restore them, or start a new run)"
        )
    if state.base != prepared.base:
        raise MismatchError(
            f"the frozen weights changed since {name}: the transformer's files or the training adapter are others "
            "(bring the former ones back, or start a new run)"
        )
    if state.anchors != prepared.method.anchors_K.tolist():
        raise MismatchError(
            f"the anchors changed since {name}: the model's scheduler, or the installed diffusers, is another "
            "one (bring the former one back, or start a new run)"
        )
    processes, former = _processes(config), _processes(state.run_config())
    if processes != former:
        message = (
            f"resumed from {name} with {processes} in the place of {former}: the pictures of every "
            "step are the same, but sums are made in another order: the run goes on, but not bit for bit"
        )
        report(WarningEvent(message, state.step))
    if state.environment != environment(config.optimizer):
        report(
            WarningEvent(
                f"resumed from {name} in another environment (library versions or device differ): "
                "the run goes on, but not bit for bit",
                state.step,
            )
        )


def _processes(config: RunConfig) -> str:
    count = config.distributed.num_processes
    return f"{count} processes ({config.distributed.strategy})" if count > 1 else "1 process"


def _changed_parts(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """What of the data is another, in words; a picture that came or went takes its caption and all else with it."""
    changed = [name for name in now if before.get(name) != now[name]]
    if not before or not changed:
        return "the pictures, captions or options of the data set"
    return "the pictures" if "pictures" in changed else f"the {' and '.join(changed)}"


def environment(optimizer: str = "AdamW") -> dict[str, str]:
    """Versions and device that a bit-exact repetition depends on."""
    import accelerate
    import bitsandbytes
    import diffusers
    import peft

    import acrf_engine

    versions = {
        "acrf-tui": acrf_engine.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "diffusers": diffusers.__version__,
        "peft": peft.__version__,
        "accelerate": accelerate.__version__,
        "bitsandbytes": bitsandbytes.__version__,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine(),
        "threads": str(torch.get_num_threads()),
    }
    package = package_of(optimizer)
    return versions if package in versions else {**versions, package: version_of(package)}
