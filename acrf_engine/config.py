"""RunConfig: one schema for the YAML files, the forms of the app, and the docs.

Every field's description is what the editor and `docs/config.md` show. Unknown keys, wrong types and values out of
range are errors that name file, line and key. A setting that would have no effect is refused, not ignored.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from acrf_engine import config_paths
from acrf_engine.config_group import FOLDER, NonNegative
from acrf_engine.config_group import Group as Group
from acrf_engine.config_paths import ASSETS as ASSETS
from acrf_engine.config_paths import DEMO_DATASET as DEMO_DATASET
from acrf_engine.config_paths import TINY_MODEL as TINY_MODEL
from acrf_engine.config_paths import dataset_folder as dataset_folder
from acrf_engine.config_paths import model_folder as model_folder
from acrf_engine.config_problems import Problem, explain, line_of
from acrf_engine.data_config import PICTURE_SUFFIXES as PICTURE_SUFFIXES
from acrf_engine.data_config import DataConfig, RegularisationConfig
from acrf_engine.data_config import DatasetSource as DatasetSource
from acrf_engine.distributed_config import DistributedConfig
from acrf_engine.logging_config import LoggingConfig
from acrf_engine.lora_config import LoraConfig
from acrf_engine.memory_config import BaseConfig, MemoryConfig
from acrf_engine.optimizer_config import (
    OptimizationConfig,
    OptimizerName,
    ScheduleConfig,
    SchedulerName,
    known_or_path,
    refusal,
)
from acrf_engine.yaml_source import ConfigError, KeyPath, dump_text, load_file, parse_value


class LossConfig(Group):
    """The composite loss (paper, section 4)."""

    lambda_char: NonNegative = 1.0
    """Weight of the Charbonnier loss (lambda 1)."""
    lambda_cos: NonNegative = 0.1
    """Weight of the cosine loss (lambda 2); 0 turns it off."""
    lambda_fft: NonNegative = 0.1
    """Weight of the FFT loss (lambda 3); 0 turns it off."""
    charbonnier: Literal["element", "norm"] = "element"
    """Per element then mean, or the vector norm of the formula as printed."""
    weighting: Literal["min_snr", "min_snr_plus_one"] = "min_snr"
    """min(SNR, gamma)/SNR as in the paper, or the public variant min(SNR, gamma)/(SNR + 1)."""

    @model_validator(mode="after")
    def _something_to_minimise(self) -> Self:
        if self.lambda_char == self.lambda_cos == self.lambda_fft == 0:
            raise ValueError("all three lambdas are 0: there is nothing to minimise (set lambda_char to 1.0)")
        return self


class AnchorConfig(Group):
    """Where the training sigmas come from (paper, section 2)."""

    source: Literal["scheduler", "pipeline"] = "scheduler"
    """`scheduler`: the paper's own call; `pipeline`: the sigmas that the installed Z-Image pipeline really runs."""
    order: Literal["deck", "random"] = "deck"
    """`deck`: dealt from a shuffled deck, so that K draws cover all K anchors; `random`: drawn anew for every batch."""
    jitter: Literal["uniform", "normal"] = "uniform"
    """Distribution of the jitter: uniform(-eta, eta) of section 2.2, or the normal one of appendix B."""


class PreviewConfig(Group):
    """Pictures drawn with few steps during training, each beside the same seed without the LoRA."""

    every: int = Field(0, ge=0)
    """Draw previews every this many steps; 0: only when asked."""
    prompts: list[Annotated[str, Field(min_length=1, max_length=4000)]] = Field(default_factory=list, max_length=16)
    """What to draw; empty: the first caption of the data set."""
    steps: int = Field(8, ge=1, le=100)
    """Sampling steps (Turbo is made for 8)."""
    seed: int = Field(42, ge=0, lt=2**63)
    """Seed of the noise, the same for every preview."""


class ValidationConfig(Group):
    """The loss on held-out pictures, with the same noise each time: the mean over all anchors, unweighted."""

    holdout: int = Field(0, ge=0, le=10_000)
    """How many pictures of the data set are never trained on, chosen by content and seed; 0: no validation."""
    every: int = Field(100, ge=0)
    """Measure every this many steps, and before the first and after the last; 0: only then."""
    keep_best: bool = True
    """Keep the LoRA of the lowest loss as `lora/NAME-best.safetensors`, whatever is saved later."""


class CheckpointConfig(Group):
    """Saving."""

    every: int = Field(200, ge=0)
    """Save a checkpoint and a LoRA every this many steps; 0: only at the end and when asked."""
    every_epochs: int = Field(0, ge=0, le=100_000)
    """Save them also at the end of every this many epochs; 0: not by epochs."""
    keep: int = Field(3, ge=2, le=1000)
    """Keep the newest this many checkpoints (LoRA files are all kept)."""
    on_error: Literal["continue", "pause"] = "continue"
    """When a checkpoint cannot be written (a full disk): train on and try again, or pause until there is room."""


class SafetyConfig(Group):
    """What to do when a loss or gradient is NaN or infinite; no update is ever made from such a step."""

    non_finite: Literal["stop", "skip", "rollback"] = "stop"
    """`stop` fails the run, `skip` leaves the step out, `rollback` goes to the last checkpoint with half the rate."""
    non_finite_limit: int = Field(5, ge=1, le=1000)
    """With skip and rollback: fail after this many in a row."""


class RunConfig(Group):
    """Everything a run depends on."""

    model: str = Field(TINY_MODEL, min_length=1, json_schema_extra=FOLDER)
    """`tiny`, a folder in diffusers layout, or a hub id such as Tongyi-MAI/Z-Image-Turbo."""
    dataset: str | list[DatasetSource] = Field(DEMO_DATASET, json_schema_extra=FOLDER)
    """A folder of pictures and captions, a list of such with options, or `demo`."""
    trigger: str = Field("", max_length=200)
    """Trigger word, put before every caption that does not hold it."""
    epochs: int = Field(10, ge=1, le=100_000)
    """Passes over the data."""
    steps: int | None = Field(None, ge=1, le=10_000_000)
    """End after this many optimizer steps, whatever the epochs; schedules plan for it."""
    batch_size: int = Field(1, ge=1, le=1024)
    """Pictures per micro-batch, of each process."""
    gradient_accumulation: int = Field(4, ge=1, le=1024)
    """Micro-batches per optimizer step (paper, section 6.1)."""
    learning_rate: float = Field(1e-4, gt=0, le=1, allow_inf_nan=False)
    """The schedule's highest rate."""
    optimizer: OptimizerName = "AdamW8bit"
    """By name (docs/optimizers.md says which to take), or the import path of an installed package.module.Class."""
    scheduler: SchedulerName = "cosine_with_restarts"
    """Shape of the learning rate over the run."""
    network_dim: int = Field(16, ge=1, le=1024)
    """LoRA rank."""
    network_alpha: float = Field(16.0, gt=0, le=4096, allow_inf_nan=False)
    """LoRA alpha: the update is scaled by alpha / rank."""
    snr_gamma: float = Field(5.0, ge=0, le=1e6, allow_inf_nan=False)
    """Min-SNR gamma (paper, section 3.2); 0 turns the weighting off."""
    turbo_steps: int = Field(10, ge=1, le=100)
    """K, the number of anchors: the sampling steps you will use."""
    jitter_scale: float = Field(0.02, ge=0, le=0.5, allow_inf_nan=False)
    """eta, the jitter around each anchor, in sigma."""
    resolution: Literal["auto"] | Annotated[int, Field(ge=32, le=4096, multiple_of=16)] = "auto"
    """Side in pixels of a square of the training pictures' area; `auto` is the model's own."""
    seed: int = Field(0, ge=0, lt=2**63)
    """Seed of everything random."""
    restarts: int = Field(0, ge=0, le=100)
    """Start the worker again this often when it dies; given up when it dies twice at the same step."""
    hang_timeout: int = Field(0, ge=0, le=86_400)
    """Seconds without a step after which a running worker counts as hung and is killed; 0: only warn."""
    on_finish: str = Field("", max_length=4000)
    """Shell command to run when the run has finished; its output goes to the log. ACRF_RUN is the run's folder."""
    on_failure: str = Field("", max_length=4000)
    """Shell command to run when the run has failed or was interrupted for good."""
    data: DataConfig = DataConfig()
    regularisation: RegularisationConfig = RegularisationConfig()
    loss: LossConfig = LossConfig()
    anchors: AnchorConfig = AnchorConfig()
    base: BaseConfig = BaseConfig()
    lora: LoraConfig = LoraConfig()
    optimization: OptimizationConfig = OptimizationConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    preview: PreviewConfig = PreviewConfig()
    validation: ValidationConfig = ValidationConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    logging: LoggingConfig = LoggingConfig()
    memory: MemoryConfig = MemoryConfig()
    distributed: DistributedConfig = DistributedConfig()
    safety: SafetyConfig = SafetyConfig()

    @field_validator("optimizer", mode="before")
    @classmethod
    def _optimizer_is_known(cls, optimizer: Any) -> Any:
        return known_or_path(optimizer)

    @model_validator(mode="after")
    def _every_setting_has_an_effect(self) -> Self:
        if why := refusal(self.optimizer, self.scheduler, self.learning_rate, self.optimization, self.schedule):
            raise ValueError(why)
        if self.snr_gamma == 0 and self.loss.weighting != "min_snr":
            raise ValueError("loss.weighting has no effect with snr_gamma 0 (remove it)")
        if self.safety.non_finite == "stop" and self.safety.non_finite_limit != SafetyConfig().non_finite_limit:
            raise ValueError("safety.non_finite_limit has no effect with non_finite 'stop' (remove it)")
        if self.validation.holdout == 0 and self.validation.every != ValidationConfig().every:
            raise ValueError("validation.every has no effect with validation.holdout 0 (hold pictures out)")
        if self.validation.holdout == 0 and not self.validation.keep_best:
            raise ValueError("validation.keep_best has no effect with validation.holdout 0 (remove it)")
        if isinstance(self.dataset, list) and not self.dataset:
            raise ValueError("dataset: the list is empty (name the folder that holds your pictures)")
        if self.lora.use_dora and self.memory.quantization in ("int8", "fp8"):
            raise ValueError(
                f"lora.use_dora needs the rows of each weight, which memory.quantization {self.memory.quantization!r} "
                "does not give (use nf4 or none with it)"
            )
        if self.jitter_scale == 0 and self.anchors.jitter != "uniform":
            raise ValueError("anchors.jitter has no effect with jitter_scale 0 (remove it)")
        if self.distributed.num_processes > 1 and self.memory.device.startswith("cuda:"):
            raise ValueError(
                f"memory.device {self.memory.device} names one card, distributed.num_processes asks for "
                f"{self.distributed.num_processes} (use cuda or auto; CUDA_VISIBLE_DEVICES chooses among the cards)"
            )
        if self.distributed.strategy == "fsdp2" and self.memory.device == "cpu":
            raise ValueError(
                "distributed.strategy: accelerate shares out the weights between GPUs only: on the CPU it would train "
                "with ddp without a word (use ddp)"
            )
        if self.distributed.strategy == "fsdp2" and (self.memory.offload or self.memory.quantization != "none"):
            raise ValueError(
                "distributed.strategy: fsdp2 shares out a base that is neither offloaded nor quantised (use ddp, or "
                "remove memory.offload and memory.quantization)"
            )
        if self.distributed.backend == "nccl" and self.memory.device == "cpu":
            raise ValueError("distributed.backend: nccl needs GPUs (use auto or gloo)")
        return self

    @property
    def global_batch(self) -> int:
        """Pictures per micro-batch, of all processes together."""
        return self.batch_size * self.distributed.num_processes

    def sources(self) -> list[DatasetSource]:
        """The data set as a list of folders, whatever way it was written."""
        return [DatasetSource(path=self.dataset)] if isinstance(self.dataset, str) else self.dataset


def load_config(path: Path, overrides: list[str] | None = None) -> RunConfig:
    """The config of a YAML file, with `--set a.b=VALUE` overrides. Raises ConfigError naming file, line and key."""
    values, lines = load_file(path)
    return build_config(values, lines, str(path), overrides)


def build_config(
    values: dict[str, Any],
    lines: dict[KeyPath, int] | None = None,
    name: str = "config",
    overrides: list[str] | None = None,
) -> RunConfig:
    """A config of plain values; `lines` and `name` are for messages only. Raises ConfigError."""
    changed: set[str] = set()
    for override in overrides or []:
        changed.add(_apply(values, override))
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        problems = explain(error, RunConfig, lines or {}, name, changed)
        raise ConfigError("\n".join(problem.message for problem in problems)) from None


def problems_of(values: dict[str, Any], lines: dict[KeyPath, int], name: str) -> list[Problem]:
    """What `build_config` would refuse, one by one; empty where these values are a config."""
    try:
        RunConfig.model_validate(values)
    except ValidationError as error:
        return explain(error, RunConfig, lines, name, set())
    return []


def absolute(config: RunConfig, origin: Path | None = None) -> RunConfig:
    """The config with absolute paths, resolved against the current folder.

    Raises ConfigError for what is not there, naming the line of the file `origin` where it stands.
    """
    try:
        return config_paths.resolved(config)
    except config_paths.Missing as missing:
        where = ""
        if origin is not None and origin.is_file():
            keys = tuple(int(part) if part.isdigit() else part for part in missing.key.split("."))
            line = line_of(keys, load_file(origin)[1])
            where = f"{origin}:{line}: " if line else f"{origin}: "
        raise ConfigError(f"{where}{missing.key}: {missing}") from None


def dump(config: RunConfig) -> str:
    """The resolved config as YAML, every key present, in the schema's order."""
    return dump_text(config.model_dump(mode="json"))


def _apply(values: dict[str, Any], override: str) -> str:
    key, separator, text = override.partition("=")
    key = key.strip()
    if not separator or not key:
        raise ConfigError(f"--set {override}: expected KEY=VALUE, such as --set loss.lambda_fft=0.2")
    target = values
    *parents, leaf = key.split(".")
    for parent in parents:
        inner = target.setdefault(parent, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"--set {override}: {parent} is a single value, not a group")
        target = inner
    target[leaf] = parse_value(text)
    return key
