"""Optimizer and schedule: which there are, where each comes from, and what its learning rate means. Loads no torch."""

from __future__ import annotations

import difflib
import importlib.metadata
import importlib.util
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from acrf_engine.config_group import Group, NonNegative

Named = Literal["AdamW8bit", "AdamW", "PagedAdamW8bit", "Lion8bit", "Adafactor", "Prodigy"]
IMPORT_PATH = r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)+$"
OptimizerName = Named | Annotated[str, Field(pattern=IMPORT_PATH)]
SchedulerName = Literal["cosine_with_restarts", "cosine", "linear", "polynomial", "constant"]
Plain = bool | int | float | str | None
ArgumentName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]

STEP_RATE = "the size of a step, as for Adam"
OWN_KEYS = {"lr": "learning_rate", "weight_decay": "optimization.weight_decay", "params": "lora.targets"}
SMALL_TENSOR, BLOCK = 4096, 256
"""bitsandbytes keeps tensors below so many elements in float32, and one float32 scale for each block of others."""
LEAST_FACTOR = 0.01


@dataclass(frozen=True, slots=True)
class Kind:
    """An optimizer with a name. `rate`: what its learning rate is; `bytes`: of state for each trained number."""

    path: str
    rate: str
    bytes: int
    pip: str
    eight_bit: bool = False
    needs_cuda: bool = False

    @property
    def package(self) -> str:
        """The name that it is imported by."""
        return self.path.partition(".")[0]


KINDS: dict[str, Kind] = {
    "AdamW8bit": Kind("bitsandbytes.optim.AdamW8bit", STEP_RATE, 2, "bitsandbytes", eight_bit=True),
    "AdamW": Kind("torch.optim.AdamW", STEP_RATE, 8, "torch"),
    "PagedAdamW8bit": Kind(
        "bitsandbytes.optim.PagedAdamW8bit", STEP_RATE, 2, "bitsandbytes", eight_bit=True, needs_cuda=True
    ),
    "Lion8bit": Kind(
        "bitsandbytes.optim.Lion8bit",
        "the size of every step of every weight: take a third to a tenth of AdamW's",
        1,
        "bitsandbytes",
        eight_bit=True,
    ),
    "Adafactor": Kind("transformers.optimization.Adafactor", STEP_RATE, 0, "transformers"),
    "Prodigy": Kind(
        "prodigyopt.Prodigy", "a factor on the rate that Prodigy finds itself: 1.0 is usual", 16, "prodigyopt"
    ),
}


class OptimizationConfig(Group):
    """The update."""

    weight_decay: NonNegative = 0.01
    """Decoupled weight decay, for every optimizer that has it."""
    optimizer_args: dict[ArgumentName, Plain | list[Plain]] = Field(default_factory=dict, max_length=50)
    """More arguments of the optimizer's class, such as `betas: [0.9, 0.99]`; what it does not take is refused."""
    max_grad_norm: NonNegative = 1.0
    """Clip the gradient's L2 norm to this (paper, section 6.3); 0 turns clipping off."""
    ema_decay: float = Field(0.0, ge=0, lt=1, allow_inf_nan=False)
    """Decay of the LoRA's moving average (0.99, say; warmed up), which LoRA files and previews then show; 0: off."""

    @field_validator("optimizer_args")
    @classmethod
    def _not_twice(cls, arguments: dict[str, Any]) -> dict[str, Any]:
        for name in arguments:
            if name in OWN_KEYS:
                raise ValueError(f"{name} has a key of its own: set {OWN_KEYS[name]} (and remove it here)")
        return arguments


class ScheduleConfig(Group):
    """The learning rate over the run (paper, section 6.2)."""

    warmup_steps: int = Field(0, ge=0)
    """Optimizer steps of linear warm-up."""
    warmup_ratio: float = Field(0.0, ge=0, lt=1, allow_inf_nan=False)
    """Warm-up as a share of the run's steps, in the place of `warmup_steps`."""
    min_lr: NonNegative = 1e-6
    """The rate that every schedule but `constant` ends at."""
    cycles: int = Field(3, ge=1, le=1000)
    """How many cosine arcs `cosine_with_restarts` runs."""
    power: float = Field(2.0, gt=0, le=10, allow_inf_nan=False)
    """Exponent of `polynomial`: above 1 the rate falls early, below 1 late; 1 is `linear`."""

    @model_validator(mode="after")
    def _one_warm_up(self) -> Self:
        if self.warmup_steps and self.warmup_ratio:
            raise ValueError("schedule: warmup_steps and warmup_ratio are both given (remove one)")
        return self


def known_or_path(value: Any) -> Any:
    """`value` where it names an optimizer, or looks like an import path. Raises ValueError with a suggestion."""
    if not isinstance(value, str) or value in KINDS or re.match(IMPORT_PATH, value):
        return value
    close = difflib.get_close_matches(value.lower(), [name.lower() for name in KINDS], n=1, cutoff=0.6)
    name = next((name for name in KINDS if close and name.lower() == close[0]), "")
    hint = f" (did you mean {name}?)" if name else ""
    shown = value if len(value) <= 60 else value[:57] + "..."
    raise ValueError(
        f"expected {', '.join(KINDS)}, or an import path such as package.module.Class, got {shown!r}{hint}"
    )


def refusal(optimizer: str, scheduler: str, rate: float, update: OptimizationConfig, schedule: ScheduleConfig) -> str:
    """Why these settings do not go together; empty where they do."""
    if scheduler != "cosine_with_restarts" and schedule.cycles != ScheduleConfig().cycles:
        return f"schedule.cycles has no effect with scheduler {scheduler!r} (remove it)"
    if scheduler != "polynomial" and schedule.power != ScheduleConfig().power:
        return f"schedule.power has no effect with scheduler {scheduler!r} (remove it)"
    if scheduler == "constant" and schedule.min_lr != ScheduleConfig().min_lr:
        return "schedule.min_lr has no effect with scheduler 'constant' (remove it)"
    if scheduler != "constant" and schedule.min_lr > rate:
        return f"schedule.min_lr {schedule.min_lr:g} is above learning_rate {rate:g} (lower it)"
    if optimizer == "Prodigy" and rate < LEAST_FACTOR:
        return (
            f"learning_rate {rate:g} is too small: for Prodigy it is {KINDS['Prodigy'].rate} (set learning_rate: 1.0)"
        )
    if optimizer == "Adafactor" and update.optimizer_args.get("relative_step"):
        return (
            "optimization.optimizer_args: with relative_step Adafactor makes its own rate: learning_rate, scheduler "
            "and `set learning_rate` would have no effect (remove it)"
        )
    return ""


def missing_package(optimizer: str) -> str:
    """What to install before this optimizer can be used; empty where it is there. Imports nothing."""
    kind, package = KINDS.get(optimizer), package_of(optimizer)
    if importlib.util.find_spec(package) is not None:
        return ""
    if kind is None:
        return f"{optimizer} needs the package {package}, which is not installed (install it with pip, or fix the path)"
    return f"{optimizer} needs the package {package} (pip install {kind.pip})"


def unusable(optimizer: str, on_gpu: bool) -> str:
    """Why this optimizer cannot be used here; empty where nothing is known against it. Imports nothing."""
    if optimizer in KINDS and KINDS[optimizer].needs_cuda and not on_gpu:
        return paged_refusal(optimizer)
    return missing_package(optimizer)


def paged_refusal(optimizer: str) -> str:
    """Why a paged optimizer does not run on a CPU."""
    return (
        f"{optimizer} pages its state between GPU and RAM and needs a CUDA device (take AdamW8bit: on a CPU there is "
        "nothing to page)"
    )


def package_of(optimizer: str) -> str:
    """The package that an optimizer is imported from."""
    return KINDS[optimizer].package if optimizer in KINDS else optimizer.partition(".")[0]


def version_of(package: str) -> str:
    """The installed version of a package that is imported by this name; `unknown` where none says so."""
    for name in importlib.metadata.packages_distributions().get(package, ()):
        return importlib.metadata.version(name)
    return "unknown"


def rate_meaning(optimizer: str) -> str:
    """What the learning rate is to this optimizer, in a few words."""
    return KINDS[optimizer].rate if optimizer in KINDS else "what its class makes of `lr`"


def warmup_steps(schedule: ScheduleConfig, total_steps: int) -> int:
    """Steps of warm-up in a run of `total_steps`; a share is rounded up, as in transformers."""
    return schedule.warmup_steps or math.ceil(schedule.warmup_ratio * total_steps)


def schedule_text(scheduler: str, schedule: ScheduleConfig) -> str:
    """The schedule in a few words."""
    name = scheduler.replace("_", " ")
    if scheduler == "cosine_with_restarts":
        name = f"cosine, {schedule.cycles} arcs"
    elif scheduler == "polynomial":
        name = f"polynomial of power {schedule.power:g}"
    end = "" if scheduler == "constant" else f" to {rate_text(schedule.min_lr)}"
    warmup = ""
    if schedule.warmup_steps:
        warmup = f", {schedule.warmup_steps} steps of warm-up"
    elif schedule.warmup_ratio:
        warmup = f", {schedule.warmup_ratio:.3g} of the run is warm-up"
    return f"{name}{end}{warmup}"


def rate_text(value: float) -> str:
    """A learning rate the short way: 1e-4, 1, 0."""
    if not value or value >= 0.01:
        return f"{value:g}"
    mantissa, _, exponent = f"{value:e}".partition("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def state_bytes(optimizer: str, shapes: Iterable[tuple[int, ...]]) -> int:
    """Bytes of state that an optimizer with a name keeps for tensors of these shapes."""
    kind, total = KINDS[optimizer], 0
    for shape in shapes:
        count = math.prod(shape)
        if kind.eight_bit:
            moments = kind.bytes
            total += 4 * moments * count if count < SMALL_TENSOR else moments * (count + 4 * math.ceil(count / BLOCK))
        elif optimizer == "Adafactor":  # one number for each row and each column of a matrix
            total += 4 * (sum(shape) if len(shape) > 1 else count)
        else:
            total += kind.bytes * count
    return total
