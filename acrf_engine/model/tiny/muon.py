"""The Muon optimizer for the hidden weights of a small network trained from nothing.

Each update is the momentum of a weight matrix with its singular values pushed towards 1 (a few Newton-Schulz steps).
At this size it needs a fraction of AdamW's steps. Embeddings, norms, biases and the first and last layers of a network
do not belong in it: give those to AdamW.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

MOMENTUM = 0.95


class Muon(torch.optim.Optimizer):
    """Muon with Nesterov momentum; convolution kernels count as matrices `[out, in * height * width]`."""

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float = 0.02, weight_decay: float = 0.01) -> None:
        super().__init__(list(parameters), {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # no closure here
        """Update every parameter that has a gradient; `closure` is not used."""
        for group in self.param_groups:
            for alike in _by_shape(group["params"]):
                self._update(alike, group["lr"], group["weight_decay"])

    def _update(self, alike: list[nn.Parameter], lr: float, weight_decay: float) -> None:
        """One step for parameters of the same shape, orthogonalised together."""
        directions = []
        for parameter in alike:
            momentum = self.state[parameter].setdefault("momentum", torch.zeros_like(parameter))
            gradient = parameter.grad
            assert gradient is not None
            momentum.mul_(MOMENTUM).add_(gradient)
            directions.append(gradient.add(momentum, alpha=MOMENTUM).flatten(1))
        rows, columns = directions[0].shape
        scale = lr * max(1.0, rows / columns) ** 0.5
        for parameter, direction in zip(alike, orthogonalise(torch.stack(directions)), strict=True):
            parameter.mul_(1 - lr * weight_decay).add_(direction.view_as(parameter), alpha=-scale)


def _by_shape(parameters: list[nn.Parameter]) -> list[list[nn.Parameter]]:
    groups: dict[torch.Size, list[nn.Parameter]] = {}
    for parameter in parameters:
        if parameter.grad is not None:
            groups.setdefault(parameter.flatten(1).shape, []).append(parameter)
    return list(groups.values())


def orthogonalise(matrices: Tensor, steps: int = 5) -> Tensor:
    """Matrices `[N, rows, columns]` with the same singular vectors and singular values of roughly 1 (0.7 to 1.2).

    Computed in bfloat16, whose rounding is far below that spread; given back in the type of `matrices`.
    """
    tall = matrices.shape[1] > matrices.shape[2]
    x = (matrices.mT if tall else matrices).bfloat16()
    x = x / (x.flatten(1).norm(dim=1)[:, None, None] + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = 3.4445 * x + (2.0315 * gram @ gram - 4.7750 * gram) @ x
    return (x.mT if tall else x).to(matrices.dtype)
