"""Which GPU a run gets: `memory.device` against the cards of this machine, and who else is on them.

`cuda:N` counts the cards that CUDA_VISIBLE_DEVICES leaves visible, in the order of nvidia-smi. The worker sees only the
card chosen here, so that no library can open another one.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import psutil

from acrf_engine.run.folder import RunError
from acrf_engine.run.hardware import GpuReader

CPU = "cpu"
VISIBLE = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True)
class Tenant:
    """A process that holds memory on a card. `user` is empty where it cannot be told; memory in bytes."""

    pid: int
    user: str
    memory: int | None


@dataclass(frozen=True)
class Gpu:
    """One card: `index` is N of `cuda:N`, `number` its number in nvidia-smi. Memory in bytes, None where unknown."""

    index: int
    number: int
    uuid: str
    name: str
    memory_used: int | None = None
    memory_total: int | None = None
    tenants: tuple[Tenant, ...] = ()

    @property
    def title(self) -> str:
        return f"GPU {self.number} ({self.name})"

    @property
    def memory_free(self) -> int:
        return (self.memory_total or 0) - (self.memory_used or 0)

    @property
    def others(self) -> str:
        """Who is on the card, for people; empty where nobody is, or the driver does not tell."""
        if not self.tenants:
            return ""
        who = ", ".join(
            f"pid {one.pid}"
            + (f" of {one.user}" if one.user else "")
            + (f" ({one.memory / 2**30:.1f} GiB)" if one.memory else "")
            for one in self.tenants[:4]
        )
        room = (
            f"; {self.memory_free / 2**30:.1f} of {self.memory_total / 2**30:.1f} GiB are free"
            if self.memory_total and self.memory_used is not None
            else ""
        )
        return f"{self.title} is also used by {who}{room}"


def visible_gpus(reader: GpuReader, environ: Mapping[str, str] = os.environ) -> list[Gpu]:
    """The cards that a run may use, in the order that `cuda:N` counts them. Asks the driver, which may hang."""
    cards = [
        (reader.uuid(device.index) or f"GPU-{device.index}", device)
        for device in reader.devices()
    ]  # fmt: skip
    if (wanted := environ.get(VISIBLE)) is not None:
        by_number = {str(device.index): (uuid, device) for uuid, device in cards}
        chosen = []
        for token in (token.strip() for token in wanted.split(",")):
            found = by_number.get(token) or next(((u, d) for u, d in cards if token and u.startswith(token)), None)
            if found is None:
                break  # CUDA stops at the first that is none
            chosen.append(found)
        cards = chosen
    return [
        Gpu(
            index,
            device.index,
            uuid,
            device.name,
            device.memory_used,
            device.memory_total,
            tuple(Tenant(pid, _user_of(pid), memory) for pid, memory in reader.processes(device.index)),
        )
        for index, (uuid, device) in enumerate(cards)
    ]


def candidates(wanted: str, gpus: Sequence[Gpu]) -> list[Gpu]:
    """The cards that `memory.device` allows, the emptiest first; none: the run trains on the CPU.

    Raises RunError for a card that is not there.
    """
    if wanted == CPU or (wanted in ("auto", "cuda") and not gpus):
        return []  # with `cuda` and no card the worker says what torch sees
    if wanted.startswith("cuda:"):
        number = int(wanted.removeprefix("cuda:"))
        if number >= len(gpus):
            there = ", ".join(f"cuda:{gpu.index} {gpu.name}" for gpu in gpus) or "none"
            raise RunError(f"memory.device: {wanted}: there is no such GPU here (there are: {there})")
        return [gpus[number]]
    return sorted(gpus, key=lambda gpu: -gpu.memory_free)


def _user_of(pid: int) -> str:
    try:
        return psutil.Process(pid).username()
    except psutil.Error:
        return ""
