"""Tensors on their way from the CPU to the training device, without a wait for what the device still computes."""

from __future__ import annotations

import torch
from torch import Tensor


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on `device`; the same one where it is there already.

    A copy from ordinary memory to a GPU waits until the GPU has done all that it was given. From pinned memory it is
    queued behind that work, and torch keeps the pinned copy until it has been read.
    """
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=device.type != "mps")  # MPS would read ordinary memory later
