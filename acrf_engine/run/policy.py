"""What a run's config tells the supervisor itself: restarts, hangs, and the commands to run at the end."""

from __future__ import annotations

import logging
import os
import subprocess
from dataclasses import dataclass, fields

from acrf_engine.run.folder import RunFolder

log = logging.getLogger("acrf.supervisor")


@dataclass(frozen=True)
class Policy:
    """What the config tells the supervisor itself; see RunConfig."""

    restarts: int = 0
    hang_timeout: int = 0
    on_finish: str = ""
    on_failure: str = ""
    device: str = "auto"
    processes: int = 1


def read_policy(folder: RunFolder) -> Policy:
    """The supervisor's keys of the run's config, read without the schema: it has to stay small."""
    import yaml

    try:
        values = yaml.safe_load(folder.config.read_text(encoding="utf-8"))
        wanted = {field.name: values[field.name] for field in fields(Policy) if field.name in values}
        wanted["device"] = (values.get("memory") or {}).get("device", "auto")
        wanted["processes"] = int((values.get("distributed") or {}).get("num_processes", 1))
    except (OSError, yaml.YAMLError, TypeError, AttributeError, ValueError):
        return Policy()  # the worker reads the same file and says what is wrong with it
    return Policy(**wanted)


def run_hook(policy: Policy, folder: RunFolder, state: str) -> None:
    """The user's own command at the end of a run that finished or failed; its output goes to the log."""
    command = policy.on_finish if state == "finished" else policy.on_failure
    if not command or state == "stopped":
        return
    log.info("running: %s", command)
    environment = {**os.environ, "ACRF_RUN": str(folder.path), "ACRF_STATE": state}
    code = subprocess.run(command, shell=True, env=environment, stdin=subprocess.DEVNULL, check=False).returncode
    log.info("the command ended with status %s", code)
