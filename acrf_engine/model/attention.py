"""The attention backend, by diffusers' dispatcher: whether it can be used is known before anything is cached."""

from __future__ import annotations

import ast
import functools
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from acrf_engine.model.layout import ModelError

if TYPE_CHECKING:
    import torch

NATIVE = "native"
KEY = "memory.attention"
ON_CPU = (NATIVE, "_native_flash", "_native_math")
WITHOUT_MASK = (
    "flash", "flash_hub", "flash_4_hub", "_flash_3", "_flash_3_hub", "aiter_fa2_hub", "_native_flash", "_native_xla",
)  # fmt: skip
"""They take no mask, which captions of different lengths in one batch need."""
PACKAGES = {
    "flash": "flash_attn",
    "flash_varlen": "flash_attn",
    "_flash_3": "flash_attn_interface",
    "_flash_varlen_3": "flash_attn_interface",
    "xformers": "xformers",
    "_native_npu": "torch_npu",
    "_native_xla": "torch_xla",
}
HUB, HUB_PACKAGE = "_hub", "kernels"
TRIAL_TOKENS, TRIAL_HEAD = 64, 128
"""Tokens, and width of a head as the full-size model has it."""


@functools.cache
def backend_names() -> tuple[str, ...]:
    """The backends that the installed diffusers names; its file is read, since importing it takes seconds."""
    spec = importlib.util.find_spec("diffusers")
    folder = Path((spec.submodule_search_locations or [""])[0]) if spec else Path()
    tree = ast.parse((folder / "models" / "attention_dispatch.py").read_text(encoding="utf-8"))
    return tuple(
        str(line.value.value)
        for found in tree.body
        if isinstance(found, ast.ClassDef) and found.name == "AttentionBackendName"
        for line in found.body
        if isinstance(line, ast.Assign) and isinstance(line.value, ast.Constant)
    )


def require_backend(name: str, *, on_gpu: bool = True, batch_size: int = 1) -> None:
    """Raises ModelError where a run cannot use the backend, as far as that is known without torch."""
    if name == NATIVE:
        return
    if name not in (names := backend_names()):
        there = ", ".join(one for one in names if not one.startswith(("sage", "_sage")))
        raise ModelError(f"{KEY}: {name!r} is none of diffusers' backends ({there})")
    if not on_gpu and name not in ON_CPU:
        raise ModelError(f"{KEY}: {name} cannot train on a CPU (use one of {', '.join(ON_CPU)})")
    if batch_size > 1 and name in WITHOUT_MASK:
        raise ModelError(
            f"{KEY}: {name} takes no mask, and captions of different lengths in one batch need one (use {NATIVE}, or "
            "batch_size 1 with more gradient_accumulation)"
        )
    package = HUB_PACKAGE if name.endswith(HUB) else PACKAGES.get(name)
    if package is not None and importlib.util.find_spec(package) is None:
        raise ModelError(f"{KEY}: {name} needs the package {package}, which is not installed (install it, or {NATIVE})")


def try_backend(name: str, device: torch.device, dtype: torch.dtype, batch_size: int) -> None:
    """Let the backend attend to a few tokens, and back, on the device. Raises ModelError where it cannot."""
    if name == NATIVE:
        return
    require_backend(name, on_gpu=device.type != "cpu", batch_size=batch_size)
    import torch
    from diffusers import attention_backend
    from diffusers.models.attention_dispatch import dispatch_attention_fn

    tokens = TRIAL_TOKENS
    q, k, v = (torch.zeros(1, tokens, 1, TRIAL_HEAD, device=device, dtype=dtype, requires_grad=True) for _ in "qkv")
    mask = torch.ones(1, 1, 1, tokens, dtype=torch.bool, device=device) if batch_size > 1 else None
    try:
        with attention_backend(name):
            dispatch_attention_fn(q, k, v, attn_mask=mask).sum().backward()
    except Exception as error:  # whatever its package raises, it cannot train here
        raise ModelError(f"{KEY}: {name} cannot be used here ({first_line(error)})") from error


def use_backend(transformer: Any, name: str) -> None:
    """Let every attention of the model go through the backend. Raises ModelError where it cannot run here.

    Torch's own is set too: diffusers keeps what another model, or DIFFUSERS_ATTN_BACKEND, has set for the process.
    """
    if name != NATIVE:
        require_backend(name)
    try:
        transformer.set_attention_backend(name)
    except (RuntimeError, ImportError, ValueError, OSError) as error:
        raise ModelError(f"{KEY}: {name} cannot be used here ({first_line(error)})") from error


def first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:300]
