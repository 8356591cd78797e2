"""RunConfig: one schema for the YAML files, the forms of the app, and the docs.

Every field's description is what the editor and `docs/config.md` show. Unknown keys, wrong types and values out of
range are errors that name file, line and key. A setting that would have no effect is refused, not ignored.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import Field, ValidationError, field_validator, model_validator

from acrf_engine.config_group import Group as Group
from acrf_engine.config_group import NonNegative
from acrf_engine.config_problems import Problem, explain, line_of
from acrf_engine.memory_config import BaseConfig, MemoryConfig
from acrf_engine.memory_config import block_numbers as block_numbers
from acrf_engine.paths import shown_if_not_utf8
from acrf_engine.yaml_source import ConfigError, KeyPath, dump_text, load_file, parse_value

TINY_MODEL = "tiny"
DEMO_DATASET = "demo"
ASSETS = Path(__file__).parent / "assets"
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")

GroupType = TypeVar("GroupType", bound=Group)
FOLDER: dict[str, Any] = {"format": "folder"}
"""Of fields that may name a folder: where one types such a path, it is completed."""


class DatasetSource(Group):
    """One folder of pictures with captions beside them."""

    path: str
    """Folder of pictures (png, jpg, jpeg, webp, bmp); captions are .txt files of the same name."""
    default_caption: str = Field("", max_length=4000)
    """Caption of pictures that have no .txt file."""
    repeats: int = Field(1, ge=1, le=1000)
    """How often each picture of this folder is seen in one epoch."""


class DataConfig(Group):
    """What a batch is made of, and by whom."""

    num_workers: int = Field(0, ge=0, le=16)
    """Loader processes that put batches together ahead of the training loop; 0: the training process does it."""
    flip: bool = False
    """Mirror each picture with probability 1/2; latents are cached both ways."""
    caption_dropout: float = Field(0.0, ge=0, le=1, allow_inf_nan=False)
    """Share of the pictures that are trained on the embedding of the empty prompt in the place of their caption."""


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


class LoraConfig(Group):
    """What is trained (paper, section 5.3)."""

    targets: Literal["std", "ext"] | Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)] = "std"
    """`std`: attention q, k, v, out; `ext`: feed-forward too; or patterns: ends of module names, or regexes."""
    refiners: bool = False
    """Also train the noise and context refiner blocks."""
    blocks: str = "all"
    """Which of the blocks (layers.N) to train, such as `0-9,20`."""
    dropout: float = Field(0.0, ge=0, lt=1, allow_inf_nan=False)
    """Share of the LoRA's inputs that are set to 0 in training."""
    use_rslora: bool = False
    """Scale the update by alpha / sqrt(rank) instead of alpha / rank, so that large ranks learn as fast (rsLoRA)."""
    use_dora: bool = False
    """Learn length and direction of every weight row apart (DoRA); slower, and read by fewer programs."""
    init_from: str = ""
    """Start from this LoRA file (diffusers, ComfyUI or kohya format) of the same rank, instead of from nothing."""

    @field_validator("targets")
    @classmethod
    def _patterns_are_regular_expressions(cls, targets: str | list[str]) -> str | list[str]:
        for pattern in targets if isinstance(targets, list) else []:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"{pattern!r} is no regular expression: {error}") from None
        return targets

    @field_validator("blocks", mode="before")
    @classmethod
    def _blocks_are_ranges(cls, blocks: Any) -> Any:
        text = str(blocks) if type(blocks) is int else blocks  # YAML reads one block as a number
        if isinstance(text, str) and text != "all":
            block_numbers(text)
        return text


class OptimizationConfig(Group):
    """The update."""

    weight_decay: NonNegative = 0.01
    """Decoupled weight decay of AdamW."""
    max_grad_norm: NonNegative = 1.0
    """Clip the gradient's L2 norm to this (paper, section 6.3); 0 turns clipping off."""
    ema_decay: float = Field(0.0, ge=0, lt=1, allow_inf_nan=False)
    """Decay of the LoRA's moving average (0.99, say; warmed up), which LoRA files and previews then show; 0: off."""


class ScheduleConfig(Group):
    """The learning rate over the run (paper, section 6.2)."""

    warmup_steps: int = Field(0, ge=0)
    """Optimizer steps of linear warm-up."""
    min_lr: NonNegative = 1e-6
    """The rate that the cosine schedules end at."""
    cycles: int = Field(3, ge=1, le=1000)
    """How many cosine arcs `cosine_with_restarts` runs."""


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


class CheckpointConfig(Group):
    """Saving."""

    every: int = Field(200, ge=0)
    """Save a checkpoint and a LoRA every this many steps; 0: only at the end and when asked."""
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
    """Pictures per micro-batch."""
    gradient_accumulation: int = Field(4, ge=1, le=1024)
    """Micro-batches per optimizer step (paper, section 6.1)."""
    learning_rate: float = Field(1e-4, gt=0, le=1, allow_inf_nan=False)
    """The schedule's highest rate."""
    optimizer: Literal["AdamW8bit", "AdamW"] = "AdamW8bit"
    """AdamW8bit (bitsandbytes) keeps its state in 8 bits."""
    scheduler: Literal["cosine_with_restarts", "cosine", "linear", "constant"] = "cosine_with_restarts"
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
    loss: LossConfig = LossConfig()
    anchors: AnchorConfig = AnchorConfig()
    base: BaseConfig = BaseConfig()
    lora: LoraConfig = LoraConfig()
    optimization: OptimizationConfig = OptimizationConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    preview: PreviewConfig = PreviewConfig()
    validation: ValidationConfig = ValidationConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    memory: MemoryConfig = MemoryConfig()
    safety: SafetyConfig = SafetyConfig()

    @model_validator(mode="after")
    def _every_setting_has_an_effect(self) -> Self:
        if self.scheduler != "cosine_with_restarts" and self.schedule.cycles != ScheduleConfig().cycles:
            raise ValueError(f"schedule.cycles has no effect with scheduler {self.scheduler!r} (remove it)")
        if self.scheduler == "constant" and self.schedule.min_lr != ScheduleConfig().min_lr:
            raise ValueError("schedule.min_lr has no effect with scheduler 'constant' (remove it)")
        if self.scheduler != "constant" and self.schedule.min_lr > self.learning_rate:
            raise ValueError(
                f"schedule.min_lr {self.schedule.min_lr:g} is above learning_rate {self.learning_rate:g} (lower it)"
            )
        if self.snr_gamma == 0 and self.loss.weighting != "min_snr":
            raise ValueError("loss.weighting has no effect with snr_gamma 0 (remove it)")
        if self.safety.non_finite == "stop" and self.safety.non_finite_limit != SafetyConfig().non_finite_limit:
            raise ValueError("safety.non_finite_limit has no effect with non_finite 'stop' (remove it)")
        if self.validation.holdout == 0 and self.validation.every != ValidationConfig().every:
            raise ValueError("validation.every has no effect with validation.holdout 0 (hold pictures out)")
        if self.lora.use_dora and self.memory.quantization in ("int8", "fp8"):
            raise ValueError(
                f"lora.use_dora needs the rows of each weight, which memory.quantization {self.memory.quantization!r} "
                "does not give (use nf4 or none with it)"
            )
        if self.jitter_scale == 0 and self.anchors.jitter != "uniform":
            raise ValueError("anchors.jitter has no effect with jitter_scale 0 (remove it)")
        return self

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
        return _absolute(config)
    except _Missing as missing:
        where = ""
        if origin is not None and origin.is_file():
            line = line_of(tuple(missing.key.split(".")), load_file(origin)[1])
            where = f"{origin}:{line}: " if line else f"{origin}: "
        raise ConfigError(f"{where}{missing.key}: {missing}") from None


class _Missing(Exception):
    """What a config points to is not there."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key


def _absolute(config: RunConfig) -> RunConfig:
    sources = []
    for source in config.sources():
        folder = ASSETS / "demo" if source.path == DEMO_DATASET else Path(source.path).expanduser().absolute()
        _require_pictures(folder)
        sources.append(source.model_copy(update={"path": str(folder)}))
    if isinstance(config.dataset, str):
        dataset: Any = config.dataset if config.dataset == DEMO_DATASET else sources[0].path
    else:
        dataset = sources
    return config.model_copy(
        update={
            "model": _resolve_model(config.model),
            "dataset": dataset,
            "lora": _with_file(config.lora, "lora", "init_from"),
            "base": _with_file(_with_file(config.base, "base", "transformer"), "base", "training_adapter"),
        }
    )


def model_folder(model: str) -> Path | None:
    """Where the model's folder is; None for a hub id."""
    if model == TINY_MODEL:
        return ASSETS / "tiny"
    path = Path(model).expanduser()
    return path if path.is_dir() else None


def dataset_folder(source: DatasetSource) -> Path:
    return ASSETS / "demo" if source.path == DEMO_DATASET else Path(source.path)


def dump(config: RunConfig) -> str:
    """The resolved config as YAML, every key present, in the schema's order."""
    return dump_text(config.model_dump(mode="json"))


def _resolve_model(model: str) -> str:
    if model == TINY_MODEL:
        return model
    path = Path(model).expanduser()
    _require_utf8(path.absolute(), "model")
    if path.is_file():
        raise _Missing(
            "model",
            f"{path}: this is one file (set model to the folder in diffusers layout that has the other parts, and "
            "base.transformer to this file)",
        )
    if path.is_dir():
        if not (path / "model_index.json").is_file():
            raise _Missing(
                "model",
                f"{path}: no model_index.json in this folder (expected the diffusers layout: model_index.json, "
                "transformer/, vae/, text_encoder/, tokenizer/, scheduler/)",
            )
        return str(path.absolute())
    looks_like_hub = model.count("/") == 1 and not model.startswith((".", "/", "~"))
    if looks_like_hub:
        return model
    raise _Missing("model", f"{path.absolute()}: there is no such folder (give a folder, a hub id, or `tiny`)")


def _with_file(group: GroupType, name: str, key: str) -> GroupType:
    """The group with the absolute path of the file that `key` names, where it names one."""
    if not (text := getattr(group, key)):
        return group
    path = Path(text).expanduser().absolute()
    _require_utf8(path, f"{name}.{key}")
    if not path.is_file():
        raise _Missing(f"{name}.{key}", f"{path}: there is no such file (give a .safetensors file)")
    return group.model_copy(update={key: str(path)})


def _require_utf8(path: Path, key: str) -> None:
    if shown := shown_if_not_utf8(path):
        raise _Missing(key, f"{shown}: this path is no valid UTF-8 (rename the folder)")


def _require_pictures(folder: Path) -> None:
    _require_utf8(folder, "dataset")
    if not folder.exists():
        raise _Missing("dataset", f"{folder}: there is no such folder (make it and put pictures in, or fix the path)")
    if not folder.is_dir():
        raise _Missing("dataset", f"{folder}: this is a file, not a folder (give the folder it is in)")
    try:
        names = [name for _, _, files in os.walk(folder) for name in files if not name.startswith(".")]
    except OSError as error:
        raise _Missing("dataset", f"{folder}: cannot be read ({error.strerror})") from None
    if not any(name.lower().endswith(PICTURE_SUFFIXES) for name in names):
        kinds = sorted({Path(name).suffix.lower() or name for name in names})[:5]
        found = f"; it holds {len(names)} other files: {', '.join(kinds)}" if names else "; it is empty"
        raise _Missing("dataset", f"{folder}: no pictures found ({', '.join(PICTURE_SUFFIXES)}{found})")


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
