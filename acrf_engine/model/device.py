"""Where and in what a model computes: device and dtype by the card at hand."""

from __future__ import annotations

import gc

import torch

from acrf_engine.model.layout import ModelError


def choose_device(wanted: str) -> torch.device:
    """The training device of `memory.device`. Raises ModelError where what is asked for is not there."""
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if wanted.startswith("cuda") and not cuda:
        raise ModelError(f"memory.device: {wanted} is asked for, but torch sees no GPU here (use auto or cpu)")
    if wanted == "mps" and not mps:
        raise ModelError("memory.device: mps is asked for, but torch has no Metal here (use auto or cpu)")
    if wanted == "cpu":
        return torch.device("cpu")
    if wanted != "mps" and cuda:
        return torch.device("cuda")  # of `cuda:N` the supervisor has made the only card that this process sees
    return torch.device("mps" if mps else "cpu")


def choose_dtype(wanted: str, device: torch.device) -> torch.dtype:
    """In what the frozen base computes: `auto` is bf16 on a GPU, and fp32 on a CPU, which has no fast bf16."""
    if wanted == "auto":
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    return {"bf16": torch.bfloat16, "fp32": torch.float32}[wanted]


def slow_dtype(dtype: torch.dtype, device: torch.device) -> str:
    """What to tell the user where the card only emulates this dtype; empty where it computes in it."""
    if device.type != "cuda" or dtype != torch.bfloat16 or torch.cuda.is_bf16_supported(including_emulation=False):
        return ""
    return (
        f"{torch.cuda.get_device_name()} has no bf16 of its own and emulates it: steps are slow (fp16 is no way out, "
        "Z-Image overflows in it; fp32 takes twice the memory)"
    )


def hold_to(vram_gib: float | None, device: torch.device) -> None:
    """Let torch take no more than so much of the card. Raises ModelError where the card has less, or there is none."""
    if vram_gib is None:
        return
    if device.type != "cuda":
        raise ModelError(f"memory.vram: a run on {device.type} cannot be held to it, only one on CUDA (remove it)")
    total = torch.cuda.get_device_properties(device).total_memory
    if vram_gib * 2**30 > total:
        raise ModelError(f"memory.vram: {vram_gib:g} GiB are asked for, the card has {total / 2**30:.1f}")
    torch.cuda.set_per_process_memory_fraction(vram_gib * 2**30 / total, device)


def free_memory() -> None:
    """Give back what dropped models held."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    elif torch.backends.mps.is_available():
        torch.mps.empty_cache()
