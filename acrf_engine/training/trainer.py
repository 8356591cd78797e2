"""The training loop, top to bottom.

One *step* is one optimizer update of `gradient_accumulation` micro-batches. Everything random depends on the
micro-batch's number alone, so position, LoRA, optimizer and live settings are all that a checkpoint needs. Commands act
between steps.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate import Accelerator
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from acrf_engine.config import RunConfig
from acrf_engine.data.batches import Batch
from acrf_engine.data.loader import Loader, MicroBatches
from acrf_engine.method.losses import Lambdas
from acrf_engine.method.step import MicroStep, acrf_micro_step
from acrf_engine.model import lora
from acrf_engine.model.zimage import velocity
from acrf_engine.protocol import Checkpoint, Step, WarningEvent, clip_text
from acrf_engine.run.changes import changed_keys
from acrf_engine.run.folder import RunFolder
from acrf_engine.training import checkpoint as checkpoints
from acrf_engine.training.balance import AnchorBalance
from acrf_engine.training.identity import environment
from acrf_engine.training.lora_saving import save_trained
from acrf_engine.training.optim import Ramp, learning_rate, make_optimizer
from acrf_engine.training.preparation import Prepared, Report, to_device

if TYPE_CHECKING:
    from diffusers.training_utils import EMAModel


class NonFinite(Exception):
    """A loss or gradient is NaN or infinite; the message says at which step, where, and in which pictures."""


class MismatchError(checkpoints.CheckpointError):
    """A run cannot be resumed: its config or data are not those it began with; the message names what changed."""


@dataclass
class Settings:
    """The values that may be changed while a run goes on."""

    learning_rate: float
    max_grad_norm: float
    snr_gamma: float
    jitter_scale: float
    lambda_char: float
    lambda_cos: float
    lambda_fft: float

    @classmethod
    def of(cls, config: RunConfig) -> Settings:
        return cls(
            config.learning_rate,
            config.optimization.max_grad_norm,
            config.snr_gamma,
            config.jitter_scale,
            config.loss.lambda_char,
            config.loss.lambda_cos,
            config.loss.lambda_fft,
        )


@dataclass(frozen=True)
class SavedState:
    """`state` of a checkpoint: position, what was set live, and what a resumed run is held against."""

    step: int
    micro_step: int
    settings: Settings
    ramp: Ramp | None
    balance: AnchorBalance
    anchors: list[float]
    config: dict[str, Any]
    dataset: str
    environment: dict[str, str]

    @classmethod
    def of(cls, path: Path, snapshot: checkpoints.Snapshot) -> SavedState:
        """The state of a checkpoint that lacks nothing; raises CheckpointError naming what is missing."""
        try:
            saved: SavedState = _SAVED_STATE.validate_python(snapshot.state)
            averaged = saved.run_config().optimization.ema_decay > 0
        except ValidationError as error:
            names = ", ".join(".".join(map(str, problem["loc"])) for problem in error.errors())
            raise checkpoints.CheckpointError(f"{path}: incomplete: no good {names} in {checkpoints.STATE}") from error
        if averaged and snapshot.ema is None:
            raise checkpoints.CheckpointError(f"{path}: incomplete: {checkpoints.EMA} is missing")
        return saved

    def run_config(self) -> RunConfig:
        return RunConfig.model_validate(self.config, strict=False)


_SAVED_STATE = TypeAdapter(SavedState)


class Trainer:
    """Trains a prepared run step by step. `step` counts finished updates; `micro_step` the micro-batches so far."""

    def __init__(self, config: RunConfig, folder: RunFolder, prepared: Prepared, report: Report) -> None:
        self.config = config
        self.folder = folder
        self.report = report
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
        self.accelerator = Accelerator(cpu=prepared.device.type == "cpu", mixed_precision="no")
        optimizer = make_optimizer(config, prepared.trainable)
        self.transformer, self.optimizer = self.accelerator.prepare(prepared.transformer, optimizer)
        self.transformer.train()
        self.ema: EMAModel | None = None
        if decay := config.optimization.ema_decay:
            from diffusers.training_utils import EMAModel

            self.ema = EMAModel(prepared.trainable, decay=decay, foreach=True)
        batches = MicroBatches(
            prepared.dataset, prepared.plan, config.seed, config.data.flip, config.data.caption_dropout
        )
        self.loader = Loader(batches, config.data.num_workers)
        checkpoints.clean(folder.checkpoints)
        for unfinished in folder.lora.glob(f".{folder.name}*.tmp"):  # what a killed writer left
            unfinished.unlink(missing_ok=True)
        if (found := checkpoints.newest(folder.checkpoints, SavedState.of, self._warn)) is not None:
            path, snapshot = found
            saved = SavedState.of(path, snapshot)
            self._check_identity(path, saved)
            self._restore(snapshot)
            self._keep_live_settings(saved)
        elif unusable := checkpoints.in_place(folder.checkpoints):
            raise checkpoints.CheckpointError(
                f"{folder.checkpoints}: none of the {len(unusable)} checkpoints can be used, the warnings say why "
                "(bring one back, or move them away to start from the first step)"
            )

    # ---- the step ----------------------------------------------------------------------------------------------------

    def train_step(self) -> Step:
        """One optimizer update. Raises NonFinite, with nothing updated, where a loss or the gradient is not finite."""
        started = time.perf_counter()
        self._apply_settings()
        accumulation = self.config.gradient_accumulation
        micros: list[MicroStep] = []
        pictures: list[int] = []
        for index in range(accumulation):
            batch = self._load_batch(self.micro_step + index)
            last = index == accumulation - 1
            lora.seed_dropout(self.config, self.micro_step + index)
            with contextlib.nullcontext() if last else self.accelerator.no_sync(self.transformer):
                micro = acrf_micro_step(
                    self._velocity, batch.latents_BCHW, batch.captions, self.method, draw=self.micro_step + index
                )
                self.accelerator.backward(micro.loss / accumulation)
            micros.append(micro)
            pictures.extend(batch.indices)

        limit = self.settings.max_grad_norm or math.inf
        grad_norm = self.accelerator.clip_grad_norm_(self.prepared.trainable, limit)
        measured = _Measured.of(micros, grad_norm)  # the step's only wait for the device
        self._require_finite(measured, pictures)
        rate = learning_rate(self.config, self.peak_rate(), self.step, self.total_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
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
        self.optimizer.zero_grad(set_to_none=True)

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
        return Batch(batch.latents_BCHW.to(device), to_device(batch.captions, device), batch.indices)

    def _apply_settings(self) -> None:
        settings = self.settings
        self.method.snr_gamma = settings.snr_gamma
        self.method.jitter_scale = settings.jitter_scale
        self.method.lambdas = Lambdas(settings.lambda_char, settings.lambda_cos, settings.lambda_fft)

    def _require_finite(self, measured: _Measured, pictures: list[int]) -> None:
        bad = [
            f"{name} is {value}"
            for name, value in (
                ("loss", measured.loss),
                ("Char", measured.char),
                ("Cos", measured.cos),
                ("FFT", measured.fft),
                ("gradient norm", measured.grad_norm),
            )
            if not math.isfinite(value)
        ]
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
            checkpoints.Snapshot(tensors, self.optimizer.optimizer.state_dict(), self._state(), averages),
        )
        checkpoints.rotate(self.folder.checkpoints, self.config.checkpoint.keep)
        lora_path = self.folder.step_lora(self.step)
        self.save_lora(lora_path)
        return Checkpoint(self.step, str(path), size, time.perf_counter() - started, str(lora_path))

    def save_lora(self, path: Path) -> int:
        """Write the LoRA in the default format and read it back. Returns the number of modules in it."""
        epoch = self.micro_step / self.prepared.plan.batches_per_epoch
        with self.averaged_weights():
            return save_trained(
                path, self.config, self.folder, self.prepared, step=self.step, total_steps=self.total_steps, epoch=epoch
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

    def _state(self) -> dict[str, Any]:
        return dataclasses.asdict(
            SavedState(
                step=self.step,
                micro_step=self.micro_step,
                settings=self.settings,
                ramp=self.ramp,
                balance=self.balance,
                anchors=self.method.anchors_K.tolist(),
                config=self.config.model_dump(mode="json"),
                dataset=self.prepared.dataset.fingerprint,
                environment=environment(),
            )
        )

    def roll_back(self) -> bool:
        """Go back to the newest good checkpoint, live settings included; False where there is none."""
        found = checkpoints.newest(self.folder.checkpoints, SavedState.of, self._warn)
        if found is None:
            return False
        saved = SavedState.of(*found)
        self.forget_gradients()
        self._restore(found[1])
        self.settings = saved.settings
        self.ramp = None
        return True

    def _restore(self, snapshot: checkpoints.Snapshot) -> None:
        saved = _SAVED_STATE.validate_python(snapshot.state)
        if self.ema is not None and snapshot.ema is not None:
            lora.load_weights(self.prepared.transformer, snapshot.ema)
            averages = [parameter.detach() for parameter in self.prepared.trainable]
            self.ema.load_state_dict({"shadow_params": averages, "optimization_step": saved.step})  # copies them
        lora.load_weights(self.prepared.transformer, snapshot.lora)
        self.optimizer.optimizer.load_state_dict(snapshot.optimizer)
        self.step, self.micro_step = saved.step, saved.micro_step
        self.balance = saved.balance

    def _keep_live_settings(self, saved: SavedState) -> None:
        """What was set live goes on, unless the config has been changed since, or the key was given on resuming."""
        before = Settings.of(saved.run_config())
        live = saved.settings
        given = {key.rpartition(".")[2] for key in self.folder.read_given_keys()}
        now = vars(self.settings)
        changed = {name for name, value in now.items() if value != getattr(before, name) or name in given}
        self.settings = Settings(
            **{name: value if name in changed else getattr(live, name) for name, value in now.items()}
        )
        self.ramp = None if "learning_rate" in changed else saved.ramp

    def _check_identity(self, path: Path, saved: SavedState) -> None:
        """Raises MismatchError, by name, where config, data or anchors are not those of the checkpoint."""
        changed = changed_keys(saved.run_config(), self.config)
        if changed:
            raise MismatchError(
                f"{self.folder.config}: {', '.join(changed)} changed since {path.name}; a resumed run must go on as it "
                "began (undo the change, or start a new run)"
            )
        if saved.dataset != self.prepared.dataset.fingerprint:
            raise MismatchError(
                f"the pictures or captions changed since {path.name}; a resumed run must see the same data "
                "(restore them, or start a new run)"
            )
        if saved.anchors != self.method.anchors_K.tolist():
            raise MismatchError(
                f"the anchors changed since {path.name}: the model's scheduler, or the installed diffusers, is another "
                "one (bring the former one back, or start a new run)"
            )
        if saved.environment != environment():
            self.report(
                WarningEvent(
                    f"resumed from {path.name} in another environment (library versions or device differ): "
                    "the run goes on, but not bit for bit",
                    saved.step,
                )
            )


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except OSError:
        return None


@dataclass(frozen=True)
class _Measured:
    """A step's numbers as Python floats."""

    loss: float
    char: float
    cos: float
    fft: float
    grad_norm: float
    sigmas: list[float]
    anchors: list[int]
    weights: list[float]
    losses: list[float]

    @classmethod
    def of(cls, micros: list[MicroStep], grad_norm: Tensor) -> _Measured:
        rows = torch.stack(
            [torch.stack([m.loss.detach(), m.char_B.mean(), m.cos_B.mean(), m.fft_B.mean()]) for m in micros]
        )
        loss, char, cos, fft = rows.double().mean(0).tolist()
        return cls(
            loss,
            char,
            cos,
            fft,
            float(grad_norm),
            torch.cat([m.sigma_B for m in micros]).tolist(),
            torch.cat([m.anchor_B for m in micros]).tolist(),
            torch.cat([m.weight_B for m in micros]).tolist(),
            torch.cat([m.composite_B for m in micros]).tolist(),
        )
