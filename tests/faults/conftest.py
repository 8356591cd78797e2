"""The fault suite: each test inflicts one fault on the real program, and its docstring says what counts as passed.

`make test` runs it with few trials and without the tests marked `full_only`; `make faults` runs all of it and writes
the table of docs/reliability.md.
"""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from nursery import golden as golden
from nursery import nursery as nursery

ROWS = pytest.StashKey[list["Row"]]()
STARTED = pytest.StashKey[float]()
ROW = pytest.StashKey["Row"]()
HEADER = """# What a run survives

Written by `make faults` (Python {python}, {cores} cores). Each row is one fault, inflicted on the real program: real
processes, signals, terminals and file systems. *Trials* is how often it was inflicted, *lost steps* the most optimizer
steps that had to be done again, *run* the commit and how long that run of the suite took. What counts as passed stands
in the docstring of the test.

| fault | trials | lost steps | verdict | run |
|---|---:|---:|---|---|
"""
LINE = re.compile(r"^\| (?!fault |---).*\|$", re.MULTILINE)

COSTS = Path(__file__).parents[2] / "benchmarks" / "results" / "supervisor-cpu-2-cores.json"
COSTS_HEADER = """
## What it costs

Measured on two cores without a GPU by `python -m benchmarks supervisor`; the rows are in `benchmarks/results/`.

| what | measured | bound |
|---|---:|---:|
"""


@dataclass
class Row:
    """One line of the table. `lost_steps` is the most steps done again after a trial; None where there are none."""

    fault: str
    trials: int = 1
    lost_steps: int | None = None
    verdict: str = ""
    criterion: str = ""
    test: str = ""


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "fault(name): the fault that this test inflicts, as docs/reliability.md names it"
    )
    config.addinivalue_line("markers", "full_only: left out of the quick run")
    config.stash[ROWS] = []
    config.stash[STARTED] = time.monotonic()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--faults") == "full":
        return
    left_out = [item for item in items if item.get_closest_marker("full_only")]
    items[:] = [item for item in items if item not in left_out]
    config.hook.pytest_deselected(items=left_out)


@pytest.fixture
def trials(request: pytest.FixtureRequest) -> Callable[[int, int], int]:
    """`trials(8, 200)`: how often to inflict the fault, in the quick and in the full suite."""
    full = request.config.getoption("--faults") == "full"
    return lambda few, many: many if full else few


@pytest.fixture
def row(request: pytest.FixtureRequest) -> Row:
    """This test's line of the table; the test fills in trials and lost steps."""
    marker = request.node.get_closest_marker("fault")
    assert marker is not None, "a test of a fault is marked with the fault's name"
    found = Row(marker.args[0], criterion=(request.node.function.__doc__ or "").strip(), test=request.node.nodeid)
    request.node.stash[ROW] = found
    return found


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report = yield
    marker = item.get_closest_marker("fault")
    if marker is None or (report.when != "call" and report.passed) or (report.when == "teardown"):
        return report
    found = item.stash.get(ROW, None) or Row(marker.args[0], test=item.nodeid)
    if hasattr(report, "wasxfail"):
        found.verdict = f"known: {report.wasxfail}"
    elif report.skipped:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        found.verdict = f"not tried: {reason.removeprefix('Skipped: ')}"
    else:
        found.verdict = "survived" if report.passed else "**FAILED**"
    item.config.stash[ROWS].append(found)
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    target = session.config.getoption("--fault-report")
    rows = session.config.stash[ROWS]
    if target and rows:
        page = Path(target)
        before = page.read_text(encoding="utf-8") if page.exists() else ""
        page.write_text(_page(rows, before, time.monotonic() - session.config.stash[STARTED]), encoding="utf-8")


def _page(rows: list[Row], before: str, seconds: float) -> str:
    """The page with these rows; of the page before, those of faults that were not tried now stay."""
    lines = dict.fromkeys(LINE.findall(before.partition("## What it costs")[0]))
    table = {line.split(" | ")[0].removeprefix("| "): line for line in lines}
    for row in _merged(rows):
        lost = "-" if row.lost_steps is None else str(row.lost_steps)
        when = f"{_commit()}, {seconds / 60:.0f} min"
        table[row.fault] = f"| {row.fault} | {row.trials} | {lost} | {row.verdict} | {when} |"
    return (
        HEADER.format(python=platform.python_version(), cores=os.cpu_count())
        + "\n".join(table.values())
        + "\n"
        + _costs()
    )


def _commit() -> str:
    """The commit that the tests ran on."""
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, cwd=Path(__file__).parent
    )
    return done.stdout.strip() or "unknown"


def _costs() -> str:
    """What the protection costs, as `python -m benchmarks supervisor` has measured it."""
    measured = json.loads(COSTS.read_text(encoding="utf-8"))["rows"]
    rows = [f"| {row['what']} | {row['measured']} | {row['bound']} |\n" for row in measured]
    return COSTS_HEADER + "".join(rows)


def _merged(rows: list[Row]) -> list[Row]:
    """Variants of one fault in one line: trials added up, the worst loss and the worst verdict."""
    merged: dict[str, Row] = {}
    for row in rows:
        kept = merged.setdefault(row.fault, Row(row.fault, trials=0, verdict=row.verdict))
        kept.trials += row.trials
        if row.lost_steps is not None:
            kept.lost_steps = max(row.lost_steps, kept.lost_steps or 0)
        if row.verdict != "survived":
            kept.verdict = row.verdict
    return list(merged.values())
