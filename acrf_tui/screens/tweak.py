"""The dialog for the settings that may change while a run goes on, besides the learning rate."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.screen import ModalScreen
from textual.widgets import Button, Input, Static

from acrf_engine.protocol import Plan

TWEAKS: dict[str, tuple[str, str]] = {
    "loss.lambda_char": ("λ Char", "weight of the Charbonnier loss"),
    "loss.lambda_cos": ("λ Cos", "weight of the cosine loss"),
    "loss.lambda_fft": ("λ FFT", "weight of the FFT loss"),
    "snr_gamma": ("γ", "Min-SNR gamma; 0 turns the weighting off"),
    "jitter_scale": ("η", "jitter around each anchor, in sigma"),
    "optimization.max_grad_norm": ("clip", "gradient norm above which it is clipped; 0: off"),
}
"""What `set` takes, besides learning_rate: label and meaning."""


def values_now(plan: Plan, settings: Mapping[str, float]) -> dict[str, float]:
    """The value of every tweak, as the plan or a later `set` says."""
    return {key: settings.get(key, float(getattr(plan, key.rpartition(".")[2]))) for key in TWEAKS}


def parse_tweak(text: str) -> float | None:
    """A finite number from 0 on; None where the text is none. The run says whether the value is in its range."""
    try:
        value = float(text.strip().replace(",", "."))
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None


class TweakDialog(ModalScreen[dict[str, float] | None]):
    """Asks for new values; returns those that differ, None to leave all as it is."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "cancel", "Cancel", id="dialog.cancel", tooltip="Close without a change"),
        Binding("down", "app.focus_next", show=False),
        Binding("up", "app.focus_previous", show=False),
    ]

    def __init__(self, values: Mapping[str, float]) -> None:
        super().__init__()
        self.values = dict(values)

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog dialog-wide", id="tweak") as box:
            box.border_title = "Tweak"
            box.border_subtitle = "applied at the next step"
            for number, (key, value) in enumerate(self.values.items()):
                label, meaning = TWEAKS[key]
                with Horizontal(classes="tweak-row"):
                    yield Static(label, classes="tweak-label")
                    yield Input(f"{value:g}", id=f"tweak-{number}", select_on_focus=True, compact=True)
                    yield Static(meaning, classes="tweak-meaning")
            yield Static("", id="tweak-says")
            with Horizontal(classes="dialog-buttons"):
                yield Button("Set", id="tweak-set", variant="primary")
                yield Button("Cancel", id="tweak-cancel")

    def _typed(self) -> dict[str, float | None]:
        fields = self.query(Input).results(Input)
        return {key: parse_tweak(field.value) for key, field in zip(self.values, fields, strict=True)}

    def _changes(self) -> dict[str, float]:
        typed = self._typed()
        return {key: value for key, value in typed.items() if value is not None and value != self.values[key]}

    @on(Input.Changed)
    def explain(self) -> None:
        """Say at once what would change, or what is no number."""
        wrong = [TWEAKS[key][0] for key, value in self._typed().items() if value is None]
        changes = [f"{TWEAKS[key][0]} {self.values[key]:g} → {value:g}" for key, value in self._changes().items()]
        says = self.query_one("#tweak-says", Static)
        says.set_class(bool(wrong), "-wrong")
        says.update(f"{', '.join(wrong)}: a number from 0 on" if wrong else ", ".join(changes) or "nothing changed")
        self.query_one("#tweak-set", Button).disabled = bool(wrong) or not changes

    @on(Input.Submitted)
    @on(Button.Pressed, "#tweak-set")
    def send(self) -> None:
        """Close with what differs."""
        if None in self._typed().values() or not self._changes():
            self.app.bell()
        else:
            self.dismiss(self._changes())

    @on(Button.Pressed, "#tweak-cancel")
    def action_cancel(self) -> None:
        """Close without a change."""
        self.dismiss(None)
