"""A step's numbers, fetched from the device in one go."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from acrf_engine.method.step import MicroStep


@dataclass(frozen=True)
class Measured:
    """A step's numbers as Python floats: means over its micro-batches, and lists with an entry per picture."""

    loss: float
    char: float
    cos: float
    fft: float
    grad_norm: float
    sigmas: list[float]
    anchors: list[int]
    weights: list[float]
    losses: list[float]

    @classmethod
    def of(cls, micros: list[MicroStep], grad_norm: Tensor) -> Measured:
        """Waits for the device."""
        rows = torch.stack(
            [torch.stack([m.loss.detach(), m.char_B.mean(), m.cos_B.mean(), m.fft_B.mean()]) for m in micros]
        )
        loss, char, cos, fft = rows.double().mean(0).tolist()
        return cls(
            loss,
            char,
            cos,
            fft,
            float(grad_norm),
            torch.cat([m.sigma_B for m in micros]).tolist(),
            torch.cat([m.anchor_B for m in micros]).tolist(),
            torch.cat([m.weight_B for m in micros]).tolist(),
            torch.cat([m.composite_B for m in micros]).tolist(),
        )

    def non_finite(self) -> list[str]:
        """What is not finite, in words for people."""
        numbers = {
            "loss": self.loss,
            "Char": self.char,
            "Cos": self.cos,
            "FFT": self.fft,
            "gradient norm": self.grad_norm,
        }
        return [f"{name} is {value}" for name, value in numbers.items() if not math.isfinite(value)]
