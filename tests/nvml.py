"""A stand-in for the pynvml module, for any number of cards in any condition."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

GIB = 2**30


BY_KIND = ("nvmlDeviceGetClockInfo", "nvmlDeviceGetMaxClockInfo")
"""Calls that are asked for one of several kinds: a card holds a value for each."""


class NVMLError(Exception):
    pass


class Nvml:
    """Answers like the pynvml module, for `cards`; a missing value answers NOT_SUPPORTED."""

    NVMLError = NVMLError
    NVML_TEMPERATURE_GPU = 0
    NVML_CLOCK_SM, NVML_CLOCK_MEM = 1, 2

    def __init__(self, *cards: dict[str, Any], init_error: str = "") -> None:
        self._cards = cards
        self._init_error = init_error

    def nvmlInit(self) -> None:  # noqa: N802  (pynvml's own names)
        if self._init_error:
            raise NVMLError(self._init_error)

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802  (pynvml's own names)
        return len(self._cards)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> dict[str, Any]:  # noqa: N802  (pynvml's own names)
        return self._cards[index]

    def __getattr__(self, name: str) -> Any:
        def ask(handle: dict[str, Any], *which: Any) -> Any:
            if name not in handle:
                raise NVMLError("Not Supported")
            found = handle[name]
            return found[which[0]] if name in BY_KIND else found

        return ask


def card(name: str, used: int, temperature: int, slowed: int = 0) -> dict[str, Any]:
    """A card that reports all; `slowed`: bits of the clocks event reasons."""
    return {
        "nvmlDeviceGetName": name,
        "nvmlDeviceGetMemoryInfo": SimpleNamespace(used=used, total=24 * GIB),
        "nvmlDeviceGetUtilizationRates": SimpleNamespace(gpu=97),
        "nvmlDeviceGetPowerUsage": 412_500,
        "nvmlDeviceGetEnforcedPowerLimit": 450_000,
        "nvmlDeviceGetTemperature": temperature,
        "nvmlDeviceGetClockInfo": {1: 2520, 2: 10_251},
        "nvmlDeviceGetMaxClockInfo": {1: 3105, 2: 10_501},
        "nvmlDeviceGetCurrentClocksEventReasons": slowed,
    }
