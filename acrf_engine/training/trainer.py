"""The training loop, top to bottom.

One *step* is one optimizer update of `gradient_accumulation` micro-batches. Everything random depends on the
micro-batch's number alone, so position, LoRA, optimizer and live settings are all that a checkpoint needs. Commands act
between steps.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelerate import Accelerator
from torch import Tensor

from acrf_engine.config import RunConfig
from acrf_engine.data.batches import Batch
from acrf_engine.data.loader import Loader, MicroBatches
from acrf_engine.method.losses import Lambdas
from acrf_engine.method.step import MicroStep, acrf_micro_step
from acrf_engine.model import lora
from acrf_engine.model.zimage import velocity
from acrf_engine.protocol import Checkpoint, Step, WarningEvent
from acrf_engine.run.folder import RunFolder
from acrf_engine.run.wire import clip_text
from acrf_engine.training import checkpoint as checkpoints
from acrf_engine.training import saved_state
from acrf_engine.training.balance import AnchorBalance
from acrf_engine.training.identity import environment, require_same_run
from acrf_engine.training.lora_saving import save_trained
from acrf_engine.training.measured import Measured
from acrf_engine.training.optim import load_state, make_optimizer
from acrf_engine.training.preparation import Prepared, Report
from acrf_engine.training.ranks import Ranks
from acrf_engine.training.saved_state import Saved, SavedState, Settings
from acrf_engine.training.schedule import Ramp, learning_rate
from acrf_engine.transfer import sent

if TYPE_CHECKING:
    from diffusers.training_utils import EMAModel


class NonFinite(Exception):
    """A loss or gradient is NaN or infinite; the message says at which step, where, and in which pictures."""


class Trainer:
    """Trains a prepared run step by step. `step` counts finished updates; `micro_step` the micro-batches so far."""

    def __init__(
        self, config: RunConfig, folder: RunFolder, prepared: Prepared, report: Report, ranks: Ranks | None = None
    ) -> None:
        self.config = config
        self.folder = folder
        self.report = report
        self.ranks = ranks or Ranks()
        self._home = _inode(folder.path)
        self.prepared = prepared
        self.method = prepared.method
        self.settings = Settings.of(config)
        self.balance = AnchorBalance.of(len(self.method.anchors_K))
        self.ramp: Ramp | None = None
        self.step = 0
        self.micro_step = 0
        per_epoch = prepared.plan.batches_per_epoch
        self.total_steps = config.steps or math.ceil(config.epochs * per_epoch / config.gradient_accumulation)
        self.planned_steps = self.total_steps
        """What the schedule plans for; a replay of a run that was extended plans as that run did at each step."""
        self.accelerator = Accelerator(cpu=prepared.device.type == "cpu", mixed_precision="no")
        optimizer = make_optimizer(config, prepared.trainable)
        self.transformer, self.optimizer = self.accelerator.prepare(prepared.transformer, optimizer)
        self.transformer.train()
        self.ema: EMAModel | None = None
        if decay := config.optimization.ema_decay:
            from diffusers.training_utils import EMAModel

            self.ema = EMAModel(prepared.trainable, decay=decay, foreach=True)
        batches = MicroBatches(
            prepared.dataset,
            prepared.plan,
            config.seed,
            config.data.flip,
            config.data.caption_dropout,
            self.ranks.rank,
            self.ranks.count,
        )
        self.loader = Loader(batches, config.data.num_workers)
        if self.ranks.main:
            self._go_on()
        else:
            self.ranks.next_order()
            self.receive_state()

    def _go_on(self) -> None:
        """Go on from the newest good checkpoint, where there is one, and let the other ranks do so too."""
        config, folder, prepared = self.config, self.folder, self.prepared
        checkpoints.clean(folder.checkpoints)
        for unfinished in folder.lora.glob(f".{folder.name}*.tmp"):  # what a killed writer left
            unfinished.unlink(missing_ok=True)
        if (saved := saved_state.newest(folder.checkpoints, self._warn)) is not None:
            require_same_run(saved, config, folder, prepared, self.report)
            self._restore(saved)
            given = {key.rpartition(".")[2] for key in folder.read_given_keys()}
            self.settings, self.ramp = saved.state.settings_for(config, given)
        elif unusable := checkpoints.in_place(folder.checkpoints):
            raise checkpoints.CheckpointError(
                f"{folder.checkpoints}: none of the {len(unusable)} checkpoints can be used, the warnings say why "
                "(bring one back, or move them away to start from the first step)"
            )
        self._send_state(saved)

    def _send_state(self, saved: Saved | None) -> None:
        self.ranks.order("go on")
        if self.ranks.several:
            self.ranks.send_files({} if saved is None else checkpoints.encoded(saved.snapshot))

    # ---- the step ----------------------------------------------------------------------------------------------------

    def train_step(self) -> Step:
        """One optimizer update. Raises NonFinite, with nothing updated, where a loss or the gradient is not finite."""
        started = time.perf_counter()
        self.ranks.order("step", **self.position())
        self.apply_settings()
        accumulation = self.config.gradient_accumulation
        micros: list[MicroStep] = []
        pictures: list[int] = []
        for index in range(accumulation):
            batch_number = self.micro_step + index
            batch = self._load_batch(batch_number)
            last = index == accumulation - 1
            lora.seed_dropout(self.config, batch_number, self.ranks.rank)
            with contextlib.nullcontext() if last else self.accelerator.no_sync(self.transformer):
                micro = acrf_micro_step(
                    self._velocity,
                    batch.latents_BCHW,
                    batch.captions,
                    self.method,
                    draw=batch_number,
                    masks_BHW=batch.masks_BHW,
                    picture_weights=batch.weights,
                    part=batch.part,
                )
                self.accelerator.backward(micro.loss / accumulation)
            micros.append(micro)
            pictures.extend(self.prepared.plan.at(batch_number) if batch.part else batch.indices)

        limit = self.settings.max_grad_norm or math.inf
        grad_norm = self.accelerator.clip_grad_norm_(self.prepared.trainable, limit)
        # The step's only wait for the device; every rank sees the same numbers, and so does the same.
        measured = Measured.of(micros, grad_norm, self.ranks, self.config.batch_size)
        self._require_finite(measured, pictures)
        rate = learning_rate(self.config, self.peak_rate(), self.step, self.planned_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        # Not by accelerate's wrapper, whose step looks on disk for an optional package, twice each time.
        self.optimizer.optimizer.step()
        self.forget_gradients()
        if self.ema is not None:
            self.ema.step(self.prepared.trainable)

        self.step += 1
        self.micro_step += accumulation
        for anchor, loss in zip(measured.anchors, measured.losses, strict=True):
            self.balance.add(anchor, loss)
        return Step(
            step=self.step,
            total_steps=self.total_steps,
            epoch=self.micro_step / self.prepared.plan.batches_per_epoch,
            loss=measured.loss,
            loss_char=measured.char,
            loss_cos=measured.cos,
            loss_fft=measured.fft,
            loss_balanced=self.balance.value(),
            lr=rate,
            grad_norm=measured.grad_norm,
            step_time_s=time.perf_counter() - started,
            sigmas=measured.sigmas,
            anchors=measured.anchors,
            weights=measured.weights,
            losses=measured.losses,
        )

    def peak_rate(self) -> float:
        """The schedule's highest rate at the next update: the setting, or where a ramp to it stands."""
        target = self.settings.learning_rate
        return self.ramp.peak(target, self.step) if self.ramp is not None else target

    def skip_step(self) -> None:
        """Leave out the next step's micro-batches; `step` counts updates and stays."""
        self.micro_step += self.config.gradient_accumulation

    def forget_gradients(self) -> None:
        self.optimizer.optimizer.zero_grad(set_to_none=True)

    def _warn(self, message: str) -> None:
        self.report(WarningEvent(clip_text(message), self.step))

    def close(self) -> None:
        """End what runs beside the training loop."""
        self.loader.close()

    def _velocity(self, x_BCHW: Tensor, sigma_B: Tensor, captions: list[Tensor]) -> Tensor:
        return velocity(self.transformer, x_BCHW, sigma_B, captions)

    def _load_batch(self, micro_step: int) -> Batch:
        batch = self.loader.at(micro_step)
        device = self.prepared.device
        return replace(
            batch,
            latents_BCHW=sent(batch.latents_BCHW, device),
            captions=[sent(caption_LD, device) for caption_LD in batch.captions],
            masks_BHW=None if batch.masks_BHW is None else sent(batch.masks_BHW, device),
        )

    def apply_settings(self) -> None:
        """Let the method work with the settings as they are now."""
        settings = self.settings
        self.method.snr_gamma = settings.snr_gamma
        self.method.jitter_scale = settings.jitter_scale
        self.method.lambdas = Lambdas(settings.lambda_char, settings.lambda_cos, settings.lambda_fft)

    def _require_finite(self, measured: Measured, pictures: list[int]) -> None:
        bad = measured.non_finite()
        if not bad:
            return
        self.forget_gradients()
        examples = self.prepared.dataset.examples
        names = dict.fromkeys(
            examples[index].picture.path.name
            for index, loss in zip(pictures, measured.losses, strict=True)
            if not math.isfinite(loss)
        )
        where = f" in {', '.join(list(names)[:5])}" if names else ""
        raise NonFinite(
            f"step {self.step + 1}: {', '.join(bad)}{where}; no update was made "
            "(lower learning_rate, or resume from the last checkpoint)"
        )

    # ---- saving and going on -----------------------------------------------------------------------------------------

    def save_checkpoint(self) -> Checkpoint:
        """Checkpoint and LoRA file of the present step. Raises CheckpointError or LoraError; training can go on."""
        started = time.perf_counter()
        if _inode(self.folder.path) != self._home:  # writing would make it anew, or go into somebody else's run
            raise checkpoints.CheckpointError(f"{self.folder.path}: the run folder was removed, moved or replaced")
        tensors = lora.weights(self.prepared.transformer)
        lora.require_finite(tensors)  # a checkpoint with NaN in it would be one to resume from
        averages = None if self.ema is None else dict(zip(tensors, self.ema.shadow_params, strict=True))
        path, size = checkpoints.write(
            self.folder.checkpoints,
            self.step,
            checkpoints.Snapshot(tensors, self.optimizer.optimizer.state_dict(), self._state().as_dict(), averages),
        )
        self.folder.forget_given_keys()
        checkpoints.rotate(self.folder.checkpoints, self.config.checkpoint.keep)
        lora_path = self.folder.step_lora(self.step)
        self.save_lora(lora_path)
        return Checkpoint(self.step, str(path), size, time.perf_counter() - started, str(lora_path))

    def save_lora(self, path: Path, more: Mapping[str, str] | None = None) -> int:
        """Write the LoRA in the default format, with `more` metadata, and read it back. Returns its modules' number."""
        epoch = self.micro_step / self.prepared.plan.batches_per_epoch
        with self.averaged_weights():
            return save_trained(
                path,
                self.config,
                self.folder,
                self.prepared,
                step=self.step,
                total_steps=self.total_steps,
                epoch=epoch,
                more=more or {},
            )

    @contextlib.contextmanager
    def averaged_weights(self) -> Iterator[None]:
        """With the LoRA's moving average in the model, where the run keeps one; the raw weights come back after."""
        if self.ema is None:
            yield
            return
        self.ema.store(self.prepared.trainable)
        self.ema.copy_to(self.prepared.trainable)
        try:
            yield
        finally:
            self.ema.restore(self.prepared.trainable)

    def _state(self) -> SavedState:
        return SavedState(
            step=self.step,
            micro_step=self.micro_step,
            settings=self.settings,
            ramp=self.ramp,
            balance=self.balance,
            anchors=self.method.anchors_K.tolist(),
            config=self.config.model_dump(mode="json"),
            dataset=self.prepared.dataset.fingerprint,
            dataset_parts=dict(self.prepared.dataset.parts),
            base=self.prepared.base,
            environment=environment(self.config.optimizer),
        )

    def roll_back(self) -> bool:
        """Go back to the newest good checkpoint, live settings included; False where there is none."""
        saved = saved_state.newest(self.folder.checkpoints, self._warn)
        if saved is None:
            return False
        self._send_state(saved)
        self.forget_gradients()
        self._restore(saved)
        self.settings = saved.state.settings
        self.ramp = None
        return True

    def position(self) -> dict[str, Any]:
        """What the next step depends on beside the weights, for the other ranks."""
        ramp = None if self.ramp is None else asdict(self.ramp)
        return {
            "step": self.step,
            "micro_step": self.micro_step,
            "planned_steps": self.planned_steps,
            "settings": asdict(self.settings),
            "ramp": ramp,
        }

    def take_position(
        self, step: int, micro_step: int, planned_steps: int, settings: dict[str, float], ramp: dict[str, Any] | None
    ) -> None:
        """Another rank than 0: stand where rank 0 stands, with its settings."""
        self.step, self.micro_step, self.planned_steps = step, micro_step, planned_steps
        self.settings, self.ramp = Settings(**settings), None if ramp is None else Ramp(**ramp)

    def receive_state(self) -> None:
        """Another rank than 0: go on from what rank 0 goes on from, after its order to do so."""
        if files := self.ranks.receive_files():
            self.forget_gradients()
            self._restore(Saved.of(self.folder.path, checkpoints.decoded(files)))

    def _restore(self, saved: Saved) -> None:
        snapshot, state = saved.snapshot, saved.state
        if self.ema is not None and snapshot.ema is not None:
            lora.load_weights(self.prepared.transformer, snapshot.ema)
            averages = [parameter.detach() for parameter in self.prepared.trainable]
            self.ema.load_state_dict({"shadow_params": averages, "optimization_step": state.step})  # copies them
        lora.load_weights(self.prepared.transformer, snapshot.lora)
        load_state(self.optimizer.optimizer, snapshot.optimizer)
        self.step, self.micro_step = state.step, state.micro_step
        self.balance = state.balance


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except OSError:
        return None
