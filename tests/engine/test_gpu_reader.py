"""The GPU reader against NVML stand-ins: no driver, two cards, a hot and full one, and one that reports little."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from acrf_engine.run.hardware import NO_GPU, GpuReader, sample

GIB = 2**30


class NVMLError(Exception):
    pass


class Nvml:
    """Answers like the pynvml module, for `cards`; a missing value answers NOT_SUPPORTED."""

    NVMLError = NVMLError
    NVML_TEMPERATURE_GPU = 0

    def __init__(self, *cards: dict[str, Any], init_error: str = "") -> None:
        self._cards = cards
        self._init_error = init_error

    def nvmlInit(self) -> None:  # noqa: N802  (pynvml's own names)
        if self._init_error:
            raise NVMLError(self._init_error)

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return len(self._cards)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> dict[str, Any]:  # noqa: N802
        return self._cards[index]

    def __getattr__(self, name: str) -> Any:
        def ask(handle: dict[str, Any], *_: Any) -> Any:
            if name not in handle:
                raise NVMLError("Not Supported")
            return handle[name]

        return ask


def card(name: str, used: int, temperature: int) -> dict[str, Any]:
    return {
        "nvmlDeviceGetName": name,
        "nvmlDeviceGetMemoryInfo": SimpleNamespace(used=used, total=24 * GIB),
        "nvmlDeviceGetUtilizationRates": SimpleNamespace(gpu=97),
        "nvmlDeviceGetPowerUsage": 412_500,
        "nvmlDeviceGetEnforcedPowerLimit": 450_000,
        "nvmlDeviceGetTemperature": temperature,
    }


def test_two_cards_are_read_in_bytes_degrees_percent_and_watts() -> None:
    first, second = GpuReader(Nvml(card("RTX 4090", 17 * GIB, 66), card("RTX 3090", 24 * GIB, 91))).devices()
    assert (first.name, first.memory_used, first.memory_total) == ("RTX 4090", 17 * GIB, 24 * GIB)
    assert (first.temperature, first.utilisation, first.power, first.power_limit) == (66, 97, 412.5, 450.0)
    assert (second.index, second.memory_used, second.temperature) == (1, 24 * GIB, 91)


def test_what_a_card_does_not_support_is_none_and_the_rest_is_there() -> None:
    (device,) = GpuReader(Nvml({"nvmlDeviceGetName": b"Tesla M40", "nvmlDeviceGetTemperature": 50})).devices()
    assert (device.name, device.temperature) == ("Tesla M40", 50)
    assert (device.memory_used, device.utilisation, device.power) == (None, None, None)


def test_a_card_that_answers_nothing_still_has_its_line() -> None:
    (device,) = GpuReader(Nvml({})).devices()
    assert device.name == "GPU 0"


def test_a_machine_without_a_driver_says_so_in_a_sentence() -> None:
    reader = GpuReader(Nvml(init_error="NVML Shared Library Not Found"))
    assert reader.devices() == []
    assert reader.note == NO_GPU
    assert sample(reader, None).note == NO_GPU


def test_a_broken_driver_is_named_and_not_taken_for_no_gpu() -> None:
    reader = GpuReader(Nvml(init_error="Driver/library version mismatch"))
    assert "Driver/library version mismatch" in reader.note


def test_a_sample_tells_the_memory_of_the_machine() -> None:
    hardware = sample(GpuReader(Nvml()), None)
    assert hardware.ram_total is not None
    assert hardware.ram_used is not None
    assert 0 < hardware.ram_used < hardware.ram_total
