"""The processes that train one run together: their places, as accelerate reads them, and those of this box.

Rank 0 is the worker that the supervisor talks to; it owns the run folder. The others write nothing but their own log.
"""

from __future__ import annotations

import contextlib
import multiprocessing.process
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from acrf_engine.run.deaths import describe_exit
from acrf_engine.run.folder import RunFolder

LOOPBACK = "127.0.0.1"
PLACES = (
    "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "GROUP_RANK",
    "TORCHELASTIC_USE_AGENT_STORE",
)  # fmt: skip
"""Variables by which a launcher says which process this is."""
END_PATIENCE_S = 10.0
LOST_PATIENCE_S = 20.0
"""More than rank 0 needs to find out itself which rank it has lost."""


@dataclass(frozen=True)
class Seat:
    """Which of `count` processes this is; `local` counts those of this box, which has `neighbours` in all."""

    rank: int
    count: int
    local: int
    neighbours: int

    @property
    def first_of_box(self) -> int:
        """The rank of this box's first process."""
        return self.rank - self.local


def seat(environ: Mapping[str, str] = os.environ) -> Seat | None:
    """The place that a launcher gave to this process; None for a process that trains alone.

    Raises ValueError for places that make no sense.
    """
    count = int(environ.get("WORLD_SIZE") or 1)
    if count < 2:
        return None
    rank = int(environ["RANK"]) if environ.get("RANK") else -1
    local = int(environ.get("LOCAL_RANK") or 0)
    if not 0 <= rank < count or local > rank:
        raise ValueError(f"WORLD_SIZE is {count}, but RANK is {environ.get('RANK')} and LOCAL_RANK {local}")
    return Seat(rank, count, local, int(environ.get("LOCAL_WORLD_SIZE") or count))


def started_alone(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether `accelerate launch` was asked for several processes on this box, and has started this one only.

    Without --multi_gpu it does so where it sees no GPUs, and with --cpu everywhere, without a word.
    """
    by_accelerate = "ACCELERATE_MIXED_PRECISION" in environ and environ.get("MASTER_ADDR") == LOOPBACK
    return by_accelerate and "WORLD_SIZE" not in environ


def log_of(folder: RunFolder, rank: int) -> str:
    """The file that all output of a rank goes to; rank 0 has the worker's."""
    return str(folder.log if rank == 0 else folder.path / f"worker-rank-{rank}.log")


@contextlib.contextmanager
def seated(rank: int, count: int, port: int) -> Iterator[None]:
    """With the environment of a rank on this box, for a process that is started inside."""
    given = {
        "RANK": rank, "WORLD_SIZE": count, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": count, "MASTER_ADDR": LOOPBACK,
        "MASTER_PORT": port,
    }  # fmt: skip
    before = {name: os.environ.get(name) for name in PLACES}
    os.environ.update({name: str(value) for name, value in given.items()})
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


class Crew:
    """The processes of an attempt on this box beside rank 0; none where the run has one process, or another launcher.

    Args:
        start: makes the process of a rank; called in its environment.
        count: processes of the run, rank 0 included.
    """

    def __init__(self, start: Callable[[str], multiprocessing.process.BaseProcess], count: int) -> None:
        self._start = start
        self.count = count
        self._port = free_port() if count > 1 else 0
        self._members: dict[int, Any] = {}
        self._lost_at = 0.0

    def start_first(self, name: str) -> multiprocessing.process.BaseProcess:
        """Start rank 0."""
        if self.count == 1:
            return self._start(name)
        with seated(0, self.count, self._port):
            return self._start(name)

    def start_others(self, name: str) -> None:
        """Start all but rank 0."""
        for rank in range(1, self.count):
            with seated(rank, self.count, self._port):
                self._members[rank] = self._start(f"{name}-{rank}")

    @property
    def pids(self) -> dict[int, int]:
        """Process ids by rank, without rank 0."""
        return {rank: member.pid for rank, member in self._members.items()}

    def lost(self, out_of_memory: bool = False) -> str:
        """Which rank ended without a chance to say why, and how; empty where none did."""
        for rank, member in self._members.items():
            if not member.is_alive() and (member.exitcode or 0) < 0:
                return f"rank {rank} (pid {member.pid}): {describe_exit(member.exitcode, out_of_memory)}"
        return ""

    def overdue(self) -> bool:
        """Whether a rank ended badly a while ago, and rank 0 still waits for it."""
        if all(member.is_alive() or not member.exitcode for member in self._members.values()):
            return False
        self._lost_at = self._lost_at or time.monotonic()
        return time.monotonic() > self._lost_at + LOST_PATIENCE_S

    def end(self) -> None:
        """Let the others follow rank 0, which has ended; kill those that do not."""
        until = time.monotonic() + END_PATIENCE_S
        for member in self._members.values():
            member.join(max(0.0, until - time.monotonic()))
            if member.is_alive():
                member.kill()
                member.join()
