"""When a checkpoint is due: every so many steps, and at the end of every so many epochs."""

from __future__ import annotations

from acrf_engine.training.trainer import Trainer


class SavingTimes:
    """Asked after each step. An epoch that ends inside a step counts as ended with that step."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self._epochs = self._ended()

    def due(self) -> bool:
        """Whether the step that was just taken is one to save at. The last step is saved anyway."""
        trainer, config = self._trainer, self._trainer.config.checkpoint
        before, self._epochs = self._epochs, self._ended()
        by_steps = config.every > 0 and trainer.step % config.every == 0
        by_epochs = config.every_epochs > 0 and self._epochs // config.every_epochs > before // config.every_epochs
        return (by_steps or by_epochs) and trainer.step < trainer.total_steps

    def _ended(self) -> int:
        return self._trainer.micro_step // self._trainer.prepared.plan.batches_per_epoch
