"""The numbers of a run's steps as columns of float64, as the store keeps them and the charts draw them."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field

STEP_COLUMNS = (
    "step",
    "time",
    "epoch",
    "loss",
    "loss_char",
    "loss_cos",
    "loss_fft",
    "loss_balanced",
    "lr",
    "grad_norm",
    "step_time_s",
)


def _column() -> array[float]:
    return array("d")


@dataclass
class StepColumns:
    """The steps of a run as columns of float64, one entry per step; NaN where a number was not finite."""

    step: array[float] = field(default_factory=_column)
    time: array[float] = field(default_factory=_column)
    epoch: array[float] = field(default_factory=_column)
    loss: array[float] = field(default_factory=_column)
    loss_char: array[float] = field(default_factory=_column)
    loss_cos: array[float] = field(default_factory=_column)
    loss_fft: array[float] = field(default_factory=_column)
    loss_balanced: array[float] = field(default_factory=_column)
    lr: array[float] = field(default_factory=_column)
    grad_norm: array[float] = field(default_factory=_column)
    step_time_s: array[float] = field(default_factory=_column)

    def extend(self, other: StepColumns) -> None:
        """Append the rows of `other`."""
        for name in STEP_COLUMNS:
            getattr(self, name).extend(getattr(other, name))
