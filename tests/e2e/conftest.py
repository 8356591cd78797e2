"""The real program in processes of its own, and a reader of its event stream."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

PROGRAM = [sys.executable, "-m", "acrf_tui.cli"]
PATIENCE_S = 120

Body = dict[str, Any]


class Headless:
    """A headless run with --json: its events as they come, and its exit status."""

    def __init__(self, runs: Path, name: str, command: list[str]) -> None:
        self.folder = runs / name
        self.events: list[Body] = []
        self.words = runs / f"{name}-{time.monotonic_ns()}.stderr"
        with self.words.open("wb") as stderr:
            self.process = subprocess.Popen(
                [*PROGRAM, *command, "--headless", "--json", "--runs", str(runs)],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=stderr, text=True, cwd=runs,
            )  # fmt: skip

    def until(self, wanted: Callable[[Body], bool]) -> Body:
        """Read on to the first event that is wanted, and return it."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            body = json.loads(line)
            self.events.append(body)
            if wanted(body):
                return body
        raise AssertionError(f"the stream ended before that: {self.words.read_text()}")

    def until_step(self, step: int) -> Body:
        return self.until(lambda body: body["type"] == "step" and body["step"] >= step)

    def end(self) -> int:
        """Read to the end; the exit status."""
        assert self.process.stdout is not None
        self.events += [json.loads(line) for line in self.process.stdout]
        return self.process.wait(PATIENCE_S)

    def steps(self) -> list[int]:
        return [body["step"] for body in self.events if body["type"] == "step"]

    def of(self, kind: str) -> list[Body]:
        return [body for body in self.events if body["type"] == kind]

    def status(self) -> Body:
        return dict(json.loads((self.folder / "status.json").read_text()))

    def abandon(self) -> None:
        """Leave no process behind, whatever the test did."""
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
        with contextlib.suppress(OSError, ValueError):
            for key in ("supervisor_pid", "worker_pid"):
                if pid := self.status()[key]:
                    os.kill(pid, signal.SIGKILL)


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="session")
def start(runs: Path) -> Iterator[Callable[..., Headless]]:
    """Start `acrf-tui COMMAND ... --headless --json`; `name` is the run's."""
    started: list[Headless] = []

    def starter(name: str, *command: str) -> Headless:
        named = [] if command[0] == "resume" else ["--name", name]
        run = Headless(runs, name, [*command, *named])
        started.append(run)
        return run

    yield starter
    for run in started:
        run.abandon()


@pytest.fixture(scope="session")
def cli(runs: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run `acrf-tui ...` to its end, without a terminal."""

    def run(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*PROGRAM, *arguments], capture_output=True, text=True, timeout=PATIENCE_S, cwd=runs,
            stdin=subprocess.DEVNULL, **options,
        )  # fmt: skip

    return run


@pytest.fixture(scope="session")
def eventually() -> Callable[[Callable[[], bool]], None]:
    """Wait for something that sends no event, such as status.json."""

    def wait(true: Callable[[], bool]) -> None:
        end = time.monotonic() + PATIENCE_S
        while not true():
            assert time.monotonic() < end
            time.sleep(0.05)

    return wait


@pytest.fixture(scope="session")
def finished_demo(start: Callable[..., Headless]) -> Headless:
    """The built-in run, 40 steps, to its end."""
    run = start("demo-40", "demo", "--steps", "40")
    assert run.end() == 0, run.words.read_text()
    return run


@pytest.fixture(scope="session")
def stopped_run(start: Callable[..., Headless]) -> Headless:
    """A run that its user interrupted with ctrl-C."""
    run = start("stopped", "demo", "--steps", "100000", "--set", "scheduler=constant")
    run.until_step(6)
    run.process.send_signal(signal.SIGINT)
    assert run.end() == 130, run.words.read_text()
    return run
