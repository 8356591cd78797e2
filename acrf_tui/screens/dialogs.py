"""The dashboard's dialogs: learning rate, leaving, and help made from the bindings that are live."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from rich.cells import cell_len
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Button, Input, Static

from acrf_tui.charts.symbols import symbols_of

HIGHEST_RATE = 1.0


def parse_rate(text: str) -> tuple[float | None, str]:
    """A learning rate from what was typed, or why it is none."""
    try:
        value = float(text.strip().replace(",", "."))
    except ValueError:
        return None, "a number such as 5e-5 or 0.0001"
    if not math.isfinite(value) or value <= 0:
        return None, "must be above 0"
    if value > HIGHEST_RATE:
        return None, f"must be at most {HIGHEST_RATE:g}"
    return value, ""


def schedule_effect(value: float, base: float, now: float, scheduler: str) -> str:
    """What the schedule makes of a new base rate at this moment."""
    if not (math.isfinite(base) and math.isfinite(now)) or base <= 0:
        return "takes effect at the next step"
    factor = now / base
    change = value / base
    return f"{scheduler} is at {factor:.0%} of its base: the next step uses {value * factor:.3g} ({change:.2g} × now)"


class RateDialog(ModalScreen[tuple[float, int] | None]):
    """Asks for a new base learning rate and the steps to reach it in (0: at once); None: leave it as it is."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "cancel", "Cancel", id="dialog.cancel", tooltip="Close without a change")
    ]

    def __init__(self, base: float, now: float, scheduler: str) -> None:
        super().__init__()
        self.base, self.now, self.scheduler = base, now, scheduler

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog") as box:
            box.border_title = "Learning rate"
            yield Static(f"base now [b]{self.base:.3g}[/b], last step used [b]{self.now:.3g}[/b]", id="rate-now")
            yield Input(f"{self.base:.3g}", id="rate-input", select_on_focus=True)
            with Horizontal(id="rate-ramp-row"):
                yield Static("over", classes="rate-label")
                yield Input("0", id="rate-ramp", type="integer", max_length=6, compact=True)
                yield Static("steps (0: at once)", classes="rate-label")
            yield Static("", id="rate-effect")
            with Horizontal(classes="dialog-buttons"):
                yield Button("÷ 2", id="rate-half", tooltip="Half of the base rate")
                yield Button("× 2", id="rate-double", tooltip="Twice the base rate")
                yield Button("Set", id="rate-set", variant="primary", tooltip="Applied at the next step")
                yield Button("Cancel", id="rate-cancel")

    def on_mount(self) -> None:
        self._explain()

    def on_input_changed(self, event: Input.Changed) -> None:
        """Say at once what the typed value means."""
        self._explain()

    def _ramp(self) -> int:
        text = self.query_one("#rate-ramp", Input).value
        return int(text) if text.isdecimal() else 0

    def _explain(self) -> None:
        value, wrong = parse_rate(self.query_one("#rate-input", Input).value)
        effect = self.query_one("#rate-effect", Static)
        effect.set_class(value is None, "-wrong")
        if value is None:
            effect.update(wrong)
        elif ramp := self._ramp():
            effect.update(f"goes from {self.base:.3g} to {value:.3g} over the next {ramp:,} steps")
        else:
            effect.update(schedule_effect(value, self.base, self.now, self.scheduler))
        self.query_one("#rate-set", Button).disabled = value is None

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Enter sets the rate, if it is one."""
        self._set()

    def on_button_pressed(self, event: Button.Pressed) -> None:
        """Presets fill the field; Set sends it."""
        field = self.query_one("#rate-input", Input)
        match event.button.id:
            case "rate-half" | "rate-double":
                value, _ = parse_rate(field.value)
                factor = 0.5 if event.button.id == "rate-half" else 2.0
                field.value = f"{min(HIGHEST_RATE, (value or self.base) * factor):.6g}"
                field.focus()
            case "rate-set":
                self._set()
            case _:
                self.dismiss(None)

    def _set(self) -> None:
        value, _ = parse_rate(self.query_one("#rate-input", Input).value)
        if value is not None:
            self.dismiss((value, self._ramp()))
        else:
            self.app.bell()

    def action_cancel(self) -> None:
        """Close without a change."""
        self.dismiss(None)


class LeaveDialog(ModalScreen[str | None]):
    """What becomes of the training when the app closes: "detach", "stop" or None (stay)."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("d", "answer('detach')", "Detach", id="leave.detach", tooltip="Close the app; training goes on"),
        Binding("s", "answer('stop')", "Checkpoint and stop", id="leave.stop", tooltip="Save, then end the training"),
        Binding("escape,c", "answer('')", "Cancel", id="leave.cancel", tooltip="Stay"),
        Binding("down,right", "app.focus_next", show=False),
        Binding("up,left", "app.focus_previous", show=False),
    ]

    def __init__(self, name: str, *, may_stop: bool, waiting: bool = False) -> None:
        super().__init__()
        self.run_name = name
        self.may_stop = may_stop
        self.waiting = waiting

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog") as box:
            box.border_title = "Leave"
            stays = "it stays in the line" if self.waiting else "training goes on"
            yield Button(f"[b]d[/b]  Detach: {stays}", id="leave-detach", variant="primary")
            yield Static(f"    come back with  acrf-tui attach {self.run_name}", classes="dialog-hint", markup=False)
            if self.may_stop:
                stop = "Take it out of the line" if self.waiting else "Checkpoint and stop"
                yield Button(f"[b]s[/b]  {stop}", id="leave-stop")
                yield Static(
                    f"    go on later with  acrf-tui resume {self.run_name}", classes="dialog-hint", markup=False
                )
            yield Button("[b]c[/b]  Cancel", id="leave-cancel")

    def on_button_pressed(self, event: Button.Pressed) -> None:
        """The button's answer."""
        self.action_answer((event.button.id or "").removeprefix("leave-").replace("cancel", ""))

    def action_answer(self, answer: str) -> None:
        """Close with an answer; an empty one means to stay."""
        if answer == "stop" and not self.may_stop:
            return
        self.dismiss(answer or None)


@dataclass(frozen=True, slots=True)
class KeyHelp:
    """One line of the help: keys, what they do, and why one would."""

    key: str
    description: str
    tooltip: str
    enabled: bool


class HelpDialog(ModalScreen[None]):
    """Keys that work now, as the screen below knows them, then what its panels have to explain."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,question_mark,q", "close", "Close", id="help.close", tooltip="Close the help")
    ]

    def __init__(self, keys: Sequence[KeyHelp], notes: Sequence[str] = ()) -> None:
        super().__init__()
        self.keys, self.notes = list(keys), list(notes)

    def compose(self) -> ComposeResult:
        width = max((cell_len(one.key) for one in self.keys), default=0)
        lines = []
        for one in self.keys:
            text = one.tooltip or one.description
            key = one.key + " " * (width - cell_len(one.key))
            lines.append(f"{key}   {text}" if one.enabled else f"{key}   {text} (not now)")
        lines += [part for note in self.notes for part in ("", symbols_of(self).spell(note))]
        with VerticalScroll(classes="dialog dialog-wide") as box:
            box.border_title = "Keys"
            box.border_subtitle = "esc closes"
            yield Static("\n".join(lines), markup=False)

    def action_close(self) -> None:
        """Back to the screen below."""
        self.dismiss(None)
