"""Rows of measurements: printed, kept as JSON with where and on what they were measured, and as the page for users."""

from __future__ import annotations

import json
import os
import platform
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
    "engine": "The engine",
    "data": "The data",
}
INTRODUCTION = """# What it costs

Written by `make bench` from `benchmarks/results/`; no figure on this page was typed. Most figures are ratios to
something measured in the same run, or shares of the clock, so that they mean something on another machine too. A bound
is what we hold ourselves to; *(reported)* has none. Brackets are 95 % intervals of the median. Trainings are real ones,
of the tiny model that ships; the terminal is a pseudo-terminal of 120 x 40 on which every byte is counted.
"""


def row(
    what: str, measured: str, value: float, bound: str = REPORTED, ok: bool = True, how: str = ""
) -> dict[str, Any]:
    """One measurement: its text and its number, what it may be, whether it is, and how it was taken."""
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
    """Rows as JSON."""
    return json.dumps({"machine": machine(), "rows": rows}, indent=1) + "\n"


def results_file(name: str) -> Path:
    """Where the rows of a benchmark are kept, one file for each kind of machine."""
    return RESULTS / f"{name}-cpu-{os.cpu_count()}-cores.json"


def page(files: list[Path]) -> str:
    """The page for users, of the rows in these files."""
    parts = [INTRODUCTION]
    for name, title in TITLES.items():
        for file in sorted(file for file in files if file.name.startswith(f"{name}-")):
            body = json.loads(file.read_text(encoding="utf-8"))
            parts.append(f"## {title}\n\n{_where(body['machine'])}\n\n{_table(body['rows'])}")
            if notes := list(dict.fromkeys(one["how"] for one in body["rows"] if one.get("how"))):
                parts.append("How:\n\n" + "\n".join(f"- {note}" for note in notes) + "\n")
    return "\n".join(parts)


def _where(machine: dict[str, Any]) -> str:
    day = time.strftime("%Y-%m-%d", time.gmtime(machine["time"]))
    cores = f"{machine['cores']} cores of {machine['cpu']}" if "cores" in machine else machine["machine"]
    commit = f", commit {machine['commit']}" if machine.get("commit") else ""
    return f"Measured on {cores}, no GPU, Python {machine['python']}{commit}, {day}."


def _table(rows: list[dict[str, Any]]) -> str:
    lines = ["| what | measured | bound | holds |", "|---|---:|---:|---|"]
    for one in rows:
        holds = "" if one["bound"] == REPORTED else "yes" if one["ok"] else "**no**"
        lines.append(f"| {one['what']} | {one['measured']} | {one['bound']} | {holds} |")
    return "\n".join(lines) + "\n"
