"""Finds out what the chosen config will do, off the app's thread, and shows it."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from textual.message import Message
from textual.timer import Timer
from textual.worker import Worker, WorkerState, get_current_worker

from acrf_tui.screens.launchpad_check import Outlook, read_settings, run_check, with_report
from acrf_tui.screens.launchpad_configs import ConfigEntry
from acrf_tui.screens.launchpad_outlook import OutlookView

SETTLE_SECONDS = 0.12
"""How long the choice must rest before its check starts: holding a key down must not start a process for each row."""


class Examiner(OutlookView):
    """The outlook of the chosen config: what is known of it at once, then its settings, then its check."""

    @dataclass
    class Examined(Message):
        """What is known of a config now; `version` is its file's change time."""

        entry: ConfigEntry
        version: int
        outlook: Outlook

    def __init__(self, runs_dir: Path, *, id: str) -> None:
        super().__init__(id=id)
        self.runs_dir = runs_dir
        self._chosen: ConfigEntry | None = None
        self._outlooks: dict[Path, tuple[int, Outlook]] = {}
        self._settle: Timer | None = None
        self._examining: Path | None = None
        self._failure: tuple[Path | None, str] = (None, "")
        """The config that did not start, and why."""

    def error_of(self, entry: ConfigEntry) -> str:
        """Why a config cannot run as it stands, as far as that is known."""
        return self._outlooks.get(entry.path, (0, Outlook()))[1].error

    def fail(self, entry: ConfigEntry | None, error: str = "") -> None:
        """Show that a start of this config failed, until another is chosen; None: forget about it."""
        self._failure = (entry.path if entry is not None else None, error)

    def examine(self, entry: ConfigEntry | None) -> None:
        """Show what is known of the chosen config, and find out the rest."""
        self._chosen = entry
        if entry is None:
            return
        version, outlook = self._outlooks.get(entry.path, (-1, Outlook(checking=True)))
        failed, error = self._failure
        if failed == entry.path:
            outlook = replace(outlook, error=error, advice="Press enter to try again.", checking=False)
        self.show(entry, outlook)
        if version == _version(entry.path) or self._examining == entry.path:
            return
        self._examining = entry.path
        if self._settle is not None:
            self._settle.stop()
        self._settle = self.set_timer(SETTLE_SECONDS, partial(self._start, entry))

    def _start(self, entry: ConfigEntry) -> None:
        self.run_worker(partial(self._read, entry), thread=True, group="examine", exclusive=True, exit_on_error=False)

    def _read(self, entry: ConfigEntry) -> None:
        worker = get_current_worker()
        version = _version(entry.path)
        outlook = read_settings(entry.path)
        self.post_message(self.Examined(entry, version, outlook))
        if outlook.checking:
            result = run_check(entry.path, self.runs_dir, lambda: worker.is_cancelled)
            if result is not None:
                self.post_message(self.Examined(entry, version, with_report(outlook, result)))

    def on_examiner_examined(self, message: Examined) -> None:
        """More is known of a config; it is shown if that is still the chosen one."""
        message.stop()
        if not message.outlook.checking:
            self._outlooks[message.entry.path] = (message.version, message.outlook)
            if self._examining == message.entry.path:
                self._examining = None
        if self._chosen is not None and self._chosen.path == message.entry.path != self._failure[0]:
            self.show(self._chosen, message.outlook)

    def on_worker_state_changed(self, message: Worker.StateChanged) -> None:
        """A check that broke says so; the screen stays."""
        if message.state == WorkerState.ERROR:
            self._examining = None
            reason = str(message.worker.error) or "no reason was given"
            self.notify(reason, title="Something failed", severity="error", markup=False)


def _version(path: Path) -> int:
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return 0
