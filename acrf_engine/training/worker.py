"""The worker process: load, train, obey, and say how it ended.

Commands act between steps and are acknowledged with the step at which they took effect. The worker never waits for a
reader, and leaves with a checkpoint when its supervisor is gone.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import signal
import sys
import time
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import Any

from acrf_engine.config import RunConfig, build_config, load_config
from acrf_engine.protocol import (
    SETTABLE,
    Ack,
    Command,
    ErrorEvent,
    Event,
    Failed,
    Finished,
    Progress,
    StateChanged,
    Stopped,
    WarningEvent,
    clip_text,
)
from acrf_engine.run.folder import RunError, RunFolder
from acrf_engine.run.link import Inbox, Reporter
from acrf_engine.yaml_source import ConfigError

log = logging.getLogger("acrf.worker")

ORPHANED_EXIT = 75
PAUSE_POLL_S = 0.25
MEMORY_PERIOD_S = 1.0


class StopAsked(Exception):
    """Leave: checkpoint if there is anything to keep, then end."""

    def __init__(self, reason: str, command: Command | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.command = command


class Orphaned(Exception):
    """The supervisor is gone."""


class Worker:
    """One attempt at a run, inside its own process."""

    def __init__(self, folder: RunFolder, reporter: Reporter, inbox: Inbox, supervisor_pid: int) -> None:
        self.folder = folder
        self.report = reporter
        self.inbox = inbox
        self.supervisor_pid = supervisor_pid
        self.trainer: Any = None
        self.paused = False
        self._signalled = False
        self._waiting: list[Command] = []

    def run(self) -> Event:
        """Train to the end. Returns the last event; raises Orphaned after a last checkpoint."""
        config = load_config(self.folder.config)
        self._enter("caching", self.folder.recorded_status().step)
        self._prepare(config)
        trainer = self.trainer
        self._enter("running", trainer.step)
        try:
            self._train(config)
        except StopAsked as stop:
            self._enter("stopping", trainer.step, stop.reason)
            if stop.command is None or trainer.step > 0:
                self._checkpoint()
            if stop.command is not None:
                self._acknowledge(stop.command, f"stopped at step {trainer.step}, checkpoint saved")
            return Stopped(trainer.step, stop.reason)
        except Orphaned:
            self._checkpoint()
            raise
        self._checkpoint()
        path = self.folder.final_lora()
        trainer.save_lora(path)
        return Finished(trainer.step, str(path))

    def _prepare(self, config: RunConfig) -> None:
        # torch and the model classes take seconds to import, so the first event is out before them.
        self.report(Progress("loading", 0, 0, "starting torch"))
        import torch

        from acrf_engine.training.plan import plan_event
        from acrf_engine.training.preparation import prepare
        from acrf_engine.training.trainer import Trainer

        torch.set_num_threads(training_threads())
        prepared = prepare(config, self.report, self._pulse)
        self.trainer = Trainer(config, self.folder, prepared, self.report)
        self.report(plan_event(self.trainer))

    def _train(self, config: RunConfig) -> None:
        from acrf_engine.training.plan import memory_event
        from acrf_engine.training.recovery import OutOfMemory, Recovery

        trainer = self.trainer
        next_memory = 0.0
        recovery = Recovery(trainer, config.safety, self.report)
        while trainer.step < trainer.total_steps:
            self._obey()
            try:
                taken = recovery.step()
            except OutOfMemory as error:
                self._pause_for_memory(str(error))
                continue
            if taken is None:
                continue
            self.report(taken)
            if (every := config.checkpoint.every) and trainer.step % every == 0 and trainer.step < trainer.total_steps:
                self._checkpoint_or_warn()
            if (every := config.preview.every) and trainer.step % every == 0:
                self._preview()
            if time.monotonic() > next_memory:
                next_memory = time.monotonic() + MEMORY_PERIOD_S
                if (memory := memory_event(trainer.prepared.device)) is not None:
                    self.report(memory)
        self._obey()

    # ---- commands ----------------------------------------------------------------------------------------------------

    def _pulse(self) -> None:
        """During loading and caching: only stop has a meaning yet; the rest waits for the first step."""
        self._watch()
        for command in self.inbox.poll():
            if command.name == "stop":
                self._acknowledge(command, "stopped before the first step")
                raise StopAsked("asked to stop before the first step")
            self._waiting.append(command)

    def _obey(self) -> None:
        """Act on what has arrived; stays here while paused."""
        while True:
            self._watch()
            waiting, self._waiting = self._waiting, []
            for command in [*waiting, *self.inbox.poll(PAUSE_POLL_S if self.paused and not waiting else 0.0)]:
                self._act(command)
            if not self.paused:
                return

    def _act(self, command: Command) -> None:
        match command.name:
            case "pause" if self.paused:
                self._acknowledge(command, "already paused")
            case "pause":
                self.paused = True
                self._enter("paused", self.trainer.step)
                self._acknowledge(command, f"paused after step {self.trainer.step}")
            case "resume" if not self.paused:
                self._acknowledge(command, "already running")
            case "resume":
                self.paused = False
                self._enter("running", self.trainer.step)
                self._acknowledge(command, f"going on after step {self.trainer.step}")
            case "checkpoint":
                try:
                    self._checkpoint()
                except Exception as error:
                    log.exception("checkpoint")
                    self._acknowledge(command, str(error), ok=False)
                else:
                    self._acknowledge(command, f"checkpoint of step {self.trainer.step} saved")
            case "preview":
                drawn = self._preview()
                self._acknowledge(command, f"{drawn} previews drawn" if drawn else "the preview failed", ok=drawn > 0)
            case "stop":
                raise StopAsked("asked to stop", command)
            case "set":
                self._set(command)
            case "free-vram" | "reload":
                self._acknowledge(command, f"{command.name} is not available in this version", ok=False)
            case other:
                self._acknowledge(command, f"unknown command {other!r}", ok=False)

    def _set(self, command: Command) -> None:
        key, text = str(command.args.get("key", "")), str(command.args.get("value", ""))
        if key not in SETTABLE:
            self._acknowledge(
                command, f"{key or 'no key'} cannot change while training (one of {', '.join(SETTABLE)})", ok=False
            )
            return
        try:
            ramp = int(command.args.get("ramp", 0))
            if ramp < 0 or (ramp and key != "learning_rate"):
                raise ConfigError("a ramp takes a number of steps, and only learning_rate has one")
            config = build_config(self._current_values(), name="set", overrides=[f"{key}={text}"])
        except (ConfigError, ValueError, TypeError) as error:
            self._acknowledge(command, str(error).removeprefix("--set: "), ok=False)
            return
        from acrf_engine.training.optim import Ramp
        from acrf_engine.training.trainer import Settings

        if key == "learning_rate":
            self.trainer.ramp = Ramp(self.trainer.step, ramp, self.trainer.peak_rate()) if ramp else None

        previous, self.trainer.settings = self.trainer.settings, Settings.of(config)
        name = key.rpartition(".")[2]
        old, new = getattr(previous, name), getattr(self.trainer.settings, name)
        self._acknowledge(
            command,
            f"{key} {old:g} -> {new:g}, from step {self.trainer.step + 1} on"
            + (f", over {ramp} steps" if ramp else ""),
            key=key,
            value=new,
            previous=old,
        )

    def _current_values(self) -> dict[str, Any]:
        """The config as plain values, with the live settings in place."""
        values: dict[str, Any] = self.trainer.config.model_dump(mode="json")
        live = asdict(self.trainer.settings)
        for key in SETTABLE:
            group, _, name = key.rpartition(".")
            (values[group] if group else values)[name] = live[name]
        return values

    def _acknowledge(self, command: Command, message: str, *, ok: bool = True, **extra: Any) -> None:
        step = self.trainer.step if self.trainer is not None else 0
        self.report(Ack(command.id, command.name, ok, step, clip_text(message), **extra))

    # ---- saving, drawing, watching -----------------------------------------------------------------------------------

    def _checkpoint(self) -> None:
        step, total = self.trainer.step, self.trainer.total_steps
        self.report(Progress("saving", step, total, f"checkpoint of step {step}"))
        self.report(self.trainer.save_checkpoint())

    def _checkpoint_or_warn(self) -> None:
        try:
            self._checkpoint()
        except Exception as error:
            log.exception("checkpoint")
            self.report(WarningEvent(clip_text(f"checkpoint failed, training goes on: {error}"), self.trainer.step))

    def _pause_for_memory(self, advice: str) -> None:
        self._checkpoint_or_warn()
        self.report(WarningEvent(advice, self.trainer.step))
        self.paused = True
        self._enter("paused", self.trainer.step, "the GPU is out of memory")

    def _preview(self) -> int:
        try:
            from acrf_engine.training.previews import draw_previews

            drawn = draw_previews(self.trainer)
        except Exception as error:
            log.exception("preview")
            self.report(WarningEvent(clip_text(f"preview failed, training goes on: {error}"), self.trainer.step))
            return 0
        for preview in drawn:
            self.report(preview)
        return len(drawn)

    def _watch(self) -> None:
        if os.getppid() != self.supervisor_pid:
            raise Orphaned
        if self._signalled:
            raise StopAsked("the worker was asked to end (SIGTERM)")

    def on_signal(self, *_: Any) -> None:
        self._signalled = True

    def _enter(self, state: str, step: int, reason: str = "") -> None:
        total = self.trainer.total_steps if self.trainer is not None else 0
        self.report(StateChanged(state, step, total, reason))


def main(run_folder: str, events: Any, commands: Any, supervisor_pid: int) -> None:
    """Entry of the worker process."""
    faulthandler.enable()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s", stream=sys.stderr)
    folder = RunFolder(Path(run_folder))
    reporter = Reporter(events)
    worker = Worker(folder, reporter, Inbox(commands), supervisor_pid)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, worker.on_signal)
    code = 0
    try:
        reporter(worker.run())
    except Orphaned:
        log.error("the supervisor is gone: checkpoint saved, leaving")
        _record_interruption(folder, worker)
        code = ORPHANED_EXIT
    except StopAsked as stop:
        reporter(Stopped(folder.recorded_status().step, stop.reason))
    except BaseException as error:
        traceback.print_exc()
        step = worker.trainer.step if worker.trainer is not None else 0
        message = _for_the_user(error)
        reporter(ErrorEvent(message, step, clip_text(traceback.format_exc())))
        reporter(Failed(step, message, kind="data" if _is_the_users(error) else "failed"))
        code = 2 if _is_the_users(error) else 1
    reporter.close()
    sys.stderr.flush()
    sys.stdout.flush()
    os._exit(code)  # no interpreter shutdown: a library's thread must not keep a finished run alive


def training_threads() -> int:
    """Threads for torch: one core is left for the app and the supervisor."""
    return max(1, len(os.sched_getaffinity(0)) - 1)


def _is_the_users(error: BaseException) -> bool:
    """Whether config, data or model are wrong, rather than the program or the machine."""
    return type(error).__name__ in ("ConfigError", "DataError", "PictureError", "ModelError")


def _for_the_user(error: BaseException) -> str:
    known = ("NonFinite", "CheckpointError", "LoraError", "RunError")
    text = str(error)
    if not (_is_the_users(error) or type(error).__name__ in known):
        text = f"{type(error).__name__}: {text}"
    return clip_text(text, 1200)


def _record_interruption(folder: RunFolder, worker: Worker) -> None:
    """The supervisor cannot say it any more, so the worker does, once it has the lock."""
    try:
        with folder.hold():
            status = folder.recorded_status()
            status.state = "interrupted"
            status.error = "the supervisor went without a word; a checkpoint was saved, continue with `acrf-tui resume`"
            status.supervisor_pid = status.worker_pid = None
            status.step = worker.trainer.step if worker.trainer is not None else status.step
            folder.write_status(status)
    except RunError:
        log.warning("someone else holds the run already")
