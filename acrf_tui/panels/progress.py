"""Progress: how far the run is, how fast it goes, and what it does before the first step."""

from __future__ import annotations

import math

from textual.app import ComposeResult
from textual.containers import Horizontal

from acrf_tui.charts.lines import Line, LineView, fit, line, spread, wrap
from acrf_tui.charts.marks import bar
from acrf_tui.charts.symbols import BRAILLE, SymbolSet
from acrf_tui.panels import numbers
from acrf_tui.panels.panel import Panel
from acrf_tui.state import RunState

Fact = tuple[str, str]


def share_done(state: RunState) -> float:
    """How much of the run (or of the phase before its first step) is done, NaN where it cannot be said."""
    if state.training or state.step:
        return state.step / state.total_steps if state.total_steps else math.nan
    progress = state.progress
    return progress.done / progress.total if progress and progress.total else math.nan


def bar_line(share: float, width: int, role: str, symbols: SymbolSet = BRAILLE) -> Line:
    """A bar over the whole width."""
    filled = bar(share, width, symbols).rstrip()
    return line((filled, role), (symbols.track * (width - len(filled)), "meter-track"))


def percent_line(share: float) -> Line:
    """How much is done, in eight cells; not part of the bar, which would be resent with it."""
    return line((f"{share * 100:6.1f} %" if math.isfinite(share) else "     – %", "bold text"))


def facts(state: RunState, now: float) -> list[list[Fact]]:
    """Columns of label and value, the most wanted columns first."""
    plan = state.plan
    epoch = f"{state.epoch:.2f}"
    micro = state.step * plan.gradient_accumulation if plan else 0
    if plan and plan.micro_batches_per_epoch:
        epochs = state.total_steps * plan.gradient_accumulation / plan.micro_batches_per_epoch
        epoch += f" / {epochs:,.0f}" if abs(epochs - round(epochs)) < 0.05 else f" / {epochs:,.1f}"
    seconds = state.step_seconds()
    eta = "paused" if state.state == "paused" else numbers.UNKNOWN if state.ended else numbers.remaining(state.eta())
    validating = state.validating()
    saved = f"step {state.last_checkpoint.step:,}" if state.last_checkpoint else "none yet"
    return [
        [
            ("step", f"{state.step:,} / {state.total_steps:,}" if state.total_steps else f"{state.step:,}"),
            ("epoch", epoch),
            ("elapsed", numbers.duration(state.elapsed(now))),
        ],
        [
            ("images/s", numbers.significant(state.images_per_second())),
            ("s/step", numbers.significant(seconds)),
            ("validated", f"{validating.done:,} / {validating.total:,}") if validating else ("ETA", eta),
        ],
        [
            ("micro-batches", numbers.count(micro)),
            ("pictures", numbers.count(plan.pictures) if plan else numbers.UNKNOWN),
            ("checkpoint", saved),
        ],
    ]


def squeeze(value: str, width: int) -> str:
    """A value that fits: spaces go first, then the separators, then what follows the slash."""
    for shorter in (value, value.replace(" ", ""), value.replace(" ", "").replace(",", ""), value.partition(" ")[0]):
        if len(shorter) <= width:
            return shorter
    return fit(value.partition(" ")[0], width)


def phase_lines(state: RunState, now: float, width: int) -> list[Line]:
    """What happens before the first step, always with something that moves."""
    if state.waiting:
        return [
            *(line((text, "bold warn")) for text in wrap(state.reason, width)[:2]),
            line((fit("space starts it now · q leaves it in the line or cancels it", width), "muted")),
        ]
    progress = state.progress
    phase = progress.phase if progress else state.state
    seconds = max(0.0, now - state.phase_since) if state.phase_since else state.elapsed(now)
    done = f"{progress.done:,} / {progress.total:,}" if progress and progress.total else ""
    detail = progress.detail if progress else ""
    lines = [
        spread(line((phase, "bold accent"), (f"  {done}", "text")), line((f"{seconds:,.0f} s", "text")), width),
    ]
    if detail:
        lines.append(line((fit(detail, width), "muted")))
    elif not progress:
        lines.append(line((fit("starting the worker: importing torch takes a while", width), "muted")))
    return lines


class ProgressPanel(Panel):
    """Bar, step, epoch, speed, times. Labels, values and columns are widgets of their own: only values are resent."""

    TITLE = "Progress"
    NUMBER = 1
    EVERY = 1

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._latest: tuple[int, int, bool, int, str] | None = None

    def compose(self) -> ComposeResult:
        with Horizontal(id="progress-done"):
            yield LineView(id="progress-bar")
            yield LineView(id="progress-percent")
        with Horizontal(id="progress-facts"):
            for index in range(3):
                yield LineView(id=f"fact-labels-{index}", classes="fact-labels")
                yield LineView(id=f"fact-values-{index}", classes="fact-values")
        yield LineView(id="progress-phase")

    def paint(self, state: RunState, now: float) -> None:
        started = state.training or state.step > 0 or state.ended
        bar_view = self.query_one("#progress-bar", LineView)
        role = {"paused": "warn", "failed": "bad", "interrupted": "bad", "finished": "good"}.get(
            state.state, "meter-fill"
        )
        share = share_done(state)
        bar_view.show([bar_line(share, bar_view.size.width, role, self.symbols)])
        self.query_one("#progress-percent", LineView).show([percent_line(share)])
        shown, phase = self.query_one("#progress-facts"), self.query_one("#progress-phase", LineView)
        if shown.display is not started:
            shown.display, phase.display = started, not started
        self.behind = started and not self.query_one("#fact-values-0").size.width  # they get their place after this
        if not started:
            phase.show(phase_lines(state, now, phase.size.width))
            return
        # Speeds and totals twitch with every step: once a second is enough to read them.
        latest = (int(now), self.size.width, state.training, state.series_version, state.state)
        whole = latest != self._latest
        self._latest = None if self.behind else latest
        for index, column in enumerate(facts(state, now)):
            if index and not whole:
                break
            labels = self.query_one(f"#fact-labels-{index}", LineView)
            values = self.query_one(f"#fact-values-{index}", LineView)
            labels.show([line((label, "muted")) for label, _ in column])
            width = values.size.width
            values.show([line((squeeze(value, width).rjust(width), "text")) for _, value in column])
