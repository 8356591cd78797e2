"""What to do when a step cannot be taken: numbers that are not finite, or a card without room.

No update is ever made from such a step. Non-finite numbers follow `safety.non_finite`: stop the run, skip the step, or
go back to the last good checkpoint with half the learning rate. Out of memory is tried once more with everything freed,
then pauses the run with advice.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import torch

from acrf_engine.config import SafetyConfig
from acrf_engine.model.compiling import compile_errors, is_compiled, run_uncompiled
from acrf_engine.model.device import free_memory
from acrf_engine.protocol import Event, Step, WarningEvent
from acrf_engine.run.wire import clip_text
from acrf_engine.training.plan import plan_event
from acrf_engine.training.trainer import NonFinite, Trainer

log = logging.getLogger("acrf.recovery")

OUT_OF_MEMORY_ADVICE = (
    "the GPU is out of memory: lower resolution or batch_size, turn memory.gradient_checkpointing on, set "
    "memory.quantization, or free the card and press space to try again"
)


ADVICE_FOR_SEVERAL = (
    "a GPU is out of memory: lower resolution or batch_size, turn memory.gradient_checkpointing on, or use "
    "distributed.strategy fsdp2, then continue with `acrf-tui resume`"
)


class OutOfMemory(Exception):
    """A step does not fit on the card, tried twice. Nothing was updated."""


class RankOutOfMemory(Exception):
    """As OutOfMemory, where several processes train: it ends the run."""


class Recovery:
    """Takes steps, and keeps count of what went wrong in a row."""

    def __init__(self, trainer: Trainer, safety: SafetyConfig, report: Callable[[Event], None]) -> None:
        self._trainer = trainer
        self._safety = safety
        self._report = report
        self._in_a_row = 0
        self._timed = False

    def step(self) -> Step | None:
        """A step, or None where it was skipped or rolled back.

        Raises NonFinite by policy or after too many in a row, and OutOfMemory after one retry.
        """
        try:
            taken = self._with_memory()
        except NonFinite as error:
            self._handle(error)
            return None
        self._in_a_row = 0
        return taken

    def _compiled(self) -> Step:
        """A step; where its blocks cannot be compiled, the run goes on without, and says so."""
        transformer, began = self._trainer.prepared.transformer, time.perf_counter()
        if self._timed or not is_compiled(transformer):
            return self._trainer.train_step()
        try:
            taken = self._trainer.train_step()
        except compile_errors() as error:
            log.exception("torch.compile")
            reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
            message = f"the blocks cannot be compiled, and run as they are from here on: {reason.strip()}"
            self._report(WarningEvent(clip_text(message), self._trainer.step))
        else:
            self._timed = True
            seconds = time.perf_counter() - began
            message = f"the first step took {seconds:.1f} s, in which the blocks were compiled"
            self._report(WarningEvent(message, taken.step))
            return taken
        # Outside the handler: the traceback would keep the failed step's tensors alive.
        run_uncompiled(transformer)
        self._trainer.forget_gradients()
        return self._trainer.train_step()

    def _with_memory(self) -> Step:
        try:
            return self._compiled()
        except torch.OutOfMemoryError as error:
            if self._trainer.ranks.several:  # the others are in the middle of the step, and cannot try again
                raise RankOutOfMemory(f"step {self._trainer.step + 1}: {ADVICE_FOR_SEVERAL}") from error
            log.warning("out of memory at step %s, trying once more", self._trainer.step + 1, exc_info=True)
        # Outside the handler: the traceback would keep the failed step's tensors alive.
        self._trainer.forget_gradients()
        free_memory()
        try:
            return self._compiled()
        except torch.OutOfMemoryError:
            log.exception("out of memory at step %s again", self._trainer.step + 1)
        self._trainer.forget_gradients()
        free_memory()
        raise OutOfMemory(f"step {self._trainer.step + 1}: {OUT_OF_MEMORY_ADVICE}")

    def _handle(self, error: NonFinite) -> None:
        self._in_a_row += 1
        policy, limit = self._safety.non_finite, self._safety.non_finite_limit
        if policy == "stop":
            raise error
        if self._in_a_row > limit:
            raise NonFinite(f"{error}; {limit} times in a row, safety.non_finite_limit is reached") from error
        if policy == "skip":
            self._trainer.skip_step()
            self._report(WarningEvent(f"skipped ({self._in_a_row} of {limit} in a row): {error}", self._trainer.step))
            return
        failed_at = self._trainer.step + 1
        rate = self._trainer.settings.learning_rate / 2
        if not self._trainer.roll_back():
            raise NonFinite(f"{error}; there is no checkpoint to go back to") from error
        self._trainer.settings.learning_rate = rate
        message = f"back from step {failed_at} to {self._trainer.step} with learning_rate {rate:g}: {error}"
        self._report(WarningEvent(message, self._trainer.step))
        self._report(plan_event(self._trainer))  # readers forget the steps after it
