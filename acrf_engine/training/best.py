"""The best LoRA by validation loss, kept beside the others. Its file is the record: step and loss stand in it."""

from __future__ import annotations

import math

from acrf_engine.protocol import Best, Validation
from acrf_engine.run.folder import RunError
from acrf_engine.run.lora_files import VALIDATION_LOSS, VALIDATION_PICTURES, metadata_of
from acrf_engine.training.trainer import Trainer


class BestLora:
    """Keeps the LoRA of the lowest validation loss that was ever measured in this run.

    Read from the file, so that a resume or a rollback, which go back to an older checkpoint, cannot lose it or put a
    worse one in its place. What is measured before the first step is the base model's loss, and no LoRA.
    """

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self._path = trainer.folder.best_lora()
        try:
            self.loss = float(metadata_of(self._path)[VALIDATION_LOSS])
        except (RunError, LookupError, ValueError):
            self.loss = math.inf

    def consider(self, measured: Validation) -> Best | None:
        """Write the file where this loss is lower than all before. Raises LoraError, with the former file in place."""
        if measured.step == 0 or not measured.loss < self.loss:  # so NaN is never the best
            return None
        said = {VALIDATION_LOSS: repr(measured.loss), VALIDATION_PICTURES: str(measured.pictures)}
        self._trainer.save_lora(self._path, said)
        self.loss = measured.loss
        return Best(measured.step, measured.loss, str(self._path))
