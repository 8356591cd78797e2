"""A step's numbers, fetched from the device in one go."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from acrf_engine.method.part import Part
from acrf_engine.method.step import MicroStep
from acrf_engine.training.ranks import Ranks


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
    def of(cls, micros: list[MicroStep], grad_norm: Tensor, ranks: Ranks, slots: int) -> Measured:
        """Of all ranks together, and the same on all of them. Waits for the device.

        `slots`: the most pictures that a rank has in a micro-batch.
        """
        if ranks.several:
            micros = _of_all(micros, ranks, slots)
        rows = [torch.stack([m.loss.detach(), m.char_B.mean(), m.cos_B.mean(), m.fft_B.mean()]) for m in micros]
        if isinstance(grad_norm, DTensor):  # fsdp2 leaves each rank with its part
            grad_norm = grad_norm.full_tensor()
        fetched: list[float] = torch.cat([*rows, *(m.composite_B for m in micros), grad_norm[None]]).tolist()
        *losses, norm = fetched[4 * len(micros) :]
        loss, char, cos, fft = (sum(fetched[part : 4 * len(micros) : 4]) / len(micros) for part in range(4))
        return cls(
            loss,
            char,
            cos,
            fft,
            norm,
            torch.cat([m.sigma_B for m in micros]).tolist(),
            torch.cat([m.anchor_B for m in micros]).tolist(),
            torch.cat([m.weight_B for m in micros]).tolist(),
            losses,
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


def _of_all(micros: list[MicroStep], ranks: Ranks, slots: int) -> list[MicroStep]:
    """The micro-steps as one process would have measured them, from what each rank measured of its pictures."""
    ours = torch.zeros(len(micros), slots + 1, 4, device=micros[0].loss.device)
    for row, micro in zip(ours, micros, strict=True):
        row[0, 0] = micro.loss.detach()
        pictures = torch.stack([micro.composite_B, micro.char_B, micro.cos_B, micro.fft_B], dim=1)
        row[1 : 1 + len(pictures)] = pictures
    every = ranks.gathered(ours)
    whole = []
    for index, micro in enumerate(micros):
        parts = [Part.of(len(micro.anchor_B), rank, ranks.count) for rank in range(ranks.count)]
        rows = torch.cat(
            [every[rank, index, 1 : 1 + part.stop - part.start] for rank, part in enumerate(parts) if not part.idle]
        )
        composite_B, char_B, cos_B, fft_B = rows.unbind(1)
        loss = every[:, index, 0, 0].mean()
        whole.append(replace(micro, loss=loss, composite_B=composite_B, char_B=char_B, cos_B=cos_B, fft_B=fft_B))
    return whole
