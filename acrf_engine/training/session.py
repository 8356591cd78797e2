"""A run from its first step to its last: the loop around the trainer, and the commands that act between steps.

Each command is acknowledged with the step at which it took effect, or refused with the reason.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch

from acrf_engine.config import build_config
from acrf_engine.model.lora import LoraError
from acrf_engine.protocol import (
    SETTABLE,
    Ack,
    Command,
    Event,
    Finished,
    Progress,
    StateChanged,
    Stopped,
    Validation,
    WarningEvent,
)
from acrf_engine.run.link import Inbox
from acrf_engine.run.replay import read_script
from acrf_engine.run.wire import clip_text
from acrf_engine.training.best import BestLora
from acrf_engine.training.checkpoint import CheckpointError
from acrf_engine.training.ending import Orphaned, StopAsked
from acrf_engine.training.parking import park, unpark
from acrf_engine.training.plan import memory_event
from acrf_engine.training.preparation import Report
from acrf_engine.training.previews import draw_previews
from acrf_engine.training.recovery import OutOfMemory, Recovery
from acrf_engine.training.saved_state import Settings
from acrf_engine.training.saving_times import SavingTimes
from acrf_engine.training.schedule import Ramp
from acrf_engine.training.trainer import Trainer
from acrf_engine.training.validation import Validator
from acrf_engine.yaml_source import ConfigError

log = logging.getLogger("acrf.worker")


PAUSE_POLL_S = 0.25
MAX_RAMP = 10_000_000
MEMORY_PERIOD_S = 1.0
RETRY_PERIOD_S = 60.0
FINAL_PERIOD_S = 5.0
FINAL_PATIENCE_S = 60.0


class Session:
    """A prepared run from its first step to its last.

    Args:
        inbox: where commands arrive.
        watch: called between steps, also while paused; raises Orphaned or StopAsked to leave.
        waiting: commands that came before the first step.
    """

    def __init__(
        self, trainer: Trainer, report: Report, inbox: Inbox, watch: Callable[[], None], waiting: list[Command]
    ) -> None:
        self.trainer = trainer
        self.report = report
        self.paused = False
        self.parked = False
        self._inbox = inbox
        self._watch = watch
        self._waiting = waiting
        self._retry_at = math.inf
        self._script = read_script(trainer.folder)
        self._validator = Validator(trainer)
        self._best = BestLora(trainer) if trainer.config.validation.keep_best else None

    def run(self) -> Event:
        """Train to the end. Returns the last event; raises Orphaned after a last checkpoint."""
        trainer = self.trainer
        self.enter("running")
        try:
            self._train()
            return self._finish()
        except StopAsked as stop:
            self.enter("stopping", stop.reason)
            self.checkpoint()
            if stop.command is not None:
                self.acknowledge(stop.command, f"stopped at step {trainer.step}, checkpoint saved")
            return Stopped(trainer.step, stop.reason)
        except Orphaned:
            self.checkpoint()
            raise

    def _finish(self) -> Event:
        """Save what the run was for. A full disk: try for a minute, or pause until there is room, by config."""
        path = self.trainer.folder.final_lora()
        patience_s = math.inf if self.trainer.config.checkpoint.on_error == "pause" else FINAL_PATIENCE_S
        give_up = time.monotonic() + patience_s
        while True:
            try:
                self.checkpoint()
                self.trainer.save_lora(path)
                return Finished(self.trainer.step, str(path))
            except (CheckpointError, LoraError) as error:
                if time.monotonic() > give_up or not isinstance(error.__cause__, OSError):
                    raise
                if not self.paused:
                    message = clip_text(f"the last checkpoint waits for room: {error}")
                    self.report(WarningEvent(message, self.trainer.step))
                    self.paused = True
                    self.enter("paused", "the last checkpoint cannot be written")
                again = time.monotonic() + FINAL_PERIOD_S
                while self.paused and time.monotonic() < again:
                    self._obey_once()

    def _train(self) -> None:
        trainer, config = self.trainer, self.trainer.config
        recovery = Recovery(trainer, config.safety, self.report)
        saving = SavingTimes(trainer)
        next_memory = 0.0
        self._validate()
        while trainer.step < trainer.total_steps:
            self._obey()
            self._follow_script()
            try:
                taken = recovery.step()
            except OutOfMemory as error:
                self._pause_for_memory(str(error))
                continue
            if taken is None:
                continue
            self.report(taken)
            if saving.due() or time.monotonic() > self._retry_at:
                self._checkpoint_or_warn()
            if (every := config.preview.every) and trainer.step % every == 0:
                self._preview()
            self._validate()
            if time.monotonic() > next_memory:
                next_memory = time.monotonic() + MEMORY_PERIOD_S
                if (memory := memory_event(trainer.prepared.device)) is not None:
                    self.report(memory)
        self._obey()

    def _obey(self) -> None:
        """Act on what has arrived; stays here while paused."""
        self._obey_once()
        while self.paused:
            self._obey_once()

    def _obey_once(self) -> None:
        self._watch()
        waiting, self._waiting = self._waiting, []
        for command in [*waiting, *self._inbox.poll(PAUSE_POLL_S if self.paused and not waiting else 0.0)]:
            self._act(command)

    def _act(self, command: Command) -> None:
        match command.name:
            case "pause" if self.paused:
                self.acknowledge(command, "already paused")
            case "pause":
                self.paused = True
                self.enter("paused")
                self.acknowledge(command, f"paused after step {self.trainer.step}")
            case "resume" if not self.paused:
                self.acknowledge(command, "already running")
            case "resume" if self.parked and not self._unpark(command):
                return
            case "resume":
                self.paused = False
                self.enter("running")
                self.acknowledge(command, f"going on after step {self.trainer.step}")
            case "checkpoint":
                try:
                    self.checkpoint()
                except Exception as error:
                    log.exception("checkpoint")
                    self.acknowledge(command, str(error), ok=False)
                else:
                    self.acknowledge(command, f"checkpoint of step {self.trainer.step} saved")
            case "preview" if self.parked:
                self.acknowledge(command, "the model is not on the GPU (reload first)", ok=False)
            case "preview":
                drawn = self._preview()
                pictures = "1 preview" if drawn == 1 else f"{drawn} previews"
                self.acknowledge(command, f"{pictures} drawn" if drawn else "the preview failed", ok=drawn > 0)
            case "stop":
                raise StopAsked("asked to stop", command)
            case "set":
                self._set(command)
            case "free-vram":
                self._free_vram(command)
            case "reload":
                self._reload(command)
            case other:
                self.acknowledge(command, f"unknown command {other!r}", ok=False)

    def _free_vram(self, command: Command) -> None:
        if self.trainer.prepared.device.type != "cuda":
            self.acknowledge(command, "this run trains on the CPU: there is no VRAM to free", ok=False)
        elif self.trainer.config.memory.offload:
            message = "memory.offload keeps the base in RAM already: there is little VRAM to give back"
            self.acknowledge(command, message, ok=False)
        elif self.trainer.ranks.several:
            message = "several processes keep their VRAM (stop the run instead: resume goes on bit for bit)"
            self.acknowledge(command, message, ok=False)
        elif not self.paused:
            self.acknowledge(command, "pause first: VRAM can be given back only while paused", ok=False)
        elif self.parked:
            self.acknowledge(command, "the VRAM is given back already")
        else:
            freed = park(self.trainer)
            self.parked = True
            self.acknowledge(command, f"{freed / 2**30:.1f} GiB of VRAM given back; resume or reload takes it again")

    def _reload(self, command: Command) -> None:
        if not self.parked:
            self.acknowledge(command, "the model is loaded already")
        elif self._unpark(command):
            self.acknowledge(command, "the model is on the GPU again")

    def _unpark(self, command: Command) -> bool:
        """Take the VRAM back; where that fails, refuses `command` and stays paused."""
        try:
            unpark(self.trainer)
        except torch.OutOfMemoryError:
            log.exception("reload")
            self.acknowledge(command, "the GPU has no room now (someone else uses it); still paused", ok=False)
            return False
        self.parked = False
        return True

    def _set(self, command: Command) -> None:
        key, text = str(command.args.get("key", "")), str(command.args.get("value", ""))
        if key not in SETTABLE:
            self.acknowledge(
                command, f"{key or 'no key'} cannot change while training (one of {', '.join(SETTABLE)})", ok=False
            )
            return
        try:
            ramp = int(command.args.get("ramp", 0))
            old, new = self._change(key, text, ramp)
        except (ConfigError, ValueError, TypeError, OverflowError) as error:
            self.acknowledge(command, str(error).removeprefix("--set: "), ok=False)
            return
        self.acknowledge(
            command,
            f"{key} {old:g} -> {new:g}, from step {self.trainer.step + 1} on"
            + (f", over {ramp} steps" if ramp else ""),
            key=key,
            value=new,
            previous=old,
            ramp=ramp,
        )

    def _change(self, key: str, text: str, ramp: int) -> tuple[float, float]:
        """Change a live setting; returns the old and the new value. Raises ConfigError, with nothing changed."""
        if not 0 <= ramp <= MAX_RAMP or (ramp and key != "learning_rate"):
            raise ConfigError(f"a ramp takes a number of steps up to {MAX_RAMP:,}, and only learning_rate has one")
        config = build_config(self._current_values(), name="set", overrides=[f"{key}={text}"])
        if key == "learning_rate":
            self.trainer.ramp = Ramp(self.trainer.step, ramp, self.trainer.peak_rate()) if ramp else None
        previous, self.trainer.settings = self.trainer.settings, Settings.of(config)
        name = key.rpartition(".")[2]
        return getattr(previous, name), getattr(self.trainer.settings, name)

    def _follow_script(self) -> None:
        """In a replay: plan and set what was planned and set at this step, and stop where the original ended."""
        if self._script is None:
            return
        self.trainer.planned_steps = self._script.planned_at(self.trainer.step, self.trainer.total_steps)
        for change in self._script.changes:
            if change.step == self.trainer.step:
                self._set(
                    Command("set", "replay", {"key": change.key, "value": repr(change.value), "ramp": change.ramp})
                )
        if self.trainer.step >= self._script.until and self.trainer.step < self.trainer.total_steps:
            raise StopAsked("the replayed run ended here")

    def _current_values(self) -> dict[str, Any]:
        """The config as plain values, with the live settings in place."""
        values: dict[str, Any] = self.trainer.config.model_dump(mode="json")
        live = asdict(self.trainer.settings)
        for key in SETTABLE:
            group, _, name = key.rpartition(".")
            (values[group] if group else values)[name] = live[name]
        return values

    def acknowledge(self, command: Command, message: str, *, ok: bool = True, **extra: Any) -> None:
        self.report(Ack(command.id, command.name, ok, self.trainer.step, clip_text(message), **extra))

    def checkpoint(self) -> None:
        step, total = self.trainer.step, self.trainer.total_steps
        self.report(Progress("saving", step, total, f"checkpoint of step {step}"))
        self.report(self.trainer.save_checkpoint())
        self._retry_at = math.inf

    def _checkpoint_or_warn(self) -> None:
        try:
            self.checkpoint()
        except Exception as error:
            log.exception("checkpoint")
            pause = self.trainer.config.checkpoint.on_error == "pause"
            self._retry_at = time.monotonic() + RETRY_PERIOD_S
            what = "training is paused" if pause else "training goes on, and saving is tried again"
            self.report(WarningEvent(clip_text(f"checkpoint failed, {what}: {error}"), self.trainer.step))
            if pause and not self.paused:
                self.paused = True
                self.enter("paused", "a checkpoint cannot be written")

    def _pause_for_memory(self, advice: str) -> None:
        self._checkpoint_or_warn()
        self.report(WarningEvent(advice, self.trainer.step))
        self.paused = True
        self.enter("paused", "the GPU is out of memory")

    def _preview(self) -> int:
        try:
            drawn = draw_previews(self.trainer)
        except Exception as error:
            log.exception("preview")
            self.report(WarningEvent(clip_text(f"preview failed, training goes on: {error}"), self.trainer.step))
            return 0
        for preview in drawn:
            self.report(preview)
        return len(drawn)

    def _validate(self) -> None:
        """Measure the held-out pictures where that is due. Commands act in between; a stop abandons the measure."""
        if not self._validator.due:
            return
        try:
            measured = self._validator.measure(self._obey)
        except (StopAsked, Orphaned):
            raise
        except Exception as error:
            log.exception("validation")
            self.report(WarningEvent(clip_text(f"validation failed, training goes on: {error}"), self.trainer.step))
            return
        self.report(measured)
        if not math.isfinite(measured.loss):
            message = "the validation loss is not finite: the weights give NaN or infinite numbers on held-out pictures"
            self.report(WarningEvent(message, measured.step))
        if self._best is not None:
            self._keep_best(self._best, measured)

    def _keep_best(self, best: BestLora, measured: Validation) -> None:
        try:
            kept = best.consider(measured)
        except Exception as error:
            log.exception("best LoRA")
            message = f"the best LoRA so far could not be saved, training goes on: {error}"
            self.report(WarningEvent(clip_text(message), measured.step))
            return
        if kept is not None:
            self.report(kept)

    def enter(self, state: str, reason: str = "") -> None:
        """Tell the state that the run is in now."""
        self.report(StateChanged(state, self.trainer.step, self.trainer.total_steps, reason))
