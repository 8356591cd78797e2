"""The supervisor: one small process per run that outlives apps and SSH lines.

It holds the run's lock, starts the worker, writes telemetry and status.json, samples the hardware, answers apps on a
socket and records how the worker ended. `python -P -m acrf_engine.run.supervisor RUN_FOLDER`
"""

from __future__ import annotations

import importlib
import json
import logging
import multiprocessing
import multiprocessing.process
import os
import queue
import signal
import sqlite3
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from acrf_engine.protocol import Command, Event, Failed, StateChanged, to_wire
from acrf_engine.run.folder import RunError, RunFolder, Status
from acrf_engine.run.hardware import GpuReader, sample
from acrf_engine.run.link import QUEUE_EVENTS
from acrf_engine.run.server import Server
from acrf_engine.run.telemetry import TelemetryWriter

WORKER_ENTRY = "acrf_engine.training.worker"
"""Named, not imported: only the worker's own process may load torch."""

STATUS_PERIOD_S = 0.25
HARDWARE_PERIOD_S = 1.0
LINGER_S = 2.0
RING_EVENTS = 4096
ORPHAN_PATIENCE_S = 60.0

log = logging.getLogger("acrf.supervisor")


def enter_worker(run_folder: str, events: Any, commands: Any, supervisor_pid: int) -> None:
    """What the worker process runs."""
    importlib.import_module(WORKER_ENTRY).main(run_folder, events, commands, supervisor_pid)


class Supervisor:
    """One attempt at a run, from the worker's start to its end. `arrived` guards everything that threads share."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self.status = folder.recorded_status()
        self.telemetry = TelemetryWriter(folder.telemetry)
        self.seq = self.telemetry.last_seq()
        self.ring: deque[dict[str, Any]] = deque(maxlen=RING_EVENTS)
        self.arrived = threading.Condition()
        self.acks: dict[str, dict[str, Any]] = {}
        self.ended = False
        self.outcome: dict[str, Any] | None = None
        self._spawn = multiprocessing.get_context("spawn")
        self.events: Any = self._spawn.Queue(QUEUE_EVENTS)
        self.commands: Any = self._spawn.Queue()
        self.worker: multiprocessing.process.BaseProcess | None = None
        self._gpus = GpuReader()
        self._started = time.monotonic()
        self._elapsed_before = self.status.elapsed_s
        self._step_times: deque[float] = deque(maxlen=50)
        self._stop_asked = threading.Event()
        self._said: set[str] = set()

    def run(self) -> int:
        """Supervise until the worker has ended. Returns 0, or 1 where the run failed or was interrupted."""
        signal.signal(signal.SIGTERM, lambda *_: self._stop_asked.set())
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        self.status.state = "starting"
        self.status.error = None
        self.status.supervisor_pid = os.getpid()
        self.status.worker_pid = None
        self.status.attempt += 1
        server = Server(self)
        server.start()
        self.folder.write_status(self.status)
        self.emit(StateChanged("starting", self.status.step, self.status.total_steps, attempt=self.status.attempt))
        self.worker = self._spawn.Process(
            target=enter_worker,
            args=(str(self.folder.path), self.events, self.commands, os.getpid()),
            name=f"acrf-worker-{self.folder.name}",
        )
        self.worker.start()
        self.status.worker_pid = self.worker.pid
        self.status.start_token = process_token(self.worker.pid)
        threading.Thread(target=self._watch_hardware, name="hardware", daemon=True).start()
        try:
            self._follow(self.worker)
            self._conclude(self.worker)
        finally:
            with self.arrived:
                self.ended = True
                self.arrived.notify_all()
            self._store(self.telemetry.close)
            server.drain(LINGER_S)
            server.close()
        return 0 if self.status.state in ("finished", "stopped") else 1

    def _follow(self, worker: multiprocessing.process.BaseProcess) -> None:
        next_status = 0.0
        while True:
            alive = worker.is_alive()
            if not self._take(STATUS_PERIOD_S / 2) and not alive:
                return
            if self._stop_asked.is_set():
                self._stop_asked.clear()
                self.send(Command("stop", "supervisor-signal"))
            now = time.monotonic()
            if now >= next_status:
                self.status.elapsed_s = self._elapsed_before + now - self._started
                self._write_status()
                self._store(self.telemetry.commit)
                next_status = now + STATUS_PERIOD_S

    def _watch_hardware(self) -> None:
        # In a thread of its own: a driver that hangs must not hold up the run.
        while not self.ended:
            self.emit(sample(self._gpus, self.status.worker_pid))
            time.sleep(HARDWARE_PERIOD_S)

    def _write_status(self) -> None:
        try:
            self.folder.write_status(self.status)
        except OSError as error:
            self._say_once(f"status.json cannot be written: {error}")

    def _store(self, write: Callable[[], None]) -> None:
        try:
            with self.arrived:
                write()
        except sqlite3.Error as error:
            self._say_once(f"telemetry cannot be written: {error}")

    def _say_once(self, message: str) -> None:
        # A full disk costs history, never the training.
        if message not in self._said:
            self._said.add(message)
            log.error("%s; the run goes on", message)

    def _take(self, wait_s: float) -> int:
        """Store what the worker has said; returns how many events came."""
        count = 0
        try:
            line = self.events.get(timeout=wait_s)
            while True:
                self._receive(json.loads(line))
                count += 1
                if count >= 500:  # leave room for status and hardware when events pour in
                    return count
                line = self.events.get_nowait()
        except (queue.Empty, EOFError, OSError):
            return count

    def _receive(self, body: dict[str, Any]) -> None:
        kind = body["type"]
        if kind == "step":
            self.status.step = body["step"]
            self.status.total_steps = body["total_steps"]
            self.status.loss = body["loss"]
            self._step_times.append(body["step_time_s"])
            ordered = sorted(self._step_times)
            self.status.eta_s = ordered[len(ordered) // 2] * (body["total_steps"] - body["step"])
        elif kind == "state":
            self.status.state = body["state"]
            self.status.step = body["step"]
            self.status.total_steps = body["total_steps"] or self.status.total_steps
        elif kind == "checkpoint":
            self.status.last_checkpoint = body["path"]
        elif kind in ("finished", "stopped", "failed"):
            self.outcome = body
            return  # the last event is emitted when the process has ended too
        self._publish(body)

    def emit(self, event: Event) -> None:
        self._publish(to_wire(event))

    def _publish(self, body: dict[str, Any]) -> None:
        with self.arrived:
            if self.ended:
                return
            self.seq += 1
            body["seq"] = self.seq
            body["time"] = time.time()
            self._store(lambda: self.telemetry.record(body))
            self.ring.append(body)
            if body["type"] == "ack":
                self.acks[body["id"]] = body
            self.arrived.notify_all()

    def send(self, command: Command) -> None:
        """Hand a command to the worker; it acts at the next step boundary."""
        self.commands.put({"name": command.name, "id": command.id, "args": command.args})

    def _conclude(self, worker: multiprocessing.process.BaseProcess) -> None:
        worker.join()
        code = worker.exitcode
        self.status.worker_pid = None
        self.status.eta_s = None
        last = self.outcome
        if last is None:
            self.status.state = "interrupted"
            self.status.error = describe_exit(code)
            last = to_wire(Failed(self.status.step, self.status.error, kind="interrupted"))
        elif last["type"] == "failed":
            self.status.state = "failed"
            self.status.error = last["error"]
        else:
            self.status.state = last["type"]
            self.status.step = last["step"]
        self.status.elapsed_s = self._elapsed_before + time.monotonic() - self._started
        self._publish(
            to_wire(
                StateChanged(
                    self.status.state,
                    self.status.step,
                    self.status.total_steps,
                    self.status.error or "",
                    self.status.attempt,
                )
            )
        )
        self._publish(last)
        self._store(self.telemetry.commit)
        self.status.extra["exit_kind"] = last.get("kind", "")
        self.status.supervisor_pid = None
        self._write_status()


def describe_exit(code: int | None) -> str:
    """How the worker went, in words a user can act on."""
    if code is None:
        return "the worker's exit status is unknown"
    if code == -signal.SIGKILL:
        return "the worker was killed (SIGKILL: out of memory, or kill -9); continue with `acrf-tui resume`"
    if code < 0:
        return f"the worker died of {signal.Signals(-code).name}; see worker.log, continue with `acrf-tui resume`"
    return f"the worker ended with status {code} without a word; see worker.log"


def wait_for_orphan(status: Status) -> None:
    """Let the worker of a dead supervisor finish its last checkpoint: two workers must never share a run."""
    pid = status.worker_pid
    if pid is None or not status.start_token:
        return
    end = time.monotonic() + ORPHAN_PATIENCE_S
    while process_token(pid) == status.start_token:
        if time.monotonic() > end:
            log.warning(
                "killing worker %s of an earlier supervisor: it did not end within %.0f s", pid, ORPHAN_PATIENCE_S
            )
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.1)


def process_token(pid: int | None) -> str:
    """What tells a process from a later one with the same pid: boot id and start time. Empty where it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
    except OSError:
        return ""
    return "" if stat[0] == "Z" else f"{boot}:{stat[19]}"


def main(argv: list[str]) -> int:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s", stream=sys.stderr)
    folder = RunFolder(argv[0])
    os.umask(0o077)
    try:
        with folder.hold():
            status = folder.recorded_status()
            wait_for_orphan(status)
            try:
                return Supervisor(folder).run()
            except Exception as error:
                traceback.print_exc()
                status = folder.recorded_status()
                status.state, status.error = "failed", f"the supervisor failed: {error!r}"
                status.supervisor_pid = status.worker_pid = None
                folder.write_status(status)
                return 1
    except RunError as error:
        print(f"acrf-tui: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
