"""What a run goes on from: the live settings, its position, and what a resumed run is held against."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from acrf_engine.config import RunConfig
from acrf_engine.training.balance import AnchorBalance
from acrf_engine.training.checkpoint import EMA, STATE, CheckpointError, Snapshot, verified
from acrf_engine.training.schedule import Ramp


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
    dataset_parts: dict[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def run_config(self) -> RunConfig:
        """The config that the run began with. Raises ValidationError."""
        return RunConfig.model_validate(self.config, strict=False)

    def settings_for(self, config: RunConfig, given: set[str]) -> tuple[Settings, Ramp | None]:
        """What was set live goes on, unless `config` has been changed since, or the key was `given` on resuming."""
        before, now = vars(Settings.of(self.run_config())), vars(Settings.of(config))
        changed = {name for name, value in now.items() if value != before[name] or name in given}
        live = vars(self.settings)
        kept = Settings(**{name: value if name in changed else live[name] for name, value in now.items()})
        return kept, None if "learning_rate" in changed else self.ramp


_SAVED_STATE = TypeAdapter(SavedState)


@dataclass(frozen=True)
class Saved:
    """A checkpoint that lacks nothing: its tensors and its state."""

    path: Path
    snapshot: Snapshot
    state: SavedState

    @classmethod
    def of(cls, path: Path, snapshot: Snapshot) -> Saved:
        """Raises CheckpointError naming what is missing."""
        try:
            state: SavedState = _SAVED_STATE.validate_python(snapshot.state)
            averaged = state.run_config().optimization.ema_decay > 0
        except ValidationError as error:
            names = ", ".join(".".join(map(str, problem["loc"])) for problem in error.errors())
            raise CheckpointError(f"{path}: incomplete: no good {names} in {STATE}") from error
        if missing := {"state", "param_groups"} - snapshot.optimizer.keys():
            names = ", ".join(f"optimizer.{name}" for name in sorted(missing))
            raise CheckpointError(f"{path}: incomplete: no good {names} in {STATE}")
        if averaged and snapshot.ema is None:
            raise CheckpointError(f"{path}: incomplete: {EMA} is missing")
        return cls(path, snapshot, state)


def newest(folder: Path, tell: Callable[[str], None]) -> Saved | None:
    """The newest checkpoint that lacks nothing; None where there is none. `tell` is told of each unusable one."""
    for path, snapshot in verified(folder, tell):
        try:
            return Saved.of(path, snapshot)
        except CheckpointError as error:
            tell(f"{error}; trying the one before")
    return None
