"""The preflight of a config, in a process of its own, and its report in rows. Nothing here draws."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from acrf_tui.panels import numbers
from acrf_tui.printable import printable, short_path
from acrf_tui.screens.launchpad_configs import Row, settings_rows

POLL_SECONDS = 0.05
PATIENCE_SECONDS = 120.0
LONGEST_SOURCE = 16_000


@dataclass(frozen=True, slots=True)
class Outlook:
    """What is known of a config: its settings, then the check's rows; `error` where it cannot run as it stands."""

    settings: Sequence[Row] = ()
    rows: Sequence[Row] = ()
    notes: Sequence[str] = ()
    buckets: Sequence[tuple[str, int]] = ()
    """Sizes that the pictures are trained at, and how many of each, the commonest first."""
    memory_share: float | None = None
    error: str = ""
    advice: str = ""
    """What to do about the error, where that is not in the file."""
    checking: bool = False
    source: Sequence[str] = ()
    """The lines of the file."""


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What the check said: its JSON report, or its error message."""

    report: dict[str, Any] = field(default_factory=dict)
    error: str = ""


def read_settings(path: Path) -> Outlook:
    """A config's settings, or its error. Loads the schema: not for the UI thread."""
    from acrf_engine.config import absolute, load_config
    from acrf_engine.yaml_source import ConfigError

    source = source_lines(path)
    try:
        config = load_config(path)
    except ConfigError as error:
        return Outlook(error=str(error), source=source)
    settings = settings_rows(config)
    try:
        absolute(config)
    except ConfigError as error:
        return Outlook(settings, error=str(error), source=source)
    return Outlook(settings, checking=True, source=source)


def source_lines(path: Path) -> list[str]:
    """The first lines of a file, tabs and control characters made harmless."""
    try:
        with path.open(encoding="utf-8-sig", errors="replace") as file:
            text = file.read(LONGEST_SOURCE)
    except OSError:
        return []
    return [printable(line) for line in text.expandtabs(4).splitlines()]


def run_check(config: Path, runs_dir: Path, cancelled: Callable[[], bool]) -> CheckResult | None:
    """Run the engine's check and wait for it; None when `cancelled` says that nobody wants to know any more."""
    from acrf_engine.run.client import supervisor_environment

    command = [sys.executable, "-P", "-m", "acrf_engine", "check", str(config), "--json", "--runs", str(runs_dir)]
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=supervisor_environment(),
        start_new_session=True,
    )
    end = time.monotonic() + PATIENCE_SECONDS
    while True:
        if cancelled() or time.monotonic() > end:
            process.kill()
            process.communicate()
            return None if cancelled() else CheckResult(error=f"the check took more than {PATIENCE_SECONDS:.0f} s")
        try:
            out, problems = process.communicate(timeout=POLL_SECONDS)
        except subprocess.TimeoutExpired:
            continue
        return _result(process.returncode, out, problems)


def _result(code: int, out: str, problems: str) -> CheckResult:
    if code == 0:
        try:
            return CheckResult(report=json.loads(out))
        except ValueError:
            return CheckResult(error="the check gave no readable report")
    said = [line.removeprefix("acrf-tui: ") for line in problems.splitlines() if line.startswith("acrf-tui: ")]
    last = problems.strip().splitlines()[-1:]
    return CheckResult(error="\n".join(said or last) or f"the check ended with status {code}")


def with_report(outlook: Outlook, result: CheckResult) -> Outlook:
    """The outlook when the check has answered."""
    if result.error:
        return replace(outlook, error=result.error, checking=False)
    report = result.report
    needed, card = int(report["memory_total"]), report["device_memory"]
    return replace(
        outlook,
        checking=False,
        rows=report_rows(report),
        notes=[*_without_caption(report), *_left_out(report), *report["notes"]],
        buckets=sorted(((size.replace("x", "×"), n) for size, n in report["buckets"].items()), key=lambda one: -one[1]),
        memory_share=needed / card if card else None,
    )


def report_rows(report: dict[str, Any]) -> list[Row]:
    """A check's report for people."""
    pictures, without = int(report["pictures"]), int(report["without_caption"])
    left_out, held_out = len(report["left_out"]), int(report.get("held_out", 0))
    captions = f"{without} without caption" if without else "each with a caption"
    parameters = int(report["trainable_parameters"])
    card = report["device_memory"]
    memory = f"about {size(report['memory_total'])}"
    memory += f" of the {size(card)} of {report['device']}" if card else f" of RAM, on the {report['device']}"
    parts = ", ".join(f"{name} {size(taken)}" for name, taken in report["memory"].items() if taken)
    return [
        (
            "pictures",
            f"{pictures}, {captions}"
            + (f", {left_out} left out" if left_out else "")
            + (f", {held_out} held out for validation" if held_out else ""),
        ),
        ("buckets", _buckets(report["buckets"])),
        ("steps", f"{report['steps']:,}, from {report['micro_batches_per_epoch']:,} micro-batches an epoch"),
        (
            "trains",
            f"{parameters:,} of {int(report['base_parameters']):,} parameters, a file of {size(parameters * 4)}",
        ),
        ("time", _time(report)),
        ("memory", memory),
        *([("", parts)] if parts else []),
        ("disk", f"about {size(report['disk_needed'])} of the {size(report['disk_free'])} free"),
    ]


def _buckets(buckets: dict[str, int]) -> str:
    common = sorted(buckets.items(), key=lambda item: -item[1])
    shown = [f"{name.replace('x', '×')} ({count})" for name, count in common[:6]]
    more = f" and {len(common) - 6} more" if len(common) > 6 else ""
    return ", ".join(shown) + more


def _time(report: dict[str, Any]) -> str:
    """How long the training will take; only where it was measured."""
    seconds = report.get("step_time_s")
    if seconds is None:
        return "not known before the first steps"
    total = numbers.remaining(seconds * int(report["steps"]))
    return f"about {total} ({seconds:.3g} s a step in run {printable(str(report['step_time_run']))})"


def _without_caption(report: dict[str, Any]) -> list[str]:
    names = [printable(name) for name in report.get("uncaptioned", [])]
    more = int(report["without_caption"]) - len(names)
    return [f"no caption: {', '.join(names)}" + (f" and {more} more" if more > 0 else "")] if names else []


def _left_out(report: dict[str, Any]) -> list[str]:
    items = report["left_out"]
    lines = [f"left out: {short_path(item['path'])}: {item['reason']}" for item in items[:20]]
    return lines + ([f"and {len(items) - 20} more left out"] if len(items) > 20 else [])


def size(value: float) -> str:
    """Bytes in the unit that keeps them readable."""
    for unit, bytes_of in (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20)):
        if value >= bytes_of * 0.95 or unit == "MiB":
            number = value / bytes_of
            return f"{number:.0f} {unit}" if number >= 100 else f"{number:.1f} {unit}"
    return ""


def remedy(error: str) -> str:
    """What to do about an error of a config, in one line."""
    found = re.search(r"(?:^|: )(dataset|model)\b", error)
    if found and found[1] == "dataset":
        return "Press n to choose your own picture folder for this config."
    if found:
        return "Press n to choose another model: tiny, a folder, or a hub id."
    return "Correct the file and save it: it is read again at once."
