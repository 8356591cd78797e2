"""From enter to the first step of the demo with a warm cache, beside the time that Python needs for its imports."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.live import APP, median_with_interval
from benchmarks.table import row

IMPORTS = """
import torch
from diffusers.models.transformers.transformer_z_image import ZImageTransformer2DModel
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
"""
PAIRS, QUICK_PAIRS = 9, 2


def measure(quick: bool = False) -> Iterator[dict[str, Any]]:
    """Rows of the table."""
    with tempfile.TemporaryDirectory(prefix="acrf-start-") as place:
        environment = {**os.environ, "XDG_CACHE_HOME": str(Path(place, "cache"))}
        _until_first_step(Path(place), "cold", environment)  # fills the cache
        steps, imports = [], []
        for number in range(QUICK_PAIRS if quick else PAIRS):
            imports.append(_importing())
            steps.append(_until_first_step(Path(place), f"warm-{number}", environment))
    how = (
        "The imports are torch, the transformer's class and the scheduler's; the first step is a headless demo's, "
        "from the start of its process to the line that tells the step. They take turns."
    )
    ratio, text = median_with_interval([ours / theirs for ours, theirs in zip(steps, imports, strict=True)])
    yield row("start: demo until its first step, warm cache / imports", text, ratio, "1.5", ratio <= 1.5, how)
    yield row("start: demo until its first step", f"{statistics.median(steps):.1f} s", statistics.median(steps))
    yield row("start: imports alone", f"{statistics.median(imports):.1f} s", statistics.median(imports))


def _importing() -> float:
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-P", "-c", IMPORTS], check=True, stderr=subprocess.DEVNULL)
    return time.perf_counter() - begun


def _until_first_step(place: Path, name: str, environment: dict[str, str]) -> float:
    begun = time.perf_counter()
    command = [*APP, "demo", "--headless", "--json", "--steps", "1", "--runs", str(place), "--name", name]
    taken = 0.0
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment, text=True
    ) as headless:
        assert headless.stdout is not None
        for line in headless.stdout:  # to the end: the run leaves by itself
            if not taken and json.loads(line)["type"] == "step":
                taken = time.perf_counter() - begun
    if not taken:
        raise RuntimeError(f"the demo ended without a step (exit {headless.returncode})")
    return taken
