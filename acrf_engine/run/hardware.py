"""GPU and memory readings. The NVML module is passed in, so that a test can be a machine with two hot cards."""

from __future__ import annotations

import importlib
import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields, replace
from typing import Any, TypeVar

import psutil

from acrf_engine.protocol import Device, Hardware
from acrf_engine.run.wire import MAX_EVENT_BYTES, encode, to_wire

T = TypeVar("T")

SLOWDOWNS: dict[int, str] = {
    0x40: "too hot",
    0x20: "too hot",
    0x80: "power supply brake",
    0x08: "hardware protection",
    0x04: "power limit",
    0x200: "board limit",
    0x400: "voltage reliability",
    0x10: "kept in step with another card",
    0x02: "clock limit that was set",
}
"""Bits of NVML's clocks event reasons, the gravest first. Idle (1) and display clocks (0x100) slow no training."""
CLOCK_SM, CLOCK_MEMORY = 1, 2
SPARE = ("clock_memory_max", "clock_sm_max", "clock_memory", "slowed", "clock_sm", "power_limit")
"""What a sample of very many cards can do without, so that it stays an event: the least wanted first."""

NO_GPU = "No NVIDIA GPU here: training runs on the CPU."


class GpuReader:
    """Reads every NVIDIA GPU through `nvml`, the pynvml module or anything that answers like it.

    A value that a card does not support reads as None; a card that answers nothing at all still has its line. The
    driver is asked for the first time when something is read, because it may hang, in whatever thread asks.
    """

    def __init__(self, nvml: Any | None = None) -> None:
        self._given = nvml
        self._nvml: Any = None
        self._handles: list[Any] = []
        self._note: str | None = None

    @property
    def note(self) -> str:
        """Why there is no card to read; empty where there is one."""
        if self._note is None:
            self._note = self._open()
        return self._note

    def _open(self) -> str:
        self._nvml = self._given if self._given is not None else _import_nvml()
        if self._nvml is None:
            return NO_GPU
        try:
            self._nvml.nvmlInit()
            self._handles = [self._nvml.nvmlDeviceGetHandleByIndex(i) for i in range(self._nvml.nvmlDeviceGetCount())]
        except self._nvml.NVMLError as error:
            missing = "Not Found" in str(error)  # no driver on this machine: nothing is wrong
            return NO_GPU if missing else f"The GPU cannot be read (NVML: {error})."
        return "" if self._handles else NO_GPU

    def devices(self) -> list[Device]:
        return [] if self.note else [self._device(index, handle) for index, handle in enumerate(self._handles)]

    def uuid(self, index: int) -> str:
        """The card's own name, the same in every process; empty where it has none."""
        found = self._ask(lambda: self._nvml.nvmlDeviceGetUUID(self._handles[index]))
        return found.decode() if isinstance(found, bytes) else str(found or "")

    def processes(self, index: int) -> list[tuple[int, int | None]]:
        """Process id and bytes held, of every process that computes on the card."""
        found = self._ask(lambda: self._nvml.nvmlDeviceGetComputeRunningProcesses(self._handles[index]))
        return [(int(one.pid), getattr(one, "usedGpuMemory", None)) for one in found or []]

    def _slowdowns(self, handle: Any) -> list[str] | None:
        """What holds the clocks down, in words; None where neither the call nor its older name is answered."""
        nvml = self._nvml
        bits = self._ask(lambda: int(nvml.nvmlDeviceGetCurrentClocksEventReasons(handle)))
        if bits is None:
            bits = self._ask(lambda: int(nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle)))
        return None if bits is None else slowdowns(bits)

    def _device(self, index: int, handle: Any) -> Device:
        nvml = self._nvml
        name = self._ask(lambda: nvml.nvmlDeviceGetName(handle))
        memory = self._ask(lambda: nvml.nvmlDeviceGetMemoryInfo(handle))
        utilisation = self._ask(lambda: nvml.nvmlDeviceGetUtilizationRates(handle))
        power = self._ask(lambda: nvml.nvmlDeviceGetPowerUsage(handle))
        limit = self._ask(lambda: nvml.nvmlDeviceGetEnforcedPowerLimit(handle))
        sensor = getattr(nvml, "NVML_TEMPERATURE_GPU", 0)
        return Device(
            index=index,
            name=name.decode() if isinstance(name, bytes) else str(name or f"GPU {index}"),
            memory_used=None if memory is None else int(memory.used),
            memory_total=None if memory is None else int(memory.total),
            temperature=self._ask(lambda: int(nvml.nvmlDeviceGetTemperature(handle, sensor))),
            utilisation=None if utilisation is None else int(utilisation.gpu),
            power=None if power is None else power / 1000,
            power_limit=None if limit is None else limit / 1000,
            clock_sm=self._ask(lambda: int(nvml.nvmlDeviceGetClockInfo(handle, CLOCK_SM))),
            clock_sm_max=self._ask(lambda: int(nvml.nvmlDeviceGetMaxClockInfo(handle, CLOCK_SM))),
            clock_memory=self._ask(lambda: int(nvml.nvmlDeviceGetClockInfo(handle, CLOCK_MEMORY))),
            clock_memory_max=self._ask(lambda: int(nvml.nvmlDeviceGetMaxClockInfo(handle, CLOCK_MEMORY))),
            slowed=self._slowdowns(handle),
        )

    def _ask(self, read: Callable[[], T]) -> T | None:
        try:
            return read()
        except (self._nvml.NVMLError, AttributeError):  # an older pynvml lacks the newer calls
            return None


def slowdowns(bits: int) -> list[str]:
    """NVML's bits in words, the gravest first. The general bit of the hardware adds nothing to what it is for."""
    found = [word for bit, word in SLOWDOWNS.items() if bits & bit]
    if len(found) > 1 and bits & (0x40 | 0x80):
        found = [word for word in found if word != SLOWDOWNS[0x08]]
    return list(dict.fromkeys(found))


def own_reading(reader: GpuReader, card: int | None) -> dict[str, Any]:
    """What a process sees of itself: its `rss` and its `device` with `uuid`; `card` counts those it may use."""
    from acrf_engine.run.devices import visible_gpus

    reading: dict[str, Any] = {"rss": _resident(os.getpid())}
    own = [gpu for gpu in visible_gpus(reader) if gpu.index == card] if card is not None else []
    for device in reader.devices() if own else []:
        if device.index == own[0].number:
            known = {name: value for name, value in asdict(device).items() if value is not None}
            reading["device"] = {"uuid": own[0].uuid, **known}
    return reading


def _with_ranks(
    reader: GpuReader, devices: list[Device], readings: Mapping[int, dict[str, Any]]
) -> tuple[list[Device], list[dict[str, Any]]]:
    """The cards of this box with their ranks, then those of other boxes; and the ranks themselves."""
    here = socket.gethostname()
    owners = {one["device"]["uuid"]: rank for rank, one in readings.items() if one.get("device")}
    marked = [
        replace(device, rank=owners.get(reader.uuid(device.index) or f"GPU-{device.index}")) for device in devices
    ]
    names = {field.name for field in fields(Device)}
    for rank, one in sorted(readings.items()):
        if one["host"] != here and (found := one.get("device")):
            seen: dict[str, Any] = {name: value for name, value in found.items() if name in names}
            marked.append(Device(**{**seen, "rank": rank, "host": one["host"]}))
    keys = ("rank", "host", "pid", "rss")
    return marked, [{key: one.get(key) for key in keys} for _, one in sorted(readings.items())]


def sample(
    reader: GpuReader,
    worker_pid: int | None,
    elapsed_s: float | None = None,
    readings: Mapping[int, dict[str, Any]] | None = None,
) -> Hardware:
    """One sample of the machine; all memory in bytes. `readings`: of several processes, by rank; see RankReadings."""
    memory = psutil.virtual_memory()
    devices = reader.devices()
    ranks: list[dict[str, Any]] = []
    if readings:
        devices, ranks = _with_ranks(reader, devices, readings)
    return fitted(
        Hardware(
            devices=devices,
            ranks=ranks,
            note=reader.note,
            worker_rss=_resident(worker_pid),
            ram_used=memory.total - memory.available,
            ram_total=memory.total,
            elapsed_s=elapsed_s,
        )
    )


def fitted(hardware: Hardware) -> Hardware:
    """The sample as one event, of which SPARE readings are left out where there are too many cards for it."""
    for name in SPARE:
        if _fits(hardware):
            return hardware
        without: dict[str, Any] = {name: None}
        hardware = replace(hardware, devices=[replace(device, **without) for device in hardware.devices])
    if not _fits(hardware):
        hardware = replace(hardware, ranks=[])
    shown = hardware
    while not _fits(shown):
        shown = replace(shown, devices=shown.devices[:-1])
        shown = replace(shown, note=f"{len(hardware.devices) - len(shown.devices)} more GPUs are not shown.")
    return shown


def _fits(hardware: Hardware) -> bool:
    stamped = replace(hardware, seq=10**12, time=1e10 + 0.123456)
    return len(encode(to_wire(stamped)).encode()) < MAX_EVENT_BYTES


def _resident(pid: int | None) -> int | None:
    if pid is None:
        return None
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return None


def _import_nvml() -> Any | None:
    try:
        return importlib.import_module("pynvml")
    except ImportError:
        return None
