"""The worker's log of a run: followed as it grows, and filtered by words."""

from __future__ import annotations

import os
from collections import deque
from pathlib import Path
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import Input, Log

from acrf_tui.charts.lines import LineView, line, spread
from acrf_tui.feed import harmless
from acrf_tui.filtering import matching
from acrf_tui.panels.keys import KeysLine
from acrf_tui.screens.calm import CalmScreen

LOOK_SECONDS = 0.5
SLOW_LOOK_SECONDS = 1.0
LONGEST_READ = 1_000_000
"""Bytes taken of a long log, from its end, and at most at a time."""
MOST_LINES = 20_000


class LogTail:
    """New lines of a file that grows, is cut or replaced; from its last LONGEST_READ bytes on."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offset = -1
        self._rest = b""

    def read(self) -> list[str]:
        """Whole lines that have come since the last call. Raises OSError where the file cannot be read."""
        size = os.stat(self.path).st_size
        begin = self._offset
        if begin < 0 or size < begin or size - begin > LONGEST_READ:
            begin, self._rest = max(0, size - LONGEST_READ), b""
        with self.path.open("rb") as file:
            file.seek(begin)
            data = self._rest + file.read(size - begin)
        if begin and self._offset != begin:
            data = data.partition(b"\n")[2]  # the first line is not whole
        self._offset = size
        *lines, self._rest = data.split(b"\n")
        return [harmless(text.decode("utf-8", "replace").rpartition("\r")[2]) for text in lines]


class LogLines(Log):
    """The lines in view; `end` is bound here, where the widget below would take it first."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("end", "screen.end", "Follow", id="log.follow", tooltip="Go to the end and follow it"),
    ]


class LogScreen(CalmScreen[None]):
    """Shows a log, newest at the bottom. It follows while the end is in view."""

    CSS_PATH = "../styles/log.tcss"
    AUTO_FOCUS = "#log"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("slash", "ask", "Filter", id="log.filter", tooltip="Show only lines that hold some words"),
        Binding("escape", "back", "Back", id="log.back", tooltip="Drop the filter, then leave the log"),
        Binding("question_mark", "help", "Help", id="app.help", tooltip="Show the keys that work now"),
        Binding("q", "app.pop_screen", "Close", id="log.close", tooltip="Back to the dashboard"),
    ]

    def __init__(self, name: str, path: Path) -> None:
        super().__init__()
        self.run_name = harmless(name)
        self._tail = LogTail(path)
        self._lines: deque[str] = deque(maxlen=MOST_LINES)
        self._said: tuple[object, ...] = ()

    def compose(self) -> ComposeResult:
        yield LineView(id="log-head")
        yield LogLines(id="log", max_lines=MOST_LINES)
        yield Input(placeholder="words to look for", id="log-filter", compact=True)
        yield KeysLine(id="keys")

    def on_mount(self) -> None:
        self.set_interval(SLOW_LOOK_SECONDS if getattr(self.app, "slow", False) else LOOK_SECONDS, self._look)
        self.call_after_refresh(self._look)

    def _look(self) -> None:
        trouble = ""
        try:
            fresh = self._tail.read()
        except OSError as error:
            fresh, trouble = [], f"cannot be read: {error.strerror}"
        self._lines.extend(fresh)
        self.query_one(Log).write_lines(self._wanted(fresh))
        self._say(trouble)

    def _wanted(self, lines: list[str]) -> list[str]:
        return [text or " " for text in matching(lines, self.query_one(Input).value)]

    def _say(self, trouble: str = "") -> None:
        log = self.query_one(Log)
        follows = log.is_vertical_scroll_end
        state = trouble or ("following" if follows else "end: follow again")
        filtered = f"{log.line_count:,} of " if self.query_one(Input).value.strip() else ""
        said = (self.run_name, filtered, len(self._lines), state, self.size.width)
        if said != self._said:
            self._said = said
            left = line((f" {self.run_name}", "bold accent"), ("  worker.log", "muted"))
            count = f"{filtered}{len(self._lines):,} lines   "
            role = "bad" if trouble else "good" if follows else "warn"
            right = line((count, "muted"), (f"{state} ", role))
            self.query_one("#log-head", LineView).show([spread(left, right, self.size.width)])

    def on_input_changed(self, event: Input.Changed) -> None:
        """Filter while it is typed."""
        log = self.query_one(Log)
        log.clear()
        log.write_lines(self._wanted(list(self._lines)))
        log.scroll_end(animate=False)
        self._say()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Keep the filter, and go back to the lines."""
        event.input.display = bool(event.value.strip())
        self.query_one(Log).focus()

    def text_to_copy(self) -> str:
        """The lines in view."""
        log = self.query_one(Log)
        top = round(log.scroll_offset.y)
        return "\n".join(text.rstrip() for text in log.lines[top : top + log.size.height]).strip("\n")

    def action_ask(self) -> None:
        """Let the user type what to look for."""
        field = self.query_one(Input)
        field.display = True
        field.focus()

    def action_end(self) -> None:
        """Go to the end, which follows."""
        self.query_one(Log).scroll_end(animate=False)
        self.call_after_refresh(self._say)

    def action_help(self) -> None:
        """List the keys that work now."""
        from acrf_tui.screens.dialogs import HelpDialog
        from acrf_tui.screens.live_keys import live_keys

        self.app.push_screen(HelpDialog(live_keys(self)))

    def action_back(self) -> None:
        """Drop the filter; without one, leave."""
        field = self.query_one(Input)
        if not field.display:
            self.app.pop_screen()
            return
        field.value = ""
        field.display = False
        self.query_one(Log).focus()
