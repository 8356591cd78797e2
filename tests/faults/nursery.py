"""Runs that are born by fork from a process that has torch and the engine loaded, so that hundreds of deaths are cheap.

What runs is the real program: supervisor, worker, queues, socket, telemetry. Two things differ. The supervisor forks
its worker where the program spawns it, and a test may hand over an injection, a function that is called in the new
process before the supervisor starts, so that supervisor and worker inherit what it patches.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import itertools
import json
import multiprocessing
import os
import shutil
import signal
import sqlite3
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from acrf_engine.config import RunConfig, build_config, dump, load_config
from acrf_engine.protocol import LAST_EVENTS, Ack
from acrf_engine.run.client import Run, supervisor_environment
from acrf_engine.run.folder import RunError, RunFolder, create_run, write_private
from acrf_engine.run.link import read_socket_path
from acrf_engine.run.telemetry import STEP_COLUMNS

Body = dict[str, Any]
Injection = Callable[[], None]
Trace = dict[int, tuple[str, ...]]

PATIENCE_S = 90.0
PRELOAD = [
    "acrf_engine.run.supervisor",
    "acrf_engine.training.worker",
    "acrf_engine.training.plan",
    "acrf_engine.training.preparation",
    "acrf_engine.training.session",
    "acrf_engine.training.trainer",
    "acrf_engine.training.previews",
    "bitsandbytes",
    "diffusers.loaders.peft",
    "diffusers.models.autoencoders.autoencoder_kl",
    "diffusers.models.transformers.transformer_z_image",
    "diffusers.pipelines.z_image.pipeline_z_image",
    "peft",
    "pynvml",
    "transformers.models.qwen3.modeling_qwen3",
    "transformers.models.qwen2.tokenization_qwen2",
]
"""Everything that a worker would import, most of it lazily."""
TIMELESS = tuple(name for name in STEP_COLUMNS if name not in ("time", "step_time_s"))


@functools.cache
def _born() -> Any:
    """The forkserver's context. Its environment is the test's at the first birth."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    return context


class Child:
    """One run under test: its processes, its event stream, and what it has written."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self.client = Run(folder)
        self.process: Any = None
        self.events: list[Body] = []
        self._cursor = 0
        self._highest = 0
        self._sessions: list[int] = []

    # ---- life ----------------------------------------------------------------------------------------------------

    def start(self, inject: Injection | None = None, *, wait: bool = True, **config: Any) -> Child:
        """Start or resume; `config` overrides keys as `resume --set` does. Waits until the supervisor answers."""
        if config:
            self.configure(**config)
        self.client.close()
        self.events = []
        self._cursor = stored_seq(self.folder)
        self.process = _born().Process(target=live, args=(str(self.folder.path), inject))
        self.process.start()
        self._sessions.append(self.process.pid)
        if wait:
            self.wait_for(lambda: self._answers() or not self.process.is_alive(), "the supervisor answers")
        return self

    def configure(self, **config: Any) -> None:
        values = load_config(self.folder.config).model_dump(mode="json")
        for key, value in config.items():
            values[key] = {**values[key], **value} if isinstance(value, dict) else value
        write_private(self.folder.config, dump(RunConfig.model_validate(values)))

    def _answers(self) -> bool:
        path = read_socket_path(self.folder.socket)
        with contextlib.suppress(RunError):
            return bool(
                self.folder.recorded_status().supervisor_pid == self.process.pid and path and os.path.exists(path)
            )
        return False

    def end(self) -> int:
        """Read events to the end and wait for the supervisor; its exit status."""
        self.read_on(lambda body: False)
        return self.wait()

    def wait(self) -> int:
        """Wait for the supervisor's end; its exit status."""
        self.process.join(PATIENCE_S)
        assert self.process.exitcode is not None, f"the supervisor does not end\n{self.log()[-3000:]}"
        return int(self.process.exitcode)

    def kill_worker(self, number: int = signal.SIGKILL) -> int:
        """Send the worker a signal; its pid."""
        pid = self.worker_pid()
        os.kill(pid, number)
        return pid

    def kill_supervisor(self, number: int = signal.SIGKILL) -> None:
        os.kill(self.process.pid, number)

    def worker_pid(self) -> int:
        self.wait_for(lambda: self.recorded()["worker_pid"], "there is a worker")
        return int(self.recorded()["worker_pid"])

    def members(self) -> list[int]:
        """Living processes of this run: all in the sessions of its supervisors."""
        return [pid for pid, session in _living() if session in self._sessions]

    def abandon(self) -> None:
        """Leave no process and no socket folder behind, whatever the test did."""
        self.client.close()
        for pid in self.members():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if self.process is not None:
            self.process.join(PATIENCE_S)
        path = read_socket_path(self.folder.socket)
        if path is not None and os.path.basename(os.path.dirname(path)).startswith("acrf-"):
            shutil.rmtree(os.path.dirname(path), ignore_errors=True)

    # ---- events ----------------------------------------------------------------------------------------------------

    def read_on(self, wanted: Callable[[Body], bool]) -> Body | None:
        """Read events up to the first that is wanted, and return it; None at the end of the attempt."""
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            try:
                bodies = self.client.pull_bodies(self._cursor, 0.5)
            except EOFError:
                return None
            for body in bodies:
                assert body["seq"] > self._highest, f"seq {body['seq']} after {self._highest}"
                self._cursor = self._highest = body["seq"]
                self.events.append(body)
                if wanted(body):
                    return body
        raise AssertionError(f"waited too long; the last was {self.events[-1:]}\n{self.log()[-3000:]}")

    def until(self, wanted: Callable[[Body], bool]) -> Body:
        """Read on to the first event that is wanted, and return it."""
        found = self.read_on(wanted)
        assert found is not None, f"the run ended before that: {self.events[-1:]}\n{self.log()[-3000:]}"
        return found

    def until_step(self, step: int) -> Body:
        return self.until(lambda body: body["type"] == "step" and body["step"] >= step)

    def until_type(self, *kinds: str) -> Body:
        return self.until(lambda body: body["type"] in kinds)

    def until_warning(self, text: str) -> Body:
        return self.until(lambda body: body["type"] == "warning" and text in body["message"])

    def until_state(self, state: str) -> Body:
        return self.until(lambda body: body["type"] == "state" and body["state"] == state)

    def of(self, kind: str) -> list[Body]:
        return [body for body in self.events if body["type"] == kind]

    def steps(self) -> list[int]:
        return [body["step"] for body in self.of("step")]

    def last(self) -> Body:
        return next(body for body in reversed(self.events) if body["type"] in LAST_EVENTS)

    def command(self, name: str, **args: Any) -> Ack:
        return self.client.command(name, **args)

    @staticmethod
    def wait_for(true: Callable[[], Any], what: str = "it is so", patience_s: float = PATIENCE_S) -> None:
        """Wait for something that sends no event."""
        end = time.monotonic() + patience_s
        while not true():
            assert time.monotonic() < end, f"waited too long until {what}"
            time.sleep(0.005)

    # ---- what is written -------------------------------------------------------------------------------------------

    def status(self) -> Body:
        """As an app sees it."""
        return self.client.status()

    def recorded(self) -> Body:
        return dict(json.loads(self.folder.status.read_text(encoding="utf-8")))

    def log(self) -> str:
        return self.folder.log.read_text(encoding="utf-8", errors="replace") if self.folder.log.exists() else ""

    def start_step(self) -> int:
        """Where this attempt began; 0 where it never came so far."""
        return next((int(body["start_step"]) for body in self.of("plan")), 0)

    def trace(self) -> Trace:
        """Every number of every step that does not depend on the clock, exactly."""
        with contextlib.closing(sqlite3.connect(self.folder.telemetry)) as db:
            rows = db.execute(f"SELECT {', '.join(TIMELESS)}, pictures FROM steps ORDER BY step").fetchall()
        return {int(row[0]): tuple(v.hex() if isinstance(v, float) else str(v) for v in row) for row in rows}

    def seqs(self) -> list[int]:
        """Every stored sequence number, over all attempts."""
        with contextlib.closing(sqlite3.connect(self.folder.telemetry)) as db:
            tables = ("steps", "events", "hardware")
            return sorted(row[0] for table in tables for row in db.execute(f"SELECT seq FROM {table}"))

    def checkpoints(self) -> list[int]:
        """Steps of the checkpoints in place, oldest first."""
        return sorted(int(path.name.removeprefix("step-")) for path in self.folder.checkpoints.glob("step-*"))

    def newest_checkpoint(self) -> int:
        """The step of the newest checkpoint that verifies; 0 where there is none."""
        return newest_good(self.folder.checkpoints)

    def digests(self, step: int) -> dict[str, str]:
        """sha256 of the LoRA and of the optimizer in the checkpoint of `step`."""
        manifest = json.loads((self.folder.checkpoints / f"step-{step:06d}" / "manifest.json").read_text())
        return {name: entry["sha256"] for name, entry in manifest["files"].items() if name.endswith(".safetensors")}

    def temporaries(self) -> list[str]:
        """What a writer that was killed has left in the run folder."""
        folders = (self.folder.path, self.folder.checkpoints, self.folder.lora)
        names = itertools.chain.from_iterable(os.listdir(folder) for folder in folders if folder.is_dir())
        return sorted(
            n for n in names if n.startswith((".tmp-", ".trash-", ".former-")) or n.endswith((".tmp", ".part"))
        )


class Nursery:
    """Makes runs of the built-in tiny model, with steps of some 25 ms."""

    def __init__(self, runs: Path) -> None:
        self.runs = runs
        self.children: list[Child] = []
        self._names = (f"run-{number}" for number in itertools.count(1))

    def create(self, name: str | None = None, runs: Path | None = None, **config: Any) -> Child:
        """A new run, not yet started; groups of the config are given as dicts."""
        base: dict[str, Any] = {
            "steps": 20,
            "gradient_accumulation": 1,
            "scheduler": "constant",
            "network_dim": 8,
            "checkpoint": {"every": 5},
        }
        made = build_config({**base, **config})
        child = Child(create_run(runs or self.runs, name or next(self._names), dump(made), made.steps or 0))
        self.children.append(child)
        return child

    def start(self, inject: Injection | None = None, **config: Any) -> Child:
        return self.create(**config).start(inject)

    def abandon(self) -> None:
        for child in self.children:
            child.abandon()


@pytest.fixture
def nursery(tmp_path: Path) -> Iterator[Nursery]:
    """Makes runs; none of their processes outlives the test."""
    made = Nursery(tmp_path)
    yield made
    made.abandon()


GOLDEN_STEPS = 60


@pytest.fixture(scope="session")
def golden(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Child]:
    """One straight run that nothing happens to: what every other run must repeat."""
    made = Nursery(tmp_path_factory.mktemp("golden"))
    run = made.start(steps=GOLDEN_STEPS, checkpoint={"every": 5, "keep": 1000})
    try:
        assert run.end() == 0, run.log()
        assert sorted(run.trace()) == list(range(1, GOLDEN_STEPS + 1))
        yield run
    finally:
        made.abandon()


# ---- in the new process ----------------------------------------------------------------------------------------------


def live(run_folder: str, inject: Injection | None) -> None:
    """Become the run's supervisor, as acrf_engine.run.client.launch starts it."""
    os.setsid()
    folder = RunFolder(run_folder)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    log = os.open(folder.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ.update(supervisor_environment())
    from acrf_engine.run import supervisor

    begin, enter_worker = supervisor.Supervisor.__init__, supervisor.enter_worker

    def begin_with_fork(self: Any, *arguments: Any) -> None:
        begin(self, *arguments)
        self._spawn = multiprocessing.get_context("fork")

    def enter_without_inheritance(*arguments: Any) -> None:
        _give_up_inherited(folder.path)
        enter_worker(*arguments)

    supervisor.Supervisor.__init__ = begin_with_fork
    supervisor.enter_worker = enter_without_inheritance
    if inject is not None:
        inject()
    sys.exit(supervisor.main([run_folder]))


def _give_up_inherited(folder: Path) -> None:
    """Sockets and files of the run that a spawned worker would not have; an inherited lock would outlive its holder."""
    null = os.open(os.devnull, os.O_RDWR)
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            target = os.readlink(f"/proc/self/fd/{name}")
            if int(name) > 2 and (target.startswith(("socket:", f"{folder}/"))):
                os.dup2(null, int(name), inheritable=False)


# ---- what is looked at from outside ----------------------------------------------------------------------------------


def stored_seq(folder: RunFolder) -> int:
    """The last sequence number that an app would have read before the next attempt."""
    if not folder.telemetry.exists():
        return 0
    with contextlib.closing(sqlite3.connect(f"{folder.telemetry.as_uri()}?mode=ro", uri=True)) as db:
        tables = " UNION ALL ".join(f"SELECT max(seq) AS s FROM {table}" for table in ("steps", "events", "hardware"))
        try:
            return int(db.execute(f"SELECT max(s) FROM ({tables})").fetchone()[0] or 0)
        except sqlite3.DatabaseError:
            return 0


def verifies(path: Path) -> bool:
    """Whether every file of a checkpoint is what its manifest says; by the bytes, not by the program's own reader."""
    try:
        manifest = json.loads((path / "manifest.json").read_bytes())
        return bool(manifest["files"]) and all(
            hashlib.sha256((path / name).read_bytes()).hexdigest() == entry["sha256"]
            for name, entry in manifest["files"].items()
        )
    except (OSError, ValueError):
        return False


def assert_repeats(run: Child, golden: Child, total: int, untold: Iterable[int] = ()) -> None:
    """Every number of every step up to `total` is the straight run's.

    `untold`: steps that were trained and saved while nobody was left to write them down.
    """
    expected = golden.trace()
    assert run.trace() == {step: expected[step] for step in range(1, total + 1) if step not in untold}


def assert_golden(run: Child, golden: Child, total: int, untold: Iterable[int] = ()) -> None:
    """As `assert_repeats`; and the last LoRA and optimizer are the straight run's, byte for byte."""
    assert_repeats(run, golden, total, untold)
    assert run.digests(total) == golden.digests(total)


def newest_good(folder: Path) -> int:
    """The step of the newest checkpoint in `folder` that verifies; 0 where there is none."""
    return max((int(path.name[5:]) for path in folder.glob("step-*") if verifies(path)), default=0)


def _living() -> Iterable[tuple[int, int]]:
    """Pid and session of every process that is not a zombie."""
    for name in os.listdir("/proc"):
        if name.isdecimal():
            with contextlib.suppress(OSError):
                stat = Path(f"/proc/{name}/stat").read_text(errors="replace").rpartition(")")[2].split()
                if stat[0] not in "ZX":
                    yield int(name), int(stat[3])


def born(target: Callable[..., None], *arguments: Any) -> Any:
    """A started process with torch and the engine loaded, calling `target`."""
    process = _born().Process(target=target, args=arguments, daemon=False)
    process.start()
    return process


def answer_of(function: Callable[..., Any], *arguments: Any) -> Any:
    """What `function` returns when a process with torch and the engine loaded calls it; for tests that have neither."""
    ours, theirs = multiprocessing.Pipe(duplex=False)
    process = born(_answer, theirs, function, *arguments)
    theirs.close()
    try:
        good, answer = ours.recv()
    except EOFError:
        process.join()
        raise AssertionError(f"{function.__name__} died with {process.exitcode}") from None
    process.join()
    assert good, answer
    return answer


def _answer(pipe: Any, function: Callable[..., Any], *arguments: Any) -> None:
    try:
        pipe.send((True, function(*arguments)))
    except BaseException:
        pipe.send((False, traceback.format_exc()))
