"""Keeps what is typed and not saved, so that a dropped line or a dead app loses at most a second of it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

from textual.screen import Screen
from textual.timer import Timer

from acrf_tui.screens.editor_files import drop_draft, keep_draft

DRAFT_SECONDS = 1.0
"""How long after a change the draft is written; a hand that never rests is not waited for."""


class DraftKeeper:
    """The draft of one config. `trouble` is told once where drafts cannot be written."""

    def __init__(self, path: Path, trouble: Callable[[str], None]) -> None:
        self.path = path
        self.begun = ""
        """The text of the file that is being changed."""
        self._trouble = trouble
        self._told = False
        self._text: str | None = None
        self._timer: Timer | None = None
        self._lock = threading.Lock()

    def keep_soon(self, screen: Screen[Path | None], text: str | None) -> None:
        """Write the text in a second, whatever it is by then; None where nothing is unsaved any more."""
        self._text = text
        if self._timer is None:
            self._timer = screen.set_timer(DRAFT_SECONDS, partial(self._write_in_thread, screen))

    def _write_in_thread(self, screen: Screen[Path | None]) -> None:
        self._timer = None
        screen.run_worker(partial(self._write, screen), thread=True, group="draft", exit_on_error=False)

    def _write(self, screen: Screen[Path | None]) -> None:
        try:
            with self._lock:
                if self._text is None:
                    drop_draft(self.path)
                else:
                    keep_draft(self.path, self._text, self.begun)
        except OSError as error:
            if not self._told:
                self._told = True
                why = f"What you type is kept in this app alone until you save it: no draft can be written ({error})"
                screen.app.call_from_thread(self._trouble, why)

    def keep_now(self, text: str) -> None:
        """Write the text at once: the app ends. A disk that takes nothing loses it."""
        try:
            with self._lock:
                keep_draft(self.path, text, self.begun)
        except OSError:
            return

    def drop(self) -> None:
        """Saved or discarded: nothing is unsaved any more."""
        with self._lock:
            self._text = None
            drop_draft(self.path)
