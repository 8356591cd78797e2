"""What all panels share: a titled frame that can be focused and maximised, and a moment at which to draw."""

from __future__ import annotations

from typing import ClassVar

from textual import events
from textual.containers import Vertical
from textual.message import Message

from acrf_tui.charts.symbols import SymbolSet, symbols_of
from acrf_tui.panels.keys import Key
from acrf_tui.state import RunState


class Panel(Vertical, can_focus=True):
    """A frame. `paint` reads the state; it is called every `EVERY` ticks, and draws only what changed."""

    ALLOW_MAXIMIZE = True
    ALLOW_SELECT = False
    EVERY: ClassVar[int] = 2
    TITLE: ClassVar[str] = ""
    NUMBER: ClassVar[int] = 0
    """The digit key that focuses this panel."""
    SUBTITLE: ClassVar[str] = ""
    HELP: ClassVar[str] = ""
    """What the panel shows and its labels cannot say; the help ends with it."""
    behind: bool = False
    """Something was left for later to save bytes: paint again even when the state stays."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.say_hidden(False)
        if self.SUBTITLE:
            self.border_subtitle = self.SUBTITLE

    @property
    def symbols(self) -> SymbolSet:
        """The characters that this terminal can show."""
        return symbols_of(self)

    def say_hidden(self, hidden: bool) -> None:
        """Name in the title how a hidden panel comes back; it is seen only while that panel is maximised."""
        way_back = "  [dim]hidden: h brings it back[/dim]" if hidden else ""
        self.border_title = f"[dim]{self.NUMBER}[/dim] {self.TITLE}{way_back}"

    class Resized(Message):
        """The panel has a new size and wants to be painted at once."""

        def __init__(self, panel: Panel) -> None:
            super().__init__()
            self.panel = panel

    class Vanished(Message):
        """The panel has no place on the screen any more."""

    def on_hide(self, event: events.Hide) -> None:
        """Let the screen see to it that something is left to be seen."""
        self.post_message(self.Vanished())

    def on_resize(self, event: events.Resize) -> None:
        """Ask for paint when the children are laid out too."""
        self.call_after_refresh(self.post_message, self.Resized(self))

    def paint(self, state: RunState, now: float) -> None:
        """Show `state`; `now` is Unix time, for what is counted in seconds."""
        raise NotImplementedError

    def keys_first(self) -> list[Key]:
        """The keys of this panel that matter most at this moment; the keys line begins with them."""
        return []

    def why_empty(self, state: RunState) -> str:
        """Why there is nothing to show before the first step."""
        if state.ended:
            return f"no steps were made before the run {state.state}"
        if state.waiting:
            return "no steps yet: the run waits for its turn"
        phase = state.progress.phase if state.progress else state.state
        doing = {
            "loading": "the model is being loaded",
            "caching": "pictures and captions are being encoded",
            "validating": "the held-out pictures are being measured",
            "starting": "the worker is starting",
        }.get(phase, "waiting for the first step")
        return f"no steps yet: {doing}"
