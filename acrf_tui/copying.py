"""What is worth copying: the command that goes on with a run, from any folder."""

from __future__ import annotations

import shlex
from pathlib import Path

from acrf_engine.protocol import RESUMABLE_STATES


def next_command(folder: Path, state: str) -> str:
    """What one would type next about the run in `folder`: watch it, resume it, or take its LoRA along."""
    run = shlex.quote(str(folder))
    if state in RESUMABLE_STATES:
        return f"acrf-tui resume {run}"
    if state == "finished":
        return f"acrf-tui export {run} --format comfyui --out {shlex.quote(f'{folder.name}.safetensors')}"
    return f"acrf-tui attach {run}"
