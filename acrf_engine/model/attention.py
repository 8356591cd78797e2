"""The attention backend, by diffusers' dispatcher."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path
from typing import Any

from acrf_engine.model.layout import ModelError

NATIVE = "native"


def backend_names() -> list[str]:
    """The backends that the installed diffusers names; its file is read, since importing it takes seconds."""
    spec = importlib.util.find_spec("diffusers")
    folder = Path((spec.submodule_search_locations or [""])[0]) if spec else Path()
    tree = ast.parse((folder / "models" / "attention_dispatch.py").read_text(encoding="utf-8"))
    return [
        str(line.value.value)
        for found in tree.body
        if isinstance(found, ast.ClassDef) and found.name == "AttentionBackendName"
        for line in found.body
        if isinstance(line, ast.Assign) and isinstance(line.value, ast.Constant)
    ]


def require_backend(name: str) -> None:
    """Raises ModelError, with those that can train, where diffusers has no such backend."""
    if name != NATIVE and name not in (names := backend_names()):
        there = ", ".join(one for one in names if not one.startswith(("sage", "_sage")))
        raise ModelError(f"memory.attention: {name!r} is none of diffusers' backends ({there})")


def use_backend(transformer: Any, name: str) -> None:
    """Let every attention of the model go through the backend. Raises ModelError where it cannot run here."""
    if name == NATIVE:
        return
    require_backend(name)
    try:
        transformer.set_attention_backend(name)
    except (RuntimeError, ImportError, ValueError, OSError) as error:
        reason = str(error).strip().splitlines()[0][:300]
        raise ModelError(f"memory.attention: {name} cannot be used here ({reason})") from error
