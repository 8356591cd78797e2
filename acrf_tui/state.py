"""RunState: what the panels show, reduced from events. Pure: no app, no clock, no files.

`load` takes a run's history, `apply` one event; both may be repeated with what was seen before, `seq` decides.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from acrf_engine.protocol import (
    ACTIVE_STATES,
    Ack,
    Best,
    Checkpoint,
    ErrorEvent,
    Event,
    Failed,
    Finished,
    Hardware,
    Memory,
    Pictures,
    Plan,
    Preview,
    Progress,
    StateChanged,
    Step,
    Stopped,
    Validation,
    WarningEvent,
)
from acrf_tui.detail import Detail
from acrf_tui.journal import Entry, describe_ack, describe_validation
from acrf_tui.series import AnchorMap, AnchorTotals, Marker, SeriesColumns
from acrf_tui.validation_curve import ValidationCurve

if TYPE_CHECKING:
    from acrf_engine.run.columns import StepColumns
    from acrf_engine.run.telemetry import History

JOURNAL_LIMIT = 2000
MARKER_LIMIT = 1000
HARDWARE_LIMIT = 600
RECENT_TIMES = 64
LATEST_SAMPLE_S = 5.0
"""How far the app's clock may go on from the supervisor's last word on the elapsed time, which comes every second."""
RECENT_SIGMAS = 64
ENDED_STATES: frozenset[str] = frozenset({"stopped", "finished", "failed", "interrupted"})


@dataclass(slots=True)
class RunState:
    """All a dashboard shows of one run."""

    state: str = "starting"
    reason: str = ""
    waiting: bool = False
    """In the line for a device: there is no worker yet."""
    attempt: int = 1
    step: int = 0
    total_steps: int = 0
    epoch: float = 0.0
    error: str = ""
    lora: str = ""
    plan: Plan | None = None
    progress: Progress | None = None
    phase_since: float = 0.0
    last: Step | None = None
    memory: Memory | None = None
    hardware: Hardware | None = None
    last_checkpoint: Checkpoint | None = None
    best: Best | None = None
    """The LoRA of the lowest validation loss so far."""
    series: SeriesColumns = field(default_factory=SeriesColumns)
    series_version: int = 0
    """Goes up when earlier points of `series` changed, so that charts gather anew."""
    validation: ValidationCurve = field(default_factory=ValidationCurve.empty)
    """Steps and losses of the validation, in two columns."""
    detail: Detail = field(default_factory=Detail)
    """Of a long run the older steps are condensed; this says where, and which of them are there in full."""
    anchors: AnchorTotals = field(default_factory=AnchorTotals)
    anchor_map: AnchorMap = field(default_factory=AnchorMap)
    sigmas: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=RECENT_SIGMAS))
    """The last drawn pictures, newest last: sigma and w(sigma)."""
    step_times: deque[float] = field(default_factory=lambda: deque(maxlen=RECENT_TIMES))
    hardware_history: deque[Hardware] = field(default_factory=lambda: deque(maxlen=HARDWARE_LIMIT))
    markers: deque[Marker] = field(default_factory=lambda: deque(maxlen=MARKER_LIMIT))
    """What stands on the step axis of the charts."""
    journal: deque[Entry] = field(default_factory=lambda: deque(maxlen=JOURNAL_LIMIT))
    base_rate: float = math.nan
    """The learning rate before the schedule: the plan's, then what `set` made of it."""
    settings: dict[str, float] = field(default_factory=dict)
    """Values changed by `set` in this run, by key."""
    last_seq: int = 0
    last_time: float = 0.0
    gaps: int = 0
    """Events that a jump of `seq` shows to be missing."""
    merged: int = 0
    """Steps whose events were dropped because a reader stalled."""
    preview_refused: bool = False
    parked: bool = False
    """Paused, with the model in RAM and the VRAM given back."""
    revision: int = 0
    """Goes up with every change."""
    _active_before: float = 0.0
    _active_since: float = math.nan
    _told_elapsed: tuple[float, float] | None = None
    """What the supervisor last said of it, and when."""

    # ------------------------------------------------------------------ reading

    @property
    def ended(self) -> bool:
        """Nothing more will come from this attempt."""
        return self.state in ENDED_STATES

    @property
    def training(self) -> bool:
        """At least one step has been made."""
        return len(self.series) > 0

    def elapsed(self, now: float) -> float:
        """Seconds this run has been alive, over all attempts; time between attempts is not counted."""
        if self._told_elapsed is not None:
            seconds, told = self._told_elapsed
            return seconds if self.ended else seconds + min(max(0.0, now - told), LATEST_SAMPLE_S)
        if math.isnan(self._active_since):
            return self._active_before
        return self._active_before + max(0.0, now - self._active_since)

    def step_seconds(self) -> float:
        """A robust mean of the recent step times (the middle half), NaN before the first step."""
        times = sorted(value for value in self.step_times if math.isfinite(value) and value > 0)
        if not times:
            return math.nan
        quarter = len(times) // 4
        middle = times[quarter : len(times) - quarter]
        return sum(middle) / len(middle)

    def eta(self) -> float:
        """Seconds to the last step at the recent speed, NaN where it cannot be said. Pauses are not in it."""
        return max(0, self.total_steps - self.step) * self.step_seconds() if self.total_steps else math.nan

    def images_per_second(self) -> float:
        """Pictures trained a second at the recent speed."""
        if self.plan is not None:
            pictures = self.plan.num_processes * self.plan.batch_size * self.plan.gradient_accumulation
        else:
            pictures = len(self.last.sigmas) if self.last else 0
        return pictures / self.step_seconds() if pictures else math.nan

    def validating(self) -> Progress | None:
        """The validation that is under way."""
        progress = self.progress
        under_way = progress is not None and progress.phase == "validating" and progress.done < progress.total
        return progress if under_way and self.state in ("running", "paused") else None

    def gamma(self) -> float:
        """gamma of Min-SNR as it is now."""
        return self.settings.get("snr_gamma", self.plan.snr_gamma if self.plan else math.nan)

    def clip(self) -> float:
        """The gradient norm at which gradients are clipped; 0 or NaN: not clipped."""
        return self.settings.get("optimization.max_grad_norm", self.plan.max_grad_norm if self.plan else math.nan)

    def rate(self) -> float:
        """The learning rate of the last step, else the base rate."""
        return self.last.lr if self.last is not None else self.base_rate

    # ------------------------------------------------------------------ writing

    def load(self, history: History) -> None:
        """Start from a run's history. Its columns are taken over, not copied."""
        columns = history.steps
        self.series = SeriesColumns(**{name: getattr(columns, name) for name in SeriesColumns.__slots__})
        self.series.drop_repeated_steps()
        self.series_version += 1
        self.detail = Detail(history.exact_from)
        self.step_times.extend(columns.step_time_s[-RECENT_TIMES:])
        self.anchors = AnchorTotals()
        self.anchors.resize(len(history.anchor_draws))
        for index, draws in enumerate(history.anchor_draws):
            mean = history.anchor_loss[index] if index < len(history.anchor_loss) else math.nan
            known = math.isfinite(mean)
            self.anchors.draws[index] = draws
            self.anchors.loss_count[index] = draws if known else 0
            self.anchors.loss_sum[index] = mean * draws if known else 0.0
        step_times = columns.time
        for event in history.events:
            before = bisect_left(step_times, event.time)
            self.last_time = max(self.last_time, step_times[before - 1] if before else 0.0)
            self._reduce(event)
            self.last_time = max(self.last_time, event.time)
        self.hardware_history.extend(history.hardware)
        for sample in history.hardware[-1:]:
            self._take_sample(sample)
        self.anchor_map.load(history.anchor_map)
        for step in history.recent:
            self._remember(step)
            if not history.anchor_map:  # a store without the map: at least the last steps have their pictures
                self.anchor_map.add(step.step, step.anchors, step.losses)
        if len(self.series):
            self.step = max(self.step, int(self.series.step[-1]))
            self.epoch = columns.epoch[-1]
            self.last_time = max(self.last_time, step_times[-1])
        self.last_seq = history.last_seq
        self.revision += 1

    def take_steps(self, first: float, last: float, steps: StepColumns) -> None:
        """Show the steps first..last, of which `steps` are all, in full; those that were shown so before no longer."""
        if self.detail.put(self.series, first, last, steps):
            self.series_version += 1
            self.revision += 1

    def apply(self, event: Event) -> bool:
        """Take one event of the stream; False for one that was seen before."""
        if event.seq:
            if event.seq <= self.last_seq:
                return False
            if self.last_seq and event.seq > self.last_seq + 1:
                self.gaps += event.seq - self.last_seq - 1
            self.last_seq = event.seq
        self._reduce(event)
        if event.time:
            self.last_time = max(self.last_time, event.time)
        self.revision += 1
        return True

    def vanish(self, state: str, error: str, time: float) -> None:
        """The stream ended without a last word: `state` and `error` come from the run's status."""
        if self.ended:
            return
        if state in ACTIVE_STATES:
            state = "interrupted"
        why = error or "the supervisor of this run is gone without a word"
        self._enter(state, why, self.last_time or time)
        self.error = self.error or ("" if state in ("finished", "stopped") else why)
        failed = state in ("failed", "interrupted")
        self.note("error" if failed else "state", f"{state}: {why}" if failed else state, time)

    def note(self, kind: str, text: str, time: float, step: int = 0) -> None:
        """Add a line to the journal."""
        self.journal.append(Entry(time, kind, text, step))
        self.revision += 1

    def _mark(self, step: int, kind: str, text: str) -> None:
        if step > 0:  # what came before the first step has no place on the axis
            self.markers.append(Marker(step, kind, " ".join(text.split())))

    def _reduce(self, event: Event) -> None:
        match event:
            case Step():
                self._step(event)
            case Pictures():
                self.anchors.add(event.anchors, event.losses)
                self.anchor_map.add(event.step, event.anchors, event.losses)
                self.sigmas.extend(zip(event.sigmas, event.weights, strict=False))
            case Hardware():
                self.hardware_history.append(event)
                self._take_sample(event)
            case Memory():
                self.memory = event
            case Progress():
                if self.progress is None or self.progress.phase != event.phase:
                    self.phase_since = event.time
                self.progress = event
            case StateChanged():
                self._state_changed(event)
            case Plan():
                self.plan = event
                self._mark(event.start_step, "attempt", f"resumed, attempt {self.attempt}")
                self.total_steps = event.total_steps
                self.base_rate = self.settings.get("learning_rate", event.learning_rate)
                self.anchors.resize(len(event.anchors))
                self.validation.cut_after(event.start_step)
            case Ack():
                self._ack(event)
            case Checkpoint():
                self.last_checkpoint = event
                size = f"{event.bytes / 1e6:,.1f} MB" if event.bytes else ""
                text = ", ".join(part for part in ("checkpoint saved", size, f"{event.seconds:.2f} s") if part)
                self.note("checkpoint", text, event.time, event.step)
                self._mark(event.step, "checkpoint", text)
            case Validation():
                self.validation.add(event.step, event.loss)
                self.note("validation", describe_validation(event), event.time, event.step)
            case Best():
                self.best = event
                self.note("checkpoint", f"best LoRA so far, validation {event.loss:.4f}", event.time, event.step)
            case Preview():
                self.note("preview", f"preview of “{event.prompt}”, {event.seconds:.1f} s", event.time, event.step)
                self._mark(event.step, "preview", f"preview of “{event.prompt}”")
            case WarningEvent():
                self.note("warning", event.message, event.time, event.step)
                self._mark(event.step, "warning", event.message)
            case ErrorEvent():
                self.error = event.message
                self.note("error", event.message, event.time, event.step)
            case Finished():
                self._end("finished", "", event.step, event.time)
                self.lora = event.lora
                self.note("state", "finished" + (f": {event.lora}" if event.lora else ""), event.time, event.step)
            case Stopped():
                self._end("stopped", event.reason, event.step, event.time)
            case Failed():
                if self.error != event.error:
                    self.note("error", event.error, event.time, event.step)
                self.error = event.error
                self._end(event.kind, event.error, event.step, event.time)

    def _take_sample(self, sample: Hardware) -> None:
        self.hardware = sample
        if sample.elapsed_s is not None:
            self._told_elapsed = (sample.elapsed_s, sample.time)

    def _step(self, event: Step) -> None:
        series = self.series
        if self.validating():  # it failed, and training goes on
            self.progress = None
        if len(series) and event.step <= series.step[-1]:
            self.detail.cut(series, event.step)
            series.cut(bisect_left(series.step, event.step))
            self.series_version += 1
        for name in SeriesColumns.__slots__:
            getattr(series, name).append(float(getattr(event, name)))
        self.step, self.total_steps, self.epoch = event.step, event.total_steps, event.epoch
        self.merged += event.merged
        self.step_times.append(event.step_time_s)
        self.anchors.add(event.anchors, event.losses)
        self.anchor_map.add(event.step, event.anchors, event.losses)
        self._remember(event)

    def _remember(self, event: Step) -> None:
        self.last = event
        self.sigmas.extend(zip(event.sigmas, event.weights, strict=False))

    def _state_changed(self, event: StateChanged) -> None:
        if event.state == "starting":
            self.parked = False
            self.error = self.lora = ""
            self.progress = None
            self.phase_since = event.time
        changed = event.state != self.state or event.attempt != self.attempt or event.waiting
        self.attempt, self.waiting = event.attempt, event.waiting
        self.step = event.step
        self.total_steps = event.total_steps or self.total_steps
        self._enter(event.state, event.reason, event.time)
        if (changed and not self.ended) or event.state == "stopped":
            text = event.state if event.state != "starting" else f"starting, attempt {event.attempt}"
            self.note("state", f"{text}: {event.reason}" if event.reason else text, event.time, event.step)

    def _enter(self, state: str, reason: str, time: float) -> None:
        running = not math.isnan(self._active_since)
        if state == "starting" and running:  # the attempt before died without a word
            self._active_before += max(0.0, self.last_time - self._active_since)
            running = False
        if state in ACTIVE_STATES and not running:
            self._active_since = time
        elif state not in ACTIVE_STATES and running:
            self._active_before += max(0.0, time - self._active_since)
            self._active_since = math.nan
        self.state, self.reason = state, reason

    def _end(self, state: str, reason: str, step: int, time: float) -> None:
        self.step = step or self.step
        self._enter(state, reason or self.reason, time)

    def _ack(self, event: Ack) -> None:
        if event.ok and event.key and event.value is not None:
            self._mark(event.step, "set", describe_ack(event))
            self.settings[event.key] = event.value
            if event.key == "learning_rate":
                self.base_rate = event.value
        if event.ok and event.command in ("free-vram", "reload", "resume"):
            self.parked = event.command == "free-vram"
        if event.command == "preview" and not event.ok and "not" in event.message and "support" in event.message:
            self.preview_refused = True
        self.note("done" if event.ok else "refused", describe_ack(event), event.time, event.step)
