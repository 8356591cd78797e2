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
import sys
import threading
import time
import traceback
from typing import Any

from acrf_engine.protocol import Ack, Command, Failed, StateChanged, Stopped, WarningEvent
from acrf_engine.run import waiting
from acrf_engine.run.admission import Admission
from acrf_engine.run.deaths import count_oom_kills, describe_exit, process_token, wait_for_orphan
from acrf_engine.run.devices import VISIBLE
from acrf_engine.run.folder import RunError, RunFolder
from acrf_engine.run.hang import Pace
from acrf_engine.run.link import QUEUE_EVENTS
from acrf_engine.run.logout import ends_at_logout
from acrf_engine.run.policy import read_policy, run_hook
from acrf_engine.run.ranks import Crew, seat
from acrf_engine.run.server import Server
from acrf_engine.run.status_file import StatusFile
from acrf_engine.run.stream import EventStream
from acrf_engine.run.survey import Survey
from acrf_engine.run.wire import clip_text, to_wire

WORKER_ENTRY = "acrf_engine.training.worker"
"""Named, not imported: only the worker's own process may load torch."""

STATUS_PERIOD_S = 0.25
LINGER_S = 2.0
MAX_BACKOFF_S = 60.0
LINE_PERIOD_S = 0.5
DRIVER_PATIENCE_S = 10.0

log = logging.getLogger("acrf.supervisor")


def enter_worker(run_folder: str, events: Any, commands: Any, supervisor_pid: int, reached: Any) -> None:
    """What the worker process runs."""
    importlib.import_module(WORKER_ENTRY).main(run_folder, events, commands, supervisor_pid, reached)


class Supervisor:
    """A run's attempts, from the start of the first worker to the end of the last. `_commanding` guards `commands`."""

    def __init__(self, folder: RunFolder, when_busy: str = "") -> None:
        self.folder = folder
        self.when_busy = when_busy
        self.status = folder.recorded_status()
        self.stream = EventStream(folder.telemetry)
        self._outcome: dict[str, Any] | None = None
        self.policy = read_policy(folder)
        self._spawn = multiprocessing.get_context("spawn")
        self.events: Any = None
        self.commands: Any = None
        self._restarts = 0
        self._died_at: set[int] = set()
        self._reached: Any = None
        """The worker's own count of steps, in shared memory: a crash takes the last events with it, but not this."""
        self._seated = seat() is not None
        """Whether another launcher has started the other ranks, and has chosen their devices."""
        self._admission: Admission | None = None
        self._started = time.monotonic()
        self._elapsed_before = self.status.elapsed_s
        self._stop_asked = threading.Event()
        self._commanding = threading.Lock()
        self._waits = False
        """Whether commands are answered here: in the line for a device, and before a restart."""
        self._woken = threading.Event()
        self._go_now = False
        self._pace = Pace()
        self._hung = ""
        self._status_file = StatusFile(folder, self.stream.say_once)
        self._survey = Survey(self.status, self._elapsed, self.stream)

    def run(self) -> int:
        """Supervise until the worker has ended. Returns 0, or 1 where the run failed or was interrupted."""
        # In a thread: the handler may come while this one holds the very lock that asking takes.
        signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=self._ask_to_stop, daemon=True).start())
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        self.status.supervisor_pid = os.getpid()
        self.status.start_token = process_token(os.getpid())
        self._enter_attempt()
        server = Server(self)
        server.start()
        self.folder.write_status(self.status)
        self._survey.start()
        if remedy := ends_at_logout():
            self._warn(remedy)
        try:
            last = self._get_device() or self._attempt()
            while self._try_again(last):
                self._enter_attempt()
                last = self._attempt()
            self._conclude(last)
        finally:
            if self._admission is not None:
                self._admission.leave()
            self.stream.end()
            server.drain(LINGER_S)
            server.close()
        return 0 if self.status.state in ("finished", "stopped") else 1

    def _follow(self, worker: multiprocessing.process.BaseProcess, crew: Crew) -> None:
        next_status = 0.0
        stop_sent = False
        while True:
            alive = worker.is_alive()
            if not self._take(STATUS_PERIOD_S / 2) and not alive:
                return
            if self._stop_asked.is_set() and not stop_sent:
                stop_sent = True
                self.send(Command("stop", "supervisor-signal"))
            for message in self.stream.untold():
                self._warn(f"{message}; the run goes on")
            self._watch_for_hang(worker)
            if crew.overdue():
                worker.kill()
            now = time.monotonic()
            if now >= next_status:
                self.status.elapsed_s = self._elapsed()
                self._write_status()
                self.stream.commit()
                next_status = now + STATUS_PERIOD_S

    def _elapsed(self) -> float:
        return self._elapsed_before + time.monotonic() - self._started

    def _write_status(self) -> None:
        self._status_file.write(self.status)
        if self._status_file.lost:
            self._ask_to_stop()

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
        self._pace.sign()
        if kind == "step":
            self.status.step = body["step"]
            self.status.total_steps = body["total_steps"]
            self.status.loss = body["loss"]
            self._pace.step(body["step_time_s"])
            self.status.eta_s = self._pace.usual_s * (body["total_steps"] - body["step"])
        elif kind == "state":
            self.status.state = body["state"]
            self.status.step = body["step"]
            self.status.total_steps = body["total_steps"] or self.status.total_steps
        elif kind == "best":
            self.status.extra["best"] = {"step": body["step"], "loss": body["loss"]}
        elif kind == "checkpoint":
            self.status.last_checkpoint = body["path"]
        elif kind == "ack" and body["ok"] and self._admission is not None:
            if body["command"] == "free-vram":
                self._admission.leave()
            elif body["command"] in ("reload", "resume"):
                self._admission.come_back()
        elif kind == "ranks":
            self._survey.take(body["readings"])
            return
        elif kind in ("finished", "stopped", "failed"):
            self._outcome = body
            return  # the last event is emitted when the process has ended too
        self.stream.publish(body)

    def _warn(self, message: str) -> None:
        self.stream.emit(WarningEvent(clip_text(message), self.status.step))

    def _tell_state(self, reason: str = "", *, waiting: bool = False) -> None:
        now = self.status
        self.stream.emit(StateChanged(now.state, now.step, now.total_steps, reason, now.attempt, waiting))

    def send(self, command: Command) -> None:
        """Hand a command to the worker, which acts at the next step boundary. Without a worker, answer it here."""
        with self._commanding:
            if not self._waits:
                self.commands.put({"name": command.name, "id": command.id, "args": command.args})
                return
        ok, message = True, "starting now"
        if command.name == "stop":
            message = "cancelled before the worker started"
        elif command.name != "resume":
            ok, message = False, "there is no worker yet (resume starts it now, stop cancels)"
        self.stream.emit(Ack(command.id, command.name, ok, self.status.step, message))
        if command.name == "stop":
            self._ask_to_stop()
        elif ok:
            self._go_now = True
            self._woken.set()

    def _ask_to_stop(self) -> None:
        self._stop_asked.set()
        self._woken.set()

    # ---- the device --------------------------------------------------------------------------------------------------

    def _get_device(self) -> dict[str, Any] | None:
        """Take the device that the config names, waiting in line for it. Returns the last event where it came to that.

        The GPU is the first free one, else the one that is free first; the worker sees no other. Each process gets one.
        """
        if self._seated:
            return None
        if not self._survey.done.wait(DRIVER_PATIENCE_S):
            self.stream.emit(WarningEvent("the GPU driver does not answer: the run takes the GPU that torch gives it"))
            return None
        try:
            admission = Admission(
                self.folder, self.policy.device, self.when_busy, self._survey.gpus, self.policy.processes
            )
        except RunError as error:
            return to_wire(Failed(self.status.step, str(error), kind="data"))
        self._admission = admission
        if not self._wait_in_line(admission):
            return to_wire(Stopped(self.status.step, "cancelled while it waited for a device"))
        if gpus := admission.gpus_now(self._survey.gpus):
            os.environ[VISIBLE] = ",".join(gpu.uuid for gpu in gpus)
            self.status.extra["device"] = gpus[0].title
        for gpu in gpus:
            if gpu.others:
                self._warn(gpu.others)
        return None

    def _wait_in_line(self, admission: Admission) -> bool:
        """Whether the run has got its device; False where it was stopped meanwhile."""
        told = waiting.Turn()
        status = self.status
        while not self._stop_asked.is_set():
            self._woken.clear()
            admission.share = admission.share or self._go_now
            turn = admission.ask()
            if turn.device:
                break
            if turn != told:
                told = turn
                ahead = f", {turn.number - 1} ahead in the line" if turn.number > 1 else ""
                reason = f"waiting for {admission.names}: {turn.behind} uses it{ahead}"
                status.extra["waiting"] = {"for": admission.names, "number": turn.number, "behind": turn.behind}
                self._answer_commands(True)
                self._tell_state(reason, waiting=True)
            self._started = time.monotonic()  # waiting is not elapsed time
            self._write_status()
            self._woken.wait(LINE_PERIOD_S)
        if status.extra.pop("waiting", None) and admission.device:
            self._answer_commands(False)
            reason = "not waiting any longer" if self._go_now else "its turn has come"
            self._tell_state(reason)
        return bool(admission.device)

    def _answer_commands(self, here: bool) -> None:
        with self._commanding:
            self._waits = here

    def _enter_attempt(self) -> None:
        self.status.state = "starting"
        self.status.error = None
        self.status.worker_pid = None
        self.status.attempt += 1
        # A queue whose reader or writer was killed may stay locked for ever: every attempt gets a new pair.
        self.events = self._spawn.Queue(QUEUE_EVENTS)
        self.commands = self._spawn.Queue()
        self._reached = self._spawn.RawValue("q", self.status.step)
        self._outcome = None
        self._hung = ""
        self._answer_commands(False)

    def _attempt(self) -> dict[str, Any]:
        """Start a worker and follow it to its end. Returns its last event, or one that says how it died."""
        self._tell_state()
        oom_kills = count_oom_kills()
        crew = Crew(self._start_process, 1 if self._seated else self.policy.processes)
        worker = crew.start_first(f"acrf-worker-{self.folder.name}")
        self.status.worker_pid = worker.pid
        self.status.start_token = process_token(worker.pid)
        self._write_status()  # at once: a resume after our death must know whom to wait for
        crew.start_others(f"acrf-rank-{self.folder.name}")
        self.status.extra["ranks"] = {str(rank): pid for rank, pid in crew.pids.items()}
        self._pace.begin()
        self._follow(worker, crew)
        worker.join()
        out_of_memory = count_oom_kills() > oom_kills
        lost = crew.lost(out_of_memory)
        crew.end()
        self.status.worker_pid = None
        self.status.eta_s = None
        if self._outcome is not None and not (lost and self._outcome.get("kind") == "interrupted"):
            return self._outcome
        reason = lost or self._hung or describe_exit(worker.exitcode, out_of_memory)
        return to_wire(Failed(self.status.step, reason, kind="interrupted"))

    def _start_process(self, name: str) -> multiprocessing.process.BaseProcess:
        arguments = (str(self.folder.path), self.events, self.commands, os.getpid(), self._reached)
        process = self._spawn.Process(target=enter_worker, args=arguments, name=name)
        process.start()
        return process

    def _try_again(self, last: dict[str, Any]) -> bool:
        """Whether to start the worker again, by `restarts`; waits a little longer each time."""
        if last["type"] != "failed" or last["kind"] == "data" or self._stop_asked.is_set():
            return False
        if self._restarts >= self.policy.restarts or self._reached.value in self._died_at:
            return False
        self._died_at.add(self._reached.value)
        self._restarts += 1
        wait_s = min(2.0**self._restarts, MAX_BACKOFF_S)
        self._woken.clear()
        self._answer_commands(True)
        self._warn(f"{last['error']}; starting again in {wait_s:.0f} s ({self._restarts} of {self.policy.restarts})")
        if not self._stop_asked.is_set():
            self._woken.wait(wait_s)  # `resume` and `stop` cut it short
        return not self._stop_asked.is_set()

    def _watch_for_hang(self, worker: multiprocessing.process.BaseProcess) -> None:
        if self.status.state != "running":
            return
        silence = self._pace.silence_s()
        if self._pace.warn_of(silence):
            self._warn(f"no step for {silence:.0f} s: the worker may hang (see worker.log)")
        if self.policy.hang_timeout and silence > self.policy.hang_timeout:
            self._hung = f"the worker was killed: no sign of life for {silence:.0f} s (hang_timeout); see worker.log"
            log.error(self._hung)
            worker.kill()
            worker.join()

    def _conclude(self, last: dict[str, Any]) -> None:
        if last["type"] == "failed":
            self.status.state = "interrupted" if last["kind"] == "interrupted" else "failed"
            self.status.error = last["error"]
        else:
            self.status.state = last["type"]
            self.status.step = last["step"]
        self.status.elapsed_s = self._elapsed()
        self._tell_state(self.status.error or "")
        self.stream.publish(last)
        self.stream.commit()
        self.status.extra["exit_kind"] = last.get("kind", "")
        self.status.supervisor_pid = None
        self._write_status()


def main(argv: list[str]) -> int:
    """Supervise the run of a folder: `FOLDER [--wait | --share]`. Returns the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s", stream=sys.stderr)
    folder = RunFolder(argv[0])
    os.umask(0o077)
    try:
        with folder.hold():
            status = folder.recorded_status()
            wait_for_orphan(status)
            folder.remove_leftovers()
            try:
                supervisor = Supervisor(folder, *argv[1:2])
                code = supervisor.run()
            except Exception as error:
                traceback.print_exc()
                status = folder.recorded_status()
                status.state, status.error = "failed", f"the supervisor failed: {error!r}"
                status.supervisor_pid = status.worker_pid = None
                folder.write_status(status)
                return 1
        run_hook(supervisor.policy, folder, supervisor.status.state)
        return code
    except RunError as error:
        print(f"acrf-tui: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
