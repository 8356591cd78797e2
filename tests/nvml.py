"""A stand-in for the pynvml module, for any number of cards in any condition."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

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

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802  (pynvml's own names)
        return len(self._cards)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> dict[str, Any]:  # noqa: N802  (pynvml's own names)
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
