"""Rows of measurements: printed, kept as JSON with where and on what they were measured, and as the page for users."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import time
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).parent.parent / "docs" / "performance.md"
REPORTED = "(reported)"
TITLES = {
    "app": "The app",
    "supervisor": "The supervisor",
    "start": "The start of a run",
    "engine": "The engine",
    "data": "The data",
    "gpu": "Full size on a GPU",
}
INTRODUCTION = """# What it costs

Written by `make bench` from `benchmarks/results/`; no figure on this page was typed. Most figures are ratios to
something measured in the same run, or shares of the clock, so that they mean something on another machine too. A bound
is what we hold ourselves to; *(reported)* has none. Brackets are 95 % intervals of the median. Trainings are real ones,
of the tiny model that ships; the terminal is a pseudo-terminal of 120 x 40 on which every byte is counted.
"""
NO_GPU = f"""## {TITLES["gpu"]}

Not measured: no GPU was at hand. `python -m benchmarks gpu --record` measures on one the architecture of full size with
random weights, at 512 and 1024 px, batch 1 and 4, in bf16, NF4, int8 and offloaded, with and without gradient
checkpointing and compiling, beside a plain loop of peft and diffusers, and writes the table here. With `--tiny` it goes
through the same cells on the tiny model and a CPU; a test does so.
"""


def row(
    what: str, measured: str, value: float | None, bound: str = REPORTED, ok: bool = True, how: str = ""
) -> dict[str, Any]:
    """One measurement: its text and its number (None: there is none), its bound, whether it holds, how it was taken."""
    found = {"what": what, "measured": measured, "value": value, "bound": bound, "ok": ok}
    return {**found, "how": how} if how else found


def printed(one: dict[str, Any]) -> str:
    """A row for the terminal."""
    verdict = "ok" if one["ok"] else "OVER"
    return f"{one['what']:62} {one['measured']:>24}   bound {one['bound']:<14} {verdict}"


def machine() -> dict[str, Any]:
    """On what it was measured."""
    cores = os.cpu_count() or 1
    name = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, cwd=Path(__file__).parent
    )
    return {
        "python": platform.python_version(), "machine": platform.machine(), "cores": cores, "cpu": name,
        "commit": described.stdout.strip(), "time": time.time(),
    }  # fmt: skip


def kept(rows: list[dict[str, Any]]) -> str:
    """Rows as JSON, the GPU that they name with the machine."""
    gpu = gpu_of(rows)
    rows = [{key: value for key, value in one.items() if key != "gpu"} for one in rows]
    return json.dumps({"machine": {**machine(), **({"gpu": gpu} if gpu else {})}, "rows": rows}, indent=1) + "\n"


def gpu_of(rows: list[dict[str, Any]]) -> str:
    """The GPU that the rows were measured on; empty for none."""
    return next((one["gpu"] for one in rows if one.get("gpu")), "")


def results_file(name: str, gpu: str = "") -> Path:
    """Where the rows of a benchmark are kept, one file for each kind of machine."""
    where = re.sub(r"[^a-z0-9]+", "-", gpu.lower()).strip("-") if gpu else f"cpu-{os.cpu_count()}-cores"
    return RESULTS / f"{name}-{where}.json"


def completed(file: Path, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows, after those of the file that were not measured again: a matrix may be measured in parts."""
    if not file.exists():
        return rows
    body = json.loads(file.read_text(encoding="utf-8"))
    again = {one["what"] for one in rows}
    gpu = {"gpu": body["machine"]["gpu"]} if "gpu" in body["machine"] else {}
    return [{**one, **gpu} for one in body["rows"] if one["what"] not in again] + rows


def page(files: list[Path]) -> str:
    """The page for users, of the rows in these files."""
    parts = [INTRODUCTION]
    for name, title in TITLES.items():
        for file in sorted(file for file in files if file.name.startswith(f"{name}-")):
            body = json.loads(file.read_text(encoding="utf-8"))
            parts.append(f"## {title}\n\n{_where(body['machine'])}\n\n{_table(body['rows'])}")
            if notes := list(dict.fromkeys(one["how"] for one in body["rows"] if one.get("how"))):
                parts.append("How:\n\n" + "\n".join(f"- {note}" for note in notes) + "\n")
    if not any(file.name.startswith("gpu-") for file in files):
        parts.append(NO_GPU)
    return "\n".join(parts)


def _where(machine: dict[str, Any]) -> str:
    day = time.strftime("%Y-%m-%d", time.gmtime(machine["time"]))
    cores = f"{machine['cores']} cores of {machine['cpu']}" if "cores" in machine else machine["machine"]
    commit = f", commit {machine['commit']}" if machine.get("commit") else ""
    return f"Measured on {cores}, {machine.get('gpu', 'no GPU')}, Python {machine['python']}{commit}, {day}."


def _table(rows: list[dict[str, Any]]) -> str:
    lines = ["| what | measured | bound | holds |", "|---|---:|---:|---|"]
    for one in rows:
        holds = "" if one["bound"] == REPORTED else "yes" if one["ok"] else "**no**"
        lines.append(f"| {one['what']} | {one['measured']} | {one['bound']} | {holds} |")
    return "\n".join(lines) + "\n"
