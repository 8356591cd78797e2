"""What engine and app say to each other: small frozen types. Their JSON is in `run/wire.py`.

Events go up (engine -> supervisor -> app), commands go down. `seq` and `time` (Unix seconds) are given by the
supervisor, the only writer, so that history plus live stream never repeat an event and a gap is seen.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from acrf_engine.run.states import ACTIVE_STATES as ACTIVE_STATES
from acrf_engine.run.states import RESUMABLE_STATES as RESUMABLE_STATES

PROTOCOL_VERSION = 1
"""Raised when an older app could misunderstand a command; reading stays possible across versions."""

COMMANDS: tuple[str, ...] = ("pause", "resume", "checkpoint", "preview", "stop", "set", "free-vram", "reload")
SETTABLE: tuple[str, ...] = (
    "learning_rate",
    "loss.lambda_char",
    "loss.lambda_cos",
    "loss.lambda_fft",
    "snr_gamma",
    "jitter_scale",
    "optimization.max_grad_norm",
)
"""Keys that `set` may change in flight; everything else shapes the run from its start."""


@dataclass(frozen=True, slots=True)
class Event:
    """Base of all events. `seq` 0 and `time` 0 mean: not yet stamped by the supervisor."""

    type: ClassVar[str] = ""
    seq: int = field(default=0, kw_only=True)
    time: float = field(default=0.0, kw_only=True)


@dataclass(frozen=True, slots=True)
class StateChanged(Event):
    """The run entered `state`; `reason` says why in a few words (may be empty). `waiting`: in the line for a device."""

    type: ClassVar[str] = "state"
    state: str
    step: int
    total_steps: int
    reason: str = ""
    attempt: int = 1
    waiting: bool = False


@dataclass(frozen=True, slots=True)
class Plan(Event):
    """What this run will do, said once when everything is loaded. Sigmas in [0, 1], most noisy first.

    `pictures` are those that it trains on, `held_out` those that it validates on.
    """

    type: ClassVar[str] = "plan"
    model: str
    device: str
    dtype: str
    pictures: int
    buckets: dict[str, int]
    batch_size: int
    gradient_accumulation: int
    micro_batches_per_epoch: int
    total_steps: int
    start_step: int
    anchors: list[float]
    snr_gamma: float
    weighting: str
    jitter_scale: float
    trainable_parameters: int
    base_parameters: int
    lora_modules: int
    rank: int
    alpha: float
    optimizer: str
    scheduler: str
    learning_rate: float
    lambda_char: float
    lambda_cos: float
    lambda_fft: float
    max_grad_norm: float
    versions: dict[str, str]
    held_out: int = 0
    num_processes: int = 1
    """Processes that train together, each on `batch_size` pictures."""
    captions_missing: int | None = None
    """Pictures without a caption file; None: told by a version that did not count them."""
    lora_targets: str = ""


@dataclass(frozen=True, slots=True)
class Progress(Event):
    """Progress of a phase: `phase` is loading, caching, saving or validating; `done` of `total` (0: unknown)."""

    type: ClassVar[str] = "progress"
    phase: str
    done: int
    total: int
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Step(Event):
    """One optimizer update.

    `loss` is the weighted total that was minimised; the components are unweighted means over the step's micro-batches.
    `loss_balanced` is the mean over anchors of each anchor's running mean of `losses`. Lists hold one entry per picture
    of the step: sigma in [0, 1], anchor index, w(sigma), unweighted loss. `step` counts updates from 1, `epoch` is a
    float (1.5: half of the second epoch is done), `step_time_s` in seconds, `lr` the rate used for this update.
    `merged` counts steps whose events were dropped before this one because a reader stalled.
    """

    type: ClassVar[str] = "step"
    step: int
    total_steps: int
    epoch: float
    loss: float
    loss_char: float
    loss_cos: float
    loss_fft: float
    loss_balanced: float
    lr: float
    grad_norm: float
    step_time_s: float
    sigmas: list[float]
    anchors: list[int]
    weights: list[float]
    losses: list[float]
    merged: int = 0


@dataclass(frozen=True, slots=True)
class Pictures(Event):
    """The rest of a step's per-picture lists, where they are too long for one event; it follows its step event."""

    type: ClassVar[str] = "pictures"
    step: int
    sigmas: list[float]
    anchors: list[int]
    weights: list[float]
    losses: list[float]


@dataclass(frozen=True, slots=True)
class Device:
    """One GPU as NVML sees it. None: the card does not report it. Bytes, degrees C, percent, watts, MHz.

    `slowed` says in words what holds its clocks down now; an empty list: nothing does.
    """

    index: int
    name: str
    memory_used: int | None = None
    memory_total: int | None = None
    temperature: int | None = None
    utilisation: int | None = None
    power: float | None = None
    power_limit: float | None = None
    clock_sm: int | None = None
    clock_sm_max: int | None = None
    clock_memory: int | None = None
    clock_memory_max: int | None = None
    slowed: list[str] | None = None
    rank: int | None = None
    """Which process of the run has the card; None: none has, or the run has one process."""
    host: str | None = None
    """The box that the card is in; None: the one that the run is led from."""


@dataclass(frozen=True, slots=True)
class Hardware(Event):
    """A sample of the machine. No GPU: `devices` is empty and `note` says so in a sentence. Memory in bytes.

    `elapsed_s` is how long the run has been alive, over all attempts, by a clock that never jumps.
    """

    type: ClassVar[str] = "hardware"
    devices: list[Device]
    note: str = ""
    worker_rss: int | None = None
    ram_used: int | None = None
    ram_total: int | None = None
    elapsed_s: float | None = None
    ranks: list[dict[str, Any]] = field(default_factory=list)
    """Where several processes train: `rank`, `host`, `pid` and `rss` (bytes) of each."""


@dataclass(frozen=True, slots=True)
class RankReadings(Event):
    """What processes of a run see of themselves: `rank`, `host`, `pid`, `rss`, and `device` (with `uuid`), if any.

    From the worker to the supervisor alone, which puts it into its hardware events.
    """

    type: ClassVar[str] = "ranks"
    readings: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Memory(Event):
    """What torch itself holds on the device, in bytes: now and at its peak since the start."""

    type: ClassVar[str] = "memory"
    allocated: int
    peak: int


@dataclass(frozen=True, slots=True)
class Preview(Event):
    """A preview picture is on disk. `baseline` is the picture of the same seed without the LoRA ('' if none)."""

    type: ClassVar[str] = "preview"
    step: int
    prompt: str
    path: str
    baseline: str
    seed: int
    steps: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Validation(Event):
    """The loss on the held-out pictures after `step` updates (0: before the first).

    `losses` holds per anchor the mean over the pictures of the unweighted loss, `loss` is the mean over the anchors:
    comparable with `loss_balanced` of a step. `seconds` is how long training stood still for it, pauses left out.
    """

    type: ClassVar[str] = "validation"
    step: int
    loss: float
    losses: list[float]
    pictures: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Best(Event):
    """The LoRA of `step` has the lowest validation loss so far, and was kept as `lora`; it follows its validation."""

    type: ClassVar[str] = "best"
    step: int
    loss: float
    lora: str


@dataclass(frozen=True, slots=True)
class Checkpoint(Event):
    """A checkpoint is durable (after the last fsync). `seconds` is how long training stood still for it."""

    type: ClassVar[str] = "checkpoint"
    step: int
    path: str
    bytes: int
    seconds: float
    lora: str = ""


@dataclass(frozen=True, slots=True)
class WarningEvent(Event):
    """Something the user should know and the run survives."""

    type: ClassVar[str] = "warning"
    message: str
    step: int = 0


@dataclass(frozen=True, slots=True)
class ErrorEvent(Event):
    """What went wrong; `traceback` holds its last lines, all of it is in worker.log."""

    type: ClassVar[str] = "error"
    message: str
    step: int = 0
    traceback: str = ""


@dataclass(frozen=True, slots=True)
class Ack(Event):
    """The answer to command `id`: done (`ok`) or refused, at which step it took effect, and what changed."""

    type: ClassVar[str] = "ack"
    id: str
    command: str
    ok: bool
    step: int
    message: str = ""
    key: str = ""
    value: float | None = None
    previous: float | None = None
    ramp: int = 0


@dataclass(frozen=True, slots=True)
class Finished(Event):
    """The last event of a run that reached its total. `lora` is the path of the final file."""

    type: ClassVar[str] = "finished"
    step: int
    lora: str = ""


@dataclass(frozen=True, slots=True)
class Stopped(Event):
    """The last event of a run that was asked to stop, after its checkpoint."""

    type: ClassVar[str] = "stopped"
    step: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Failed(Event):
    """The last event of a run that failed. `kind` is failed, or interrupted when a process went without a word."""

    type: ClassVar[str] = "failed"
    step: int
    error: str
    kind: str = "failed"


EVENT_TYPES: dict[str, type[Event]] = {
    cls.type: cls
    for cls in (
        StateChanged,
        Plan,
        Progress,
        Step,
        Pictures,
        Hardware,
        RankReadings,
        Memory,
        Preview,
        Validation,
        Best,
        Checkpoint,
        WarningEvent,
        ErrorEvent,
        Ack,
        Finished,
        Stopped,
        Failed,
    )
}
LAST_EVENTS: frozenset[str] = frozenset({"finished", "stopped", "failed"})
MERGEABLE: frozenset[str] = frozenset({"step", "pictures", "progress", "hardware", "ranks", "memory"})
"""Events that a stalled queue may drop; everything else is never lost."""


@dataclass(frozen=True, slots=True)
class Command:
    """A command to the worker. `args` of `set`: {"key": ..., "value": ...}."""

    name: str
    id: str
    args: dict[str, Any] = field(default_factory=dict)
