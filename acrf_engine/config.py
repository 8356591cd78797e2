"""RunConfig: one schema for the YAML files, the forms of the app, and the docs.

Every field's description is what the editor and `docs/config.md` show. Unknown keys, wrong types and values out of
range are errors that name file, line and key. A setting that would have no effect is refused, not ignored.
"""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Field, ValidationError, model_validator

from acrf_engine.config_group import Group as Group
from acrf_engine.config_group import NonNegative
from acrf_engine.data_config import PICTURE_SUFFIXES as PICTURE_SUFFIXES
from acrf_engine.data_config import DataConfig, RegularisationConfig
from acrf_engine.data_config import DatasetSource as DatasetSource
from acrf_engine.paths import shown_if_not_utf8
from acrf_engine.yaml_source import ConfigError, KeyPath, dump_text, load_file, parse_value

TINY_MODEL = "tiny"
DEMO_DATASET = "demo"
MASKS_IN_ALPHA = "alpha"
ASSETS = Path(__file__).parent / "assets"


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

    targets: Literal["std", "ext"] = "std"
    """`std`: attention q, k, v, out; `ext`: those and the feed-forward layers."""
    refiners: bool = False
    """Also train the noise and context refiner blocks."""


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


class MemoryConfig(Group):
    """What fits on the card."""

    dtype: Literal["auto", "bf16", "fp32"] = "auto"
    """Of the frozen base: `auto` is bf16 on a GPU and fp32 on a CPU."""
    device: Literal["auto", "cuda", "cpu"] | Annotated[str, Field(pattern=r"^cuda:[0-9]{1,2}$")] = "auto"
    """Where to train: `cpu`, `cuda:N` (as nvidia-smi counts), or `auto`: the GPU with most room that no run uses."""
    gradient_checkpointing: Literal["auto", "on", "off"] = "auto"
    """Trade time for memory; `auto` is on for models above one billion parameters."""


class SafetyConfig(Group):
    """What to do when a loss or gradient is NaN or infinite; no update is ever made from such a step."""

    non_finite: Literal["stop", "skip", "rollback"] = "stop"
    """`stop` fails the run, `skip` leaves the step out, `rollback` goes to the last checkpoint with half the rate."""
    non_finite_limit: int = Field(5, ge=1, le=1000)
    """With skip and rollback: fail after this many in a row."""


class RunConfig(Group):
    """Everything a run depends on."""

    model: str = Field(TINY_MODEL, min_length=1)
    """`tiny`, a folder in diffusers layout, or a hub id such as Tongyi-MAI/Z-Image-Turbo."""
    dataset: str | list[DatasetSource] = DEMO_DATASET
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
    regularisation: RegularisationConfig = RegularisationConfig()
    loss: LossConfig = LossConfig()
    anchors: AnchorConfig = AnchorConfig()
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
        if isinstance(self.dataset, list) and not self.dataset:
            raise ValueError("dataset: the list is empty (name the folder that holds your pictures)")
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
        raise ConfigError("\n".join(_explain(error, lines or {}, name, changed))) from None


def absolute(config: RunConfig, origin: Path | None = None) -> RunConfig:
    """The config with absolute paths, resolved against the current folder.

    Raises ConfigError for what is not there, naming the line of the file `origin` where it stands.
    """
    try:
        return _absolute(config)
    except _Missing as missing:
        where = ""
        if origin is not None and origin.is_file():
            keys = tuple(int(part) if part.isdigit() else part for part in missing.key.split("."))
            line = _line_of(keys, load_file(origin)[1])
            where = f"{origin}:{line}: " if line else f"{origin}: "
        raise ConfigError(f"{where}{missing.key}: {missing}") from None


class _Missing(Exception):
    """What a config points to is not there."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key


def _absolute(config: RunConfig) -> RunConfig:
    sources = []
    for index, source in enumerate(config.sources()):
        folder = ASSETS / "demo" if source.path == DEMO_DATASET else Path(source.path).expanduser().absolute()
        _require_pictures(folder)
        sources.append(source.model_copy(update={"path": str(folder), **_absolute_options(source, folder, index)}))
    if isinstance(config.dataset, str):
        dataset: Any = config.dataset if config.dataset == DEMO_DATASET else sources[0].path
    else:
        dataset = sources
    regularisation = config.regularisation
    if regularisation.path:
        folder = Path(regularisation.path).expanduser().absolute()
        _require_pictures(folder, "regularisation.path")
        regularisation = regularisation.model_copy(update={"path": str(folder)})
    return config.model_copy(
        update={"model": _resolve_model(config.model), "dataset": dataset, "regularisation": regularisation}
    )


def _absolute_options(source: DatasetSource, folder: Path, index: int) -> dict[str, str]:
    """The paths among a source's options; a captions file is looked for in the source's folder too."""
    options = {}
    if source.captions:
        given = Path(source.captions).expanduser()
        file = next((path for path in (given.absolute(), folder / given) if path.is_file()), None)
        if file is None:
            raise _Missing(f"dataset.{index}.captions", f"{given.absolute()}: there is no such file (fix the path)")
        _require_utf8(file, f"dataset.{index}.captions")
        options["captions"] = str(file)
    if source.masks not in ("", MASKS_IN_ALPHA):
        masks = Path(source.masks).expanduser().absolute()
        _require_pictures(masks, f"dataset.{index}.masks")
        options["masks"] = str(masks)
    return options


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


def _require_utf8(path: Path, key: str) -> None:
    if shown := shown_if_not_utf8(path):
        raise _Missing(key, f"{shown}: this path is no valid UTF-8 (rename the folder)")


def _require_pictures(folder: Path, key: str = "dataset") -> None:
    _require_utf8(folder, key)
    if not folder.exists():
        raise _Missing(key, f"{folder}: there is no such folder (make it and put pictures in, or fix the path)")
    if not folder.is_dir():
        raise _Missing(key, f"{folder}: this is a file, not a folder (give the folder it is in)")
    try:
        names = [name for _, _, files in os.walk(folder) for name in files if not name.startswith(".")]
    except OSError as error:
        raise _Missing(key, f"{folder}: cannot be read ({error.strerror})") from None
    if not any(name.lower().endswith(PICTURE_SUFFIXES) for name in names):
        kinds = sorted({Path(name).suffix.lower() or name for name in names})[:5]
        found = f"; it holds {len(names)} other files: {', '.join(kinds)}" if names else "; it is empty"
        raise _Missing(key, f"{folder}: no pictures found ({', '.join(PICTURE_SUFFIXES)}{found})")


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


def _explain(error: ValidationError, lines: dict[KeyPath, int], name: str, changed: set[str]) -> list[str]:
    reasons: dict[KeyPath, list[str]] = {}
    for problem in error.errors(include_url=False):
        *above, last = problem["loc"] or ("",)
        known = (last,) if problem["type"] == "extra_forbidden" or _is_key(last) else ()
        keys = tuple(part for part in above if _is_key(part)) + known
        keys = tuple(part for part in keys if part != "")
        reasons.setdefault(keys, []).append(_reason(problem, keys))
    messages = []
    for keys, texts in sorted(reasons.items(), key=lambda item: _line_of(item[0], lines) or 0):
        if any(len(other) > len(keys) and other[: len(keys)] == keys for other in reasons):
            continue  # the other branch of a union: the deeper one says what is wrong
        dotted = ".".join(map(str, keys))
        line = _line_of(keys, lines)
        where = "--set" if dotted in changed else f"{name}:{line}" if line else name
        messages.append(f"{where}: {dotted + ': ' if dotted else ''}{', or '.join(dict.fromkeys(texts))}")
    return messages[:20]


def _line_of(keys: KeyPath, lines: dict[KeyPath, int]) -> int | None:
    return next((lines[keys[:end]] for end in range(len(keys), 0, -1) if keys[:end] in lines), None)


def _is_key(part: str | int) -> bool:
    # pydantic puts the union member's name into the location: str, list[...], constrained-int, literal[...]
    return isinstance(part, int) or (
        not any(mark in part for mark in ("[", "-", "constrained")) and part not in ("str", "int")
    )


def _reason(problem: Any, keys: KeyPath) -> str:
    kind, given = problem["type"], problem.get("input")
    shown = repr(given)
    shown = shown if len(shown) <= 80 else shown[:77] + "..."
    if kind == "extra_forbidden":
        spelled = str(keys[-1]).replace("-", "_")
        close = difflib.get_close_matches(spelled, list(_names_at(keys[:-1])), n=1, cutoff=0.6)
        return f"unknown key (did you mean {close[0]}?)" if close else "unknown key (remove it)"
    if kind == "value_error":
        return str(problem["ctx"]["error"])
    if kind in ("int_type", "int_parsing", "float_type", "bool_type", "string_type", "int_from_float"):
        wanted = {"i": "a whole number", "f": "a number", "b": "true or false", "s": "text"}[kind[0]]
        return f"expected {wanted}, got {shown}"
    text = problem["msg"].removeprefix("Input ")
    return f"{text[0].lower()}{text[1:]}, got {shown}"


def _names_at(path: KeyPath) -> list[str]:
    model: Any = RunConfig
    for part in path:
        if isinstance(part, int):
            continue
        annotation = model.model_fields[part].annotation if part in model.model_fields else None
        model = annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else DatasetSource
    return list(model.model_fields)
