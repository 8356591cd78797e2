"""A screen that starts and resumes runs, one at a time and off the app's thread, and opens what it started."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from textual.message import Message
from textual.screen import Screen

from acrf_engine.run.folder import RunFolder
from acrf_tui.screens.launchpad_check import remedy
from acrf_tui.screens.launchpad_configs import ConfigEntry
from acrf_tui.screens.launchpad_runs_box import RunsBox
from acrf_tui.screens.launchpad_start import DeviceChoice, Started, device_choices, resume, start


class StartingScreen(Screen[None]):
    """What a start needs of its screen is below; the launchpad fills it in."""

    @dataclass
    class StartAnswered(Message):
        """A start or a resume came back; `entry` is the config it was of, if any."""

        started: Started
        entry: ConfigEntry | None

    @dataclass
    class DeviceAsked(Message):
        """A start needs an answer first: on which device, or whether to wait for one."""

        entry: ConfigEntry
        choices: list[DeviceChoice]

    runs_dir: Path
    starting: str = ""
    """What is being started now."""

    def set_starting(self, name: str) -> None:
        """Say what is being started; empty: nothing any more."""
        self.starting = name

    def error_of(self, entry: ConfigEntry) -> str:
        """Why a config cannot run as it stands, as far as that is known."""
        raise NotImplementedError

    def failed(self, entry: ConfigEntry | None, error: str = "") -> None:
        """Show that this config did not start; None: forget about it."""
        raise NotImplementedError

    def open_run(self, folder: RunFolder) -> None:
        """Show a run."""
        raise NotImplementedError

    def look(self) -> None:
        """Something may have changed on disk."""
        raise NotImplementedError

    def start_config(self, entry: ConfigEntry) -> None:
        """Start a config, unless it is known that it cannot run, or something is being started already."""
        if error := self.error_of(entry):
            self.notify(remedy(error), title="This config cannot run as it stands", severity="warning")
            return
        if not self.starting:
            self.failed(None)
            self.set_starting(entry.name)
            work = partial(self._start_in_thread, entry)
            self.run_worker(work, thread=True, group="start", exit_on_error=False)

    def _start_in_thread(self, entry: ConfigEntry, choice: DeviceChoice | None = None) -> None:
        if choice is None and (choices := device_choices(entry.path)):
            self.post_message(self.DeviceAsked(entry, choices))
            return
        overrides, when_busy = (choice.overrides, choice.when_busy) if choice else ((), "")
        self.post_message(self.StartAnswered(start(self.runs_dir, entry.path, overrides, "", when_busy), entry))

    def on_starting_screen_device_asked(self, message: DeviceAsked) -> None:
        """Ask where to train, then start."""
        from acrf_tui.screens.launchpad_dialogs import DeviceDialog

        def answered(choice: DeviceChoice | None) -> None:
            if choice is None:
                self.set_starting("")
                return
            work = partial(self._start_in_thread, message.entry, choice)
            self.run_worker(work, thread=True, group="start", exit_on_error=False)

        self.app.push_screen(DeviceDialog(message.entry.name, message.choices), answered)

    def on_runs_box_resume(self, message: RunsBox.Resume) -> None:
        """Continue a run."""
        if not self.starting:
            self.set_starting(message.run.name)
            work = partial(self._resume_in_thread, RunFolder(message.run.folder), message.steps)
            self.run_worker(work, thread=True, group="start", exit_on_error=False)

    def _resume_in_thread(self, folder: RunFolder, steps: int | None = None) -> None:
        self.post_message(self.StartAnswered(resume(folder, steps), None))

    def on_starting_screen_start_answered(self, message: StartAnswered) -> None:
        """Open the run that was started, or say why there is none."""
        self.set_starting("")
        started = message.started
        if started.folder is not None:
            self.open_run(started.folder)
        elif message.entry is not None:
            self.failed(message.entry, started.error)
            self.notify(started.error, title="The run did not start", severity="error", markup=False)
        else:
            self.notify(started.error, title="The run did not resume", severity="error", markup=False)
        self.look()
