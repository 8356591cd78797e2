"""The form that starts a config on the user's own pictures, model and main settings."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.message import Message
from textual.screen import ModalScreen
from textual.timer import Timer
from textual.widget import Widget
from textual.widgets import Button, Footer, Input, Static
from textual.worker import Worker, WorkerState, get_current_worker

from acrf_engine.run.folder import RunFolder, fresh_name
from acrf_tui.screens.launchpad_configs import ConfigEntry
from acrf_tui.screens.launchpad_start import Started, start, yaml_override
from acrf_tui.screens.new_run_fields import PathField, PathInput
from acrf_tui.screens.new_run_paths import FolderCount, count_pictures

TYPING_SECONDS = 0.2
"""How long typing must rest before a folder is looked at."""


@dataclass(frozen=True, slots=True)
class Prefill:
    """What the config says for the fields of the form; an empty `dataset` stands for the demo or several folders."""

    dataset: str = ""
    trigger: str = ""
    model: str = ""
    epochs: str = ""
    learning_rate: str = ""
    error: str = ""


def prefill_of(path: Path) -> Prefill:
    """Read the config for the form. Loads the schema: not for the UI thread."""
    from acrf_engine.config import load_config
    from acrf_engine.yaml_source import ConfigError

    try:
        config = load_config(path)
    except ConfigError as error:
        return Prefill(error=str(error))
    dataset = config.dataset if isinstance(config.dataset, str) and config.dataset != "demo" else ""
    return Prefill(dataset, config.trigger, config.model, str(config.epochs), f"{config.learning_rate:g}")


def overrides_of(before: Prefill, now: Prefill) -> list[str]:
    """What the user changed, as overrides of the config. Numbers stay as typed, so that the schema judges them."""
    changed = []
    for key in ("dataset", "trigger", "model", "epochs", "learning_rate"):
        value = getattr(now, key).strip()
        if value == getattr(before, key) or (not value and key != "trigger"):
            continue
        if key in ("dataset", "model"):
            value = os.path.expanduser(value)
            value = value.rstrip("/") or value
        plain = key in ("epochs", "learning_rate") and not set(value) - set("0123456789.eE+-")
        changed.append(f"{key}={value}" if plain else yaml_override(key, value))
    return changed


def readable(error: str) -> str:
    """An error of the form: where it came from is plain to see here."""
    return "\n".join(line.removeprefix("--set: ") for line in error.splitlines())


class NewRunDialog(ModalScreen[RunFolder | None]):
    """Dismissed with the folder of the run that was started, or None."""

    AUTO_FOCUS = "#dataset-input"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "cancel", "Cancel", id="new-run.cancel", tooltip="Close without starting"),
        Binding("ctrl+s", "start", "Start", id="new-run.start", priority=True, tooltip="Start this run"),
    ]

    @dataclass
    class Prefilled(Message):
        """The config has been read."""

        prefill: Prefill

    @dataclass
    class Counted(Message):
        """The folder `text` has been looked at."""

        text: str
        count: FolderCount

    @dataclass
    class Answered(Message):
        """The start came back."""

        started: Started

    def __init__(self, entry: ConfigEntry, runs_dir: Path) -> None:
        super().__init__()
        self.entry = entry
        self.runs_dir = runs_dir
        self.prefill = Prefill()
        self.count: FolderCount | None = None
        self._suggested_name = fresh_name(runs_dir, entry.name)
        self._settle: Timer | None = None
        self._busy = False

    # ------------------------------------------------------------------ building

    def compose(self) -> ComposeResult:
        with VerticalScroll(id="new-run", classes="dialog dialog-wide", can_focus=False) as box:
            box.border_title = f"New run from {self.entry.name}"
            yield from self._labelled("pictures", PathField(placeholder="a folder, such as ~/photos", id="dataset"))
            yield Static("", id="dataset-says", classes="says", markup=False)
            yield from self._labelled("name", Input(self._suggested_name, id="name", select_on_focus=False))
            yield from self._labelled("trigger", Input(placeholder="none: captions as they are", id="trigger"))
            yield from self._labelled("model", PathField(placeholder="tiny, a folder, or a hub id", id="model"))
            with Horizontal(classes="field", id="figures"):
                yield Static("epochs", classes="label")
                yield Input(id="epochs", type="text")
                yield Static("learning rate", classes="label label-second")
                yield Input(id="learning_rate")
            yield Static("", id="new-run-says", classes="says", markup=False)
            with Horizontal(classes="dialog-buttons"):
                yield Button("Start", id="new-run-start", variant="primary", tooltip="Start this run")
                yield Button("Cancel", id="new-run-cancel")
        yield Footer(show_command_palette=False)

    def _labelled(self, label: str, field: Widget) -> ComposeResult:
        with Horizontal(classes="field -first" if field.id == "dataset" else "field"):
            yield Static(label, classes="label")
            yield field

    def on_mount(self) -> None:
        self._judge()
        self.run_worker(self._read, thread=True, group="prefill", exit_on_error=False)

    def _read(self) -> None:
        self.post_message(self.Prefilled(prefill_of(self.entry.path)))

    def on_new_run_dialog_prefilled(self, message: Prefilled) -> None:
        """Fill what the user has not typed meanwhile."""
        self.prefill = message.prefill
        for key in ("dataset", "trigger", "model", "epochs", "learning_rate"):
            field = self._field(key)
            if not field.value:
                field.value = getattr(message.prefill, key)
        self._judge()

    def _field(self, key: str) -> Input:
        return self.query_one(f"#{key}-input" if key in ("dataset", "model") else f"#{key}", Input)

    def _typed(self) -> Prefill:
        keys = ("dataset", "trigger", "model", "epochs", "learning_rate")
        return Prefill(**{key: self._field(key).value for key in keys})

    # ------------------------------------------------------------------ judging what is typed

    @on(Input.Changed)
    def _field_changed(self, event: Input.Changed) -> None:
        if event.input.id == "dataset-input":
            self.count = None
            self._suggest_name(event.value)
            if self._settle is not None:
                self._settle.stop()
            self._settle = self.set_timer(TYPING_SECONDS, partial(self._count_soon, event.value))
        self._judge()

    def _suggest_name(self, folder: str) -> None:
        """A name that nobody typed follows the picture folder."""
        field = self._field("name")
        if field.value == self._suggested_name:
            stem = Path(folder.strip()).name.lstrip("~.") or self.entry.name
            self._suggested_name = fresh_name(self.runs_dir, stem)
            field.value = self._suggested_name

    def _count_soon(self, text: str) -> None:
        if text.strip():
            work = partial(self._count, text)
            self.run_worker(work, thread=True, group="count", exclusive=True, exit_on_error=False)

    def _count(self, text: str) -> None:
        from acrf_engine.config import PICTURE_SUFFIXES

        worker = get_current_worker()
        count = count_pictures(text, PICTURE_SUFFIXES, lambda: worker.is_cancelled)
        if not worker.is_cancelled:
            self.post_message(self.Counted(text, count))

    def on_new_run_dialog_counted(self, message: Counted) -> None:
        """Show what the folder holds, if it is still the one in the field."""
        if message.text == self._field("dataset").value:
            self.count = message.count
            self._judge()

    def _judge(self) -> None:
        says = self.query_one("#dataset-says", Static)
        if not self._field("dataset").value.strip():
            text, wrong = "empty: the data set of this config", False
        elif self.count is None:
            text, wrong = "…", False
        else:
            text, wrong = self.count.sentence, bool(self.count.problem)
        says.update(text)
        says.set_class(wrong, "-wrong")
        self._say(f"this config cannot be read: {self.prefill.error}" if self.prefill.error else "", True)

    def _say(self, text: str, wrong: bool) -> None:
        says = self.query_one("#new-run-says", Static)
        says.update(text)
        says.display = bool(text)
        says.set_class(wrong, "-wrong")

    # ------------------------------------------------------------------ starting

    @on(Input.Submitted)
    def _submitted(self, event: Input.Submitted) -> None:
        """Enter goes on to the next field, and starts from the last."""
        if event.input.id == "learning_rate":
            self.action_start()
            return
        if isinstance(event.input, PathInput) and isinstance(event.input.parent, PathField):
            event.input.parent.close_list()
        order = ("dataset", "name", "trigger", "model", "epochs", "learning_rate")
        here = (event.input.id or "").removesuffix("-input")
        self._field(order[order.index(here) + 1]).focus()

    @on(Button.Pressed)
    def _pressed(self, event: Button.Pressed) -> None:
        if event.button.id == "new-run-start":
            self.action_start()
        else:
            self.action_cancel()

    def action_start(self) -> None:
        """Start the run in a thread; what was typed stays until it goes."""
        if self._busy:
            return
        if self._field("dataset").value.strip() and self.count is not None and self.count.problem:
            self._say(f"pictures: {self.count.problem}", True)
            self._field("dataset").focus()
            return
        self._set_busy(True)
        self._say("starting …", False)
        work = partial(self._start, overrides_of(self.prefill, self._typed()), self._field("name").value.strip())
        self.run_worker(work, thread=True, group="start", exit_on_error=False)

    def _start(self, overrides: list[str], name: str) -> None:
        self.post_message(self.Answered(start(self.runs_dir, self.entry.path, overrides, name)))

    def on_new_run_dialog_answered(self, message: Answered) -> None:
        """Close on success; else say what is wrong and keep what was typed."""
        self._set_busy(False)
        if message.started.folder is not None:
            self.dismiss(message.started.folder)
        else:
            self._say(readable(message.started.error), True)

    def on_worker_state_changed(self, message: Worker.StateChanged) -> None:
        """A worker that broke says so."""
        if message.state == WorkerState.ERROR:
            self._set_busy(False)
            self._say(str(message.worker.error) or "something failed", True)

    def _set_busy(self, busy: bool) -> None:
        self._busy = busy
        self.query_one("#new-run-start", Button).disabled = busy

    def action_cancel(self) -> None:
        """Close an open completion list, else the form. Not while a run is on its way: it would start unseen."""
        if self._busy:
            self.app.bell()
            return
        for field in self.query(PathField):
            if field.close_list():
                return
        self.dismiss(None)
