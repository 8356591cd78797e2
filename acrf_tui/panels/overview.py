"""Run overview: what this run is made of. Model, data, LoRA, versions, and how its config differs from the defaults."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path

from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.message import Message

from acrf_engine.protocol import Plan
from acrf_tui.charts.lines import Line, LineView, fit, line, wrap
from acrf_tui.panels import numbers
from acrf_tui.panels.overview_facts import Change, FolderFacts, read_facts
from acrf_tui.panels.panel import Panel
from acrf_tui.printable import short_path
from acrf_tui.state import RunState

LABEL = 10
FP32 = 4
"""Bytes of a parameter in a LoRA file."""
VERSIONS = ("acrf-tui", "torch", "diffusers", "peft", "python", "accelerate", "bitsandbytes")
TWO_COLUMNS = 96


def labelled(label: str, text: str, width: int, role: str = "text") -> list[Line]:
    """A label and its text, on as many lines as it needs."""
    rows = wrap(text, max(8, width - LABEL)) or [numbers.UNKNOWN]
    return [line((f"{label if at == 0 else '':<{LABEL}}", "muted"), (row, role)) for at, row in enumerate(rows)]


def listed(label: str, items: Iterable[str], width: int) -> list[Line]:
    """A label and items that are never broken, as many on a line as fit."""
    rows: list[str] = []
    for item in items:
        if rows and len(rows[-1]) + len(item) + 2 <= width - LABEL:
            rows[-1] += f", {item}"
        else:
            rows.append(item)
    rows = rows or [numbers.UNKNOWN]
    return [line((f"{'' if at else label:<{LABEL}}", "muted"), (row, "text")) for at, row in enumerate(rows)]


def millions(count: int) -> str:
    """A number of parameters."""
    if count >= 1e9:
        return f"{count / 1e9:.2f} B"
    return f"{count / 1e6:.2f} M" if count >= 1e6 else f"{count:,}"


def data_lines(plan: Plan, width: int) -> list[Line]:
    """Pictures, captions and buckets."""
    missing = plan.captions_missing
    text = f"{plan.pictures:,} pictures" + (", all with a caption" if missing == 0 else "")
    rows = labelled("data", text, width)
    if missing:
        rows += labelled("", f"{missing:,} without a caption", width, "warn")
    return rows + listed("buckets", (f"{name}: {count:,}" for name, count in plan.buckets.items()), width)


def lora_lines(plan: Plan, lora_bytes: int | None, width: int) -> list[Line]:
    """Rank, alpha, targets and size: measured where there is a file, else what its parameters take in fp32."""
    targets = f"{plan.lora_targets}, " if plan.lora_targets else ""
    rows = labelled("LoRA", f"rank {plan.rank}, α {plan.alpha:g}, {targets}{plan.lora_modules:,} modules", width)
    if lora_bytes is not None:
        size = f"{lora_bytes / 1e6:,.1f} MB on disk"
    else:
        size = f"{plan.trainable_parameters * FP32 / 1e6:,.1f} MB in fp32"
    return rows + labelled("", f"{millions(plan.trainable_parameters)} parameters, {size}", width)


def run_lines(state: RunState, facts: FolderFacts | None, folder: Path, width: int) -> list[Line]:
    """Everything but the config."""
    plan = state.plan
    rows: list[Line] = []
    if plan is None:
        if facts is not None and facts.model:
            rows += labelled("model", facts.model, width)
            rows += labelled("data", facts.dataset, width)
        why = "the run ended before it was loaded" if state.ended else "known when all is loaded"
        rows += labelled("the rest", why, width, "muted")
    else:
        model = plan.model.rstrip("/").rpartition("/")[2]
        rows += labelled("model", f"{model}, {millions(plan.base_parameters)} parameters", width)
        rows += labelled("runs on", f"{plan.device}, {plan.dtype}", width)
        rows += data_lines(plan, width)
        rows += lora_lines(plan, facts.lora_bytes if facts else None, width)
        if state.best is not None:
            rows += labelled("best", f"step {state.best.step:,}, validation {state.best.loss:.4f}", width)
        known = (f"{name} {plan.versions[name]}" for name in VERSIONS if name in plan.versions)
        rows += listed("versions", known, width)
    return rows + folder_lines(folder, width)


def folder_lines(folder: Path, width: int) -> list[Line]:
    """The whole path of the run folder, broken where it must be: it is there to be typed."""
    text, room = short_path(folder), max(8, width - LABEL)
    pieces = [text[at : at + room] for at in range(0, len(text), room)]
    return [line((f"{'' if at else 'folder':<{LABEL}}", "muted"), (piece, "text")) for at, piece in enumerate(pieces)]


def config_lines(facts: FolderFacts | None, width: int, height: int) -> list[Line]:
    """The settings that are not the defaults, as many as fit: key, value, default."""
    if facts is None:
        return [line(("reading config.yaml", "muted"))]
    if facts.trouble:
        return [line((text, "warn")) for text in wrap(facts.trouble, width)]
    if not facts.changes:
        return [line(("config    all settings are the defaults", "muted"))]
    count = len(facts.changes)
    title = f"{count} setting{'s' if count > 1 else ''} changed"
    head = line(
        (f"{'config':<{LABEL}}", "muted"), (f"{title:<{max(0, width - LABEL - 8)}}", "text"), (" default", "muted")
    )
    shown = facts.changes if count < height else facts.changes[: max(0, height - 2)]
    keys = min(width * 2 // 5, max((len(one.key) for one in shown), default=0))
    rows = [change_line(one, keys, width) for one in shown]
    if len(shown) < count:
        rows.append(line((f"… {count - len(shown)} more (z maximises)", "muted")))
    return [head, *rows]


def change_line(change: Change, keys: int, width: int) -> Line:
    """One setting in columns: its key, its value, which stands out, and the default at the right edge."""
    room = max(8, width - keys - 1)
    default = fit(change.default, max(room // 2, room - len(change.value) - 2))
    value = fit(change.value, max(1, room - len(default) - 2))
    gap = " " * max(1, room - len(value) - len(default))
    return line((f"{fit(change.key, keys):<{keys}} ", "muted"), (value, "accent"), (f"{gap}{default}", "muted"))


class OverviewPanel(Panel):
    """Facts on the left, the config beside them where there is room, else below."""

    TITLE = "Run overview"
    NUMBER = 8
    EVERY = 4

    class Read(Message):
        """The run folder has been read."""

        def __init__(self, facts: FolderFacts) -> None:
            super().__init__()
            self.facts = facts

    def __init__(self, folder: Path, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.folder = folder.absolute()
        self._facts: FolderFacts | None = None
        self._read_for: tuple[int, bool] | None = None
        self._state: RunState | None = None

    def compose(self) -> ComposeResult:
        with Horizontal():
            yield LineView(id="overview-facts")
            yield LineView(id="overview-config")

    def _read(self) -> None:
        facts = read_facts(self.folder)
        if self.is_attached:
            self.post_message(self.Read(facts))

    def on_overview_panel_read(self, message: Read) -> None:
        """Show what the folder tells."""
        message.stop()
        self._facts = message.facts
        if self._state is not None:
            self.paint(self._state, 0.0)

    def paint(self, state: RunState, now: float) -> None:
        self._state = state
        read_for = (state.attempt, state.last_checkpoint is not None)
        if read_for != self._read_for:
            self._read_for = read_for
            self.run_worker(partial(self._read), thread=True, exit_on_error=False)
        facts, config = self.query_one("#overview-facts", LineView), self.query_one("#overview-config", LineView)
        whole, height = self.content_size.width, self.content_size.height
        beside = whole >= TWO_COLUMNS
        config.display = beside
        width = (whole - 2) // 2 if beside else whole
        rows = run_lines(state, self._facts, self.folder, width)
        if beside:
            config.show(config_lines(self._facts, whole - width - 2, height))
        else:
            rows += config_lines(self._facts, width, max(3, height - len(rows)))
        facts.show(rows)
