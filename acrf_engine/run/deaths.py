"""How processes end: exit statuses in words, memory kills, and workers that outlive their supervisor."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from acrf_engine.run.folder import Status

log = logging.getLogger("acrf.supervisor")

ORPHAN_PATIENCE_S = 60.0


def count_oom_kills() -> int:
    """How many processes the kernel has killed for lack of memory since boot."""
    try:
        text = Path("/proc/vmstat").read_text(encoding="utf-8")
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in text.splitlines() if line.startswith("oom_kill ")), 0)


def describe_exit(code: int | None, out_of_memory: bool = False) -> str:
    """How the worker went, in words a user can act on."""
    if code == -signal.SIGKILL and out_of_memory:
        return (
            "the worker was killed (SIGKILL), it seems by the kernel, which has killed for lack of memory (RAM) since "
            "the run began: the machine is out of memory; continue with `acrf-tui resume`"
        )
    if code is None:
        return "the worker's exit status is unknown"
    if code == -signal.SIGKILL:
        return "the worker was killed (SIGKILL: out of memory, or kill -9); continue with `acrf-tui resume`"
    if code < 0:
        return f"the worker died of {signal.Signals(-code).name}; see worker.log, continue with `acrf-tui resume`"
    return f"the worker ended with status {code} without a word; see worker.log"


def wait_for_orphan(status: Status) -> None:
    """Let the worker of a dead supervisor finish its last checkpoint: two workers must never share a run."""
    pid = status.worker_pid
    if pid is None or not status.start_token:
        return
    end = time.monotonic() + ORPHAN_PATIENCE_S
    while process_token(pid) == status.start_token:
        if time.monotonic() > end:
            log.warning(
                "killing worker %s of an earlier supervisor: it did not end within %.0f s", pid, ORPHAN_PATIENCE_S
            )
            with contextlib.suppress(ProcessLookupError):  # it may end just now
                os.kill(pid, signal.SIGKILL)
            end = math.inf  # one that the kernel holds cannot die sooner by being killed again
        time.sleep(0.1)


def process_token(pid: int | None) -> str:
    """What tells a process from a later one with the same pid: boot id and start time. Empty where it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if stat[0] == "Z" else f"{boot_id()}:{stat[19]}"


def boot_id() -> str:
    """What tells this boot of the machine from every other one; empty where the system does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
    except OSError:
        return ""
