"""The text that is being edited and what it means; it is read in a thread once typing rests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textual.message import Message
from textual.timer import Timer

from acrf_tui.screens.editor_document import Reading, equal_values, read
from acrf_tui.screens.editor_files import Draft, FileTrouble, Source, find_draft, read_source

if TYPE_CHECKING:
    from acrf_tui.screens.editor import EditorScreen

AT_ONCE = 4_000
"""Characters that are read in a few milliseconds; a longer text is waited for."""
READ_SECONDS = 0.12
"""How long typing must rest before the text is read and checked."""


@dataclass
class Loaded(Message):
    """A file was read, or could not be; `draft` is what was typed the last time and not saved."""

    source: Source
    reading: Reading
    draft: Draft | None
    trouble: str = ""


def load(path: Path, base: Path | None) -> Loaded:
    """Read a config for the editor; one that is not there yet begins as a copy of `base`."""
    source, trouble = Source(), ""
    try:
        if path.exists() or base is None:
            source = read_source(path)
        else:
            copied = read_source(base)
            source = Source(copied.text, None, copied.crlf, copied.marked)
    except FileTrouble as error:
        trouble = str(error)
    draft = find_draft(path)
    if draft is not None and draft.text == source.text:
        draft = None
    return Loaded(source, read(source.text, path.name), draft, trouble)


class LiveText:
    """The text of an editor. `reading` is that of an older text until the text has been read again."""

    @dataclass
    class Read(Message):
        """A text was read."""

        reading: Reading

    def __init__(self, screen: EditorScreen) -> None:
        self.screen = screen
        self.text = ""
        self.loaded = False
        self.before = Reading()
        """The file as it was read or saved last."""
        self.reading = Reading()
        self.good = Reading()
        """The last reading that had values."""
        self._meant: tuple[Reading, dict[str, Any]] | None = None
        """What the last change of the form began with, and the values it is to give."""
        self._settle: Timer | None = None
        self._waiting: list[Callable[[], None]] = []

    @property
    def dirty(self) -> bool:
        """Whether there is something that is not in the file."""
        return self.loaded and self.text != self.before.text

    def begin(self, reading: Reading) -> None:
        """Start with a file."""
        self.before = self.reading = reading
        self.good = Reading() if reading.error else reading
        self.text = reading.text
        self.loaded = True

    def change(self, text: str, origin: Reading | None = None, values: dict[str, Any] | None = None) -> None:
        """Change the text; by the form, from the text of `origin` to what is to load as `values`."""
        if text == self.text:
            return
        self.text = text
        self._meant = (origin, values) if origin is not None and values is not None else None
        self.screen.text_changed()
        self._rest()
        self._settle = self.screen.set_timer(READ_SECONDS, self._read)

    def when_read(self, call: Callable[[], None]) -> None:
        """Call as soon as `reading` is that of the text."""
        if self.reading.text != self.text and len(self.text) <= AT_ONCE:
            self.take(read(self.text, self.screen.path.name))
        if self.reading.text == self.text:
            call()
        else:
            self._waiting.append(call)
            self._rest()
            self._read()

    async def now(self) -> Reading:
        """What the text means now. A change of the form that did not do what it was to do is taken back first."""
        while self.reading.text != self.text:
            self.take(await asyncio.to_thread(read, self.text, self.screen.path.name))
        return self.reading

    def take(self, reading: Reading) -> None:
        """A text was read; what is not the text any more is passed over."""
        if reading.text != self.text or reading is self.reading:
            return
        if self._meant is not None:
            origin, values = self._meant
            if reading.error or not equal_values(reading.values, values):
                self._meant = None
                self.screen.refuse_change(origin.text)
                return
        self.reading = reading
        if not reading.error:
            self.good = reading
        self.screen.show_form()
        waiting, self._waiting = self._waiting, []
        for call in waiting:
            call()

    def _rest(self) -> None:
        if self._settle is not None:
            self._settle.stop()

    def _read(self) -> None:
        text, name = self.text, self.screen.path.name

        def work() -> None:
            self.screen.post_message(self.Read(read(text, name)))

        self.screen.run_worker(work, thread=True, group="read", exclusive=True, exit_on_error=False)
