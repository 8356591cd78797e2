"""GPU and memory readings. The NVML module is passed in, so that a test can be a machine with two hot cards."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, TypeVar

import psutil

from acrf_engine.protocol import Device, Hardware

T = TypeVar("T")

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
        )

    def _ask(self, read: Callable[[], T]) -> T | None:
        try:
            return read()
        except self._nvml.NVMLError:
            return None


def sample(reader: GpuReader, worker_pid: int | None, elapsed_s: float | None = None) -> Hardware:
    """One sample of the machine; all memory in bytes."""
    memory = psutil.virtual_memory()
    return Hardware(
        devices=reader.devices(),
        note=reader.note,
        worker_rss=_resident(worker_pid),
        ram_used=memory.total - memory.available,
        ram_total=memory.total,
        elapsed_s=elapsed_s,
    )


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
