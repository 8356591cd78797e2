"""What the launchpad asks before it starts a run: which device, how much further a finished run shall go, what a
copy of a config shall be called."""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Button, Input, OptionList, Static
from textual.widgets.option_list import Option

from acrf_engine.run.folder import NAME_PATTERN
from acrf_tui.printable import printable, short_path
from acrf_tui.screens.launchpad_configs import own_config_folder
from acrf_tui.screens.launchpad_lists import PickList
from acrf_tui.screens.launchpad_start import DeviceChoice

CANCEL = Binding("escape", "cancel", "Cancel", id="dialog.cancel", tooltip="Close without starting anything")


class DeviceDialog(ModalScreen[DeviceChoice | None]):
    """Asks where a run shall train, or whether it shall wait; None: start nothing."""

    BINDINGS: ClassVar[list[BindingType]] = [CANCEL]

    def __init__(self, name: str, choices: Sequence[DeviceChoice]) -> None:
        super().__init__()
        self.run_name = name
        self.choices = list(choices)

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog dialog-wide") as box:
            box.border_title = Content(f"Where to train {self.run_name}")
            box.border_subtitle = "enter chooses · esc starts nothing"
            rows = [Content.assemble(choice.label, (f"\n  {choice.detail}", "dim")) for choice in self.choices]
            yield PickList(*(Option(row) for row in rows), id="devices", compact=True)

    def on_option_list_option_selected(self, message: OptionList.OptionSelected) -> None:
        """The chosen way."""
        message.stop()
        self.dismiss(self.choices[message.option_index])

    def action_cancel(self) -> None:
        """Start nothing."""
        self.dismiss(None)


class ExtendDialog(ModalScreen[int | None]):
    """Asks to which step a finished run shall go on; None: leave it."""

    BINDINGS: ClassVar[list[BindingType]] = [CANCEL]

    def __init__(self, name: str, step: int) -> None:
        super().__init__()
        self.run_name = name
        self.step = step

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog") as box:
            box.border_title = Content(f"Train {self.run_name} further")
            yield Static(f"finished at step {self.step:,}; go on to step")
            yield Input(str(self.step * 3 // 2), id="extend-steps", type="integer", select_on_focus=True)
            yield Static("", id="extend-effect")
            with Horizontal(classes="dialog-buttons"):
                yield Button("Go on", id="extend-go", variant="primary")
                yield Button("Cancel", id="extend-cancel")

    def on_input_changed(self, event: Input.Changed) -> None:
        """Say at once what the number means."""
        steps = self._steps(event.value)
        effect = self.query_one("#extend-effect", Static)
        effect.set_class(steps is None, "-wrong")
        effect.update(
            f"{steps - self.step:,} more steps; the schedule is planned anew for {steps:,}"
            if steps is not None
            else f"a whole number above {self.step:,}"
        )
        self.query_one("#extend-go", Button).disabled = steps is None

    def _steps(self, text: str) -> int | None:
        return int(text) if text.isdecimal() and self.step < int(text) <= 10_000_000 else None

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Enter goes on, if the number is one."""
        self._go()

    def on_button_pressed(self, event: Button.Pressed) -> None:
        """Go on, or leave it."""
        self._go() if event.button.id == "extend-go" else self.dismiss(None)

    def _go(self) -> None:
        steps = self._steps(self.query_one(Input).value)
        if steps is not None:
            self.dismiss(steps)
        else:
            self.app.bell()

    def action_cancel(self) -> None:
        """Leave it finished."""
        self.dismiss(None)


class NameDialog(ModalScreen[str | None]):
    """Asks what the copy of a config shall be called; None: make none."""

    BINDINGS: ClassVar[list[BindingType]] = [CANCEL]

    def __init__(self, original: str, suggestion: str, taken: Container[str]) -> None:
        super().__init__()
        self.original, self.suggestion, self.taken = original, suggestion, taken

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog") as box:
            box.border_title = Content(f"Copy {printable(self.original)}")
            yield Static(f"a config of your own, in {short_path(own_config_folder())}, called", markup=False)
            yield Input(self.suggestion, id="copy-name", select_on_focus=True, max_length=100)
            yield Static("", id="copy-says", markup=False)
            with Horizontal(classes="dialog-buttons"):
                yield Button("Copy", id="copy-go", variant="primary")
                yield Button("Cancel", id="copy-cancel")

    def _wrong(self, name: str) -> str:
        if name in self.taken:
            return "there is one of this name already"
        return "" if NAME_PATTERN.fullmatch(name) else "letters, digits, - _ + and . (not at its start)"

    def on_input_changed(self, event: Input.Changed) -> None:
        """Say at once what is wrong with a name."""
        wrong = self._wrong(event.value)
        says = self.query_one("#copy-says", Static)
        says.set_class(bool(wrong), "-wrong")
        says.update(wrong)
        self.query_one("#copy-go", Button).disabled = bool(wrong)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Enter copies, if the name will do."""
        self._go()

    def on_button_pressed(self, event: Button.Pressed) -> None:
        """Copy, or not."""
        self._go() if event.button.id == "copy-go" else self.dismiss(None)

    def _go(self) -> None:
        name = self.query_one(Input).value
        if self._wrong(name):
            self.app.bell()
        else:
            self.dismiss(name)

    def action_cancel(self) -> None:
        """Make no copy."""
        self.dismiss(None)
