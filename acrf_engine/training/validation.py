"""Validation: the loss on held-out pictures, at a step boundary, with nothing changed by it.

The noise of every picture and anchor is the same each time, so that two points of the curve differ by the weights
alone. No random generator, no weight and no gradient is touched: a run with validation trains as one without.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from acrf_engine.method.validation import held_out_losses
from acrf_engine.model.zimage import velocity
from acrf_engine.protocol import Progress, Validation
from acrf_engine.training.trainer import Trainer


class Validator:
    """Measures when it is due: every `validation.every` steps, before the first and after the last.

    A resumed run whose checkpoint stands on such a step measures anew, since a measure may have been abandoned.
    """

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self._measured_at: int | None = None

    @property
    def due(self) -> bool:
        """Whether this step is one to measure at, and was not measured yet."""
        trainer = self._trainer
        if not trainer.prepared.held_out.examples or trainer.step == self._measured_at:
            return False
        every = trainer.config.validation.every
        return trainer.step in (0, trainer.total_steps) or (every > 0 and trainer.step % every == 0)

    def measure(self, between: Callable[[], None]) -> Validation:
        """The loss of the weights that LoRA files get (the moving average, where there is one).

        The model runs on `batch_size` anchors of one picture at a time; `between` is called before each such run, in
        which commands may act. What it raises abandons the measure.
        """
        trainer = self._trainer
        examples = trainer.prepared.held_out.examples
        step, size, anchors = trainer.step, trainer.config.batch_size, range(len(trainer.method.anchors_K))
        trainer.apply_settings()
        self._measured_at = step
        sums = [0.0] * len(anchors)
        seconds = 0.0
        for done, example in enumerate(examples):
            trainer.report(Progress("validating", done, len(examples), "held-out pictures"))
            for start in range(0, len(anchors), size):
                between()
                started = time.perf_counter()
                chosen = anchors[start : start + size]
                for anchor, loss in zip(chosen, self._losses(example.index, chosen), strict=True):
                    sums[anchor] += loss
                seconds += time.perf_counter() - started
        trainer.report(Progress("validating", len(examples), len(examples), "held-out pictures"))
        losses = [total / len(examples) for total in sums]
        return Validation(step, sum(losses) / len(losses), losses, trainer.prepared.held_out.pictures, seconds)

    def _losses(self, picture: int, anchors: range) -> list[float]:
        prepared = self._trainer.prepared
        example = prepared.held_out.examples[picture]
        prepared.transformer.eval()
        try:
            # Around every run of the model anew: a command between two of them meets the raw weights.
            with self._trainer.averaged_weights():
                losses_A = held_out_losses(
                    lambda x, sigma, captions: velocity(prepared.transformer, x, sigma, captions),
                    example.latent_CHW.to(prepared.device),
                    example.caption_LD.to(prepared.device),
                    self._trainer.method,
                    picture,
                    anchors,
                    None if example.mask_HW is None else example.mask_HW.to(prepared.device),
                )
        finally:
            prepared.transformer.train()
        losses: list[float] = losses_A.tolist()
        return losses
