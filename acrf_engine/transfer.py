"""Tensors on their way to the device."""

from __future__ import annotations

import torch
from torch import Tensor


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """`tensor` on `device`. A copy to a GPU waits for nothing that the GPU has to do before it."""
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    # From pageable memory even a non-blocking copy waits; pinned memory is kept by torch until the copy is done.
    return tensor.pin_memory().to(device, non_blocking=True)
