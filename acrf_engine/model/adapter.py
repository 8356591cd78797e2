"""A LoRA as what it does to weights, whatever file or training it comes from.

Every scale (alpha / rank, alpha / sqrt(rank)) is folded into `up`, so that the change of a weight is `up @ down`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from acrf_engine.model.errors import LoraError

SAME_EFFECT = 1e-5


@dataclass(frozen=True)
class Factors:
    """The change of one module's weight W [out, in].

    Without `magnitude`, W becomes W + up @ down. With it (DoRA) each row of that is brought to the length that
    `magnitude` says.
    """

    down_RI: Tensor
    up_OR: Tensor
    magnitude_O: Tensor | None = None

    @property
    def rank(self) -> int:
        return self.down_RI.shape[0]

    @property
    def shape(self) -> tuple[int, int]:
        """Of the weight: (out, in)."""
        return self.up_OR.shape[0], self.down_RI.shape[1]

    def delta(self) -> Tensor:
        """The low-rank change of the weight, float32 [out, in]; with DoRA the one of the direction."""
        return self.up_OR.float() @ self.down_RI.float()

    def applied(self, weight_OI: Tensor, strength: float = 1.0) -> Tensor:
        """The changed weight, float32. Only at strength 1 a DoRA's rows have exactly the lengths it learned."""
        base = weight_OI.float()
        if self.magnitude_O is None:
            return base + strength * self.delta()
        changed = base + self.delta()
        changed = changed * (self.magnitude_O.float() / torch.linalg.norm(changed, dim=1))[:, None]
        return changed if strength == 1.0 else base + strength * (changed - base)


Lora = dict[str, Factors]
"""Factors by the module's name in the diffusers transformer, such as layers.0.attention.to_q."""


def from_training(tensors: dict[str, Tensor], scale: float) -> Lora:
    """The LoRA of `acrf_engine.model.lora.weights`, in float32 on the CPU."""
    modules = dict.fromkeys(name.partition(".lora_")[0] for name in tensors)
    values = {name: value.detach().float().cpu() for name, value in tensors.items()}
    return {
        module: Factors(
            values[f"{module}.lora_A.weight"],
            values[f"{module}.lora_B.weight"] * scale,
            values.get(f"{module}.lora_magnitude_vector"),
        )
        for module in modules
    }


def is_dora(lora: Lora) -> bool:
    return any(factors.magnitude_O is not None for factors in lora.values())


def require_same_effect(found: Lora, wanted: Lora, tolerance: float = SAME_EFFECT) -> None:
    """Raises LoraError, naming the module, where the two change a weight differently by more than `tolerance`."""
    if missing := wanted.keys() ^ found.keys():
        raise LoraError(f"{len(missing)} modules are in only one of the two, first {min(missing)}")
    for module, expected in wanted.items():
        difference = effect_difference(found[module], expected)
        if not difference <= tolerance:
            raise LoraError(f"{module}: its effect differs by {difference:.2g} of its size")


def effect_difference(a: Factors, b: Factors) -> float:
    """Size of the difference of the two changes over the size of the second (Frobenius); infinite where unlike.

    Computed from the factors alone: the full matrices of a large model would take minutes.
    """
    if a.shape != b.shape or (a.magnitude_O is None) != (b.magnitude_O is None):
        return float("inf")
    difference = 0.0
    if not (torch.equal(a.down_RI, b.down_RI) and torch.equal(a.up_OR, b.up_OR)):
        up = torch.cat([a.up_OR.double(), -b.up_OR.double()], dim=1)
        down = torch.cat([a.down_RI.double(), b.down_RI.double()], dim=0)
        size = product_norm(b.up_OR, b.down_RI)
        difference = product_norm(up, down) / size if size else float(product_norm(up, down) > 0)
    if a.magnitude_O is not None and b.magnitude_O is not None:
        apart = torch.linalg.norm(a.magnitude_O.double() - b.magnitude_O.double())
        difference = max(difference, float(apart / torch.linalg.norm(b.magnitude_O.double())))
    return difference


def product_norm(up_OR: Tensor, down_RI: Tensor) -> float:
    """Frobenius norm of `up @ down`, without making the product: it is that of the product of two triangles."""
    left = torch.linalg.qr(up_OR.double(), mode="r").R
    right = torch.linalg.qr(down_RI.double().T, mode="r").R
    return float(torch.linalg.norm(left @ right.T))
