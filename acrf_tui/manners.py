"""What the app owes its terminal beside drawing: characters it knows, the clipboard, notifications, pictures."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from textual import events
from textual.app import App
from textual.binding import Binding
from textual.geometry import Size

from acrf_engine import __version__

if TYPE_CHECKING:
    from textual.filter import LineFilter
    from textual.timer import Timer

    from acrf_tui.alerts import Alert
    from acrf_tui.charts.symbols import SymbolSet
    from acrf_tui.settings import Settings

SETTLING_S = 0.25
"""After this long without another size the terminal is asked for the one it has."""


class MannerlyApp(App[int]):
    """An app that keeps to what its terminal and its line can do."""

    settings: Settings
    symbols: SymbolSet
    """Both are read after the first paint, before any screen is opened."""
    ready = False
    """They have been read."""
    sparing = False
    """The line is far or slow: few frames, no animations, no blinking."""
    more_filters: Sequence[LineFilter] = ()
    _settling: Timer | None = None

    def get_key_display(self, binding: Binding) -> str:
        """How a key is shown: in ASCII by its name, where its sign would be lost."""
        shown = super().get_key_display(binding)
        return binding.key if self.more_filters and not shown.isascii() else shown

    def get_line_filters(self) -> Sequence[LineFilter]:
        """The filters that all drawn lines pass."""
        return [*super().get_line_filters(), *self.more_filters]

    def on_resize(self, event: events.Resize) -> None:
        """A terminal that had another size for a moment, and has this one again, has lost what was drawn on it."""
        if not self.ready:
            return
        if event.size == self.screen.size:
            self.screen.refresh()
        if not (self.is_headless or self.is_web):
            if self._settling is not None:
                self._settling.stop()
            self._settling = self.set_timer(SETTLING_S, self._look_at_size)

    def _look_at_size(self) -> None:
        # While a window's edge is dragged the signals overtake one another: the size told last may be an older one.
        size = Size(*shutil.get_terminal_size())
        if size != self.size:
            self.post_message(events.Resize(size, size))

    def on_descendant_focus(self, event: events.DescendantFocus) -> None:
        """A cursor that blinks costs a line something twice a second."""
        if self.sparing and hasattr(event.widget, "cursor_blink"):
            event.widget.cursor_blink = False

    def tell_terminal(self, sequence: str) -> None:
        """Send the terminal an escape sequence that draws nothing."""
        if self._driver is not None:
            self._driver.write(sequence)

    def copy_to_clipboard(self, text: str) -> None:
        """Put `text` on the clipboard of the terminal in front of the user, also from within tmux or screen."""
        from acrf_tui.terminal_messages import clipboard_sequence

        self._clipboard = text
        try:
            self.tell_terminal(clipboard_sequence(text, os.environ))
        except ValueError as problem:
            self.notify(str(problem), title="Not copied", severity="warning", markup=False)

    def action_copy(self) -> None:
        """Copy what is selected, else what the screen offers: a command, a path, the lines in view."""
        from acrf_tui.feed import harmless
        from acrf_tui.terminal_messages import LONGEST_COPY

        offer = getattr(self.screen, "text_to_copy", None)
        text = self.screen.get_selected_text() or (offer() if offer is not None else "")
        if not text:
            self.notify("there is nothing to copy here", severity="warning")
            return
        self.copy_to_clipboard(text)
        if len(text.encode("utf-8", "replace")) <= LONGEST_COPY:
            lines = text.splitlines()
            shown = text if len(lines) == 1 else f"{len(lines):,} lines, from: {lines[0].strip()}"
            self.notify(harmless(shown[:300]), title="Copied", markup=False)

    def action_picture(self) -> None:
        """Save the screen as it is, in its size and theme."""
        if not self.ready:
            return  # nothing is on the screen yet
        svg = self.export_screenshot(title=f"acrf-tui {__version__}")
        self.run_worker(partial(self._save_picture, svg), thread=True, group="picture", exit_on_error=False)

    def _save_picture(self, svg: str) -> None:
        from acrf_tui.printable import short_path
        from acrf_tui.screenshot import write_picture
        from acrf_tui.settings import screenshots_folder, settings_file

        folder = screenshots_folder(self.settings)
        try:
            path = write_picture(folder, svg, time.time())
        except OSError as error:
            text = f"{folder}: cannot be written ({error.strerror}); `screenshots:` in {settings_file()} names another"
            self.call_from_thread(self.notify, text, title="No picture", severity="error", markup=False)
        else:
            self.call_from_thread(self.notify, short_path(path), title="Picture saved", markup=False)

    def on_alert(self, message: Alert) -> None:
        """The run on the screen ended, failed or met NaN: ring or notify, where the user wants it."""
        from acrf_tui.terminal_messages import notification_sequence

        if self.settings.notify in ("bell", "both"):
            self.bell()
        if self.settings.notify in ("osc9", "both"):
            self.tell_terminal(notification_sequence(message.text, os.environ))
