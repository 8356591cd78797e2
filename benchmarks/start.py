"""From enter to the first step of the demo with a warm cache, beside what Python needs to import what it uses."""

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

PAIRS, QUICK_PAIRS = 9, 2
BOUND = 1.5
IMPORTS = """
import torch
from diffusers.models.transformers.transformer_z_image import ZImageTransformer2DModel
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
"""
"""torch, and the model classes that a run with a warm cache builds, by their submodules."""
HOW = (
    "The demo is started headless, process and all, and its first step is when the line that tells it comes; the "
    "imports are a Python that does nothing else. Both in turn, byte code on disk, latents and captions in the cache."
)


def measure(quick: bool = False) -> Iterator[dict[str, Any]]:
    """Rows of the table."""
    with tempfile.TemporaryDirectory(prefix="acrf-bench-") as place:
        environment = {
            **os.environ, "XDG_CACHE_HOME": f"{place}/cache", "XDG_STATE_HOME": f"{place}/state",
            "ACRF_RUNS": f"{place}/runs", "PYTHONDONTWRITEBYTECODE": "",
        }  # fmt: skip
        first_step_s(Path(place), environment)  # fills the cache, and writes the byte code
        imports_s(environment)
        pairs = [
            (first_step_s(Path(place), environment), imports_s(environment))
            for _ in range(QUICK_PAIRS if quick else PAIRS)
        ]
    ratio, text = median_with_interval([ours / theirs for ours, theirs in pairs])
    yield row("start: enter to first step, demo / importing what it uses", text, ratio, f"{BOUND}", ratio <= BOUND, HOW)
    for name, index in (("start: enter to first step, demo, warm cache", 0), ("start: importing what it uses", 1)):
        seconds = statistics.median(pair[index] for pair in pairs)
        yield row(name, f"{seconds:.2f} s", seconds)


def imports_s(environment: dict[str, str]) -> float:
    """Seconds of a Python that imports torch and the model classes."""
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", IMPORTS], env=environment, capture_output=True, check=True)
    return time.perf_counter() - begin


def first_step_s(place: Path, environment: dict[str, str]) -> float:
    """Seconds from the start of the command to the demo's first step; the run is over when this returns."""
    command = [*APP, "demo", "--headless", "--json", "--steps", "1"]
    with (place / "words").open("w", encoding="utf-8") as words:
        begin = time.perf_counter()
        demo = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=words, text=True)
        assert demo.stdout is not None
        came = None
        for line in demo.stdout:
            if came is None and json.loads(line)["type"] == "step":
                came = time.perf_counter() - begin
        status = demo.wait()
    if came is None or status:
        raise RuntimeError(f"the demo ended with {status}: {(place / 'words').read_text(encoding='utf-8')[-500:]}")
    return came
