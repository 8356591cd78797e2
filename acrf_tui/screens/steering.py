"""The half of the dashboard that acts on the run: commands, their dialogs and answers, and leaving."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

from textual.binding import ActiveBinding
from textual.screen import Screen

from acrf_tui.feed import Answered, Feed, RunSource
from acrf_tui.journal import describe_ack
from acrf_tui.panels.header import Header
from acrf_tui.screens.dialogs import HelpDialog, KeyHelp, LeaveDialog, RateDialog
from acrf_tui.state import RunState

STEERABLE: frozenset[str] = frozenset({"running", "paused"})
LEAVABLE: frozenset[str] = frozenset({"running", "paused", "caching", "starting"})


class SteeringScreen(Screen[str]):
    """A screen of one run that can be steered. Dismissed with "detach", "stopped" or "closed"."""

    def __init__(self, source: RunSource) -> None:
        super().__init__()
        self.source = source
        self.run_state = RunState()
        self._read_only = source.read_only
        self._header = Header(source.name, self._read_only, id="header")
        self._feed = Feed(source, self)
        self._leaving = False

    def on_answered(self, message: Answered) -> None:
        """A command came back. The stream brings the acknowledgement to the journal; here are the failures."""
        self._header.waiting = ""
        if message.ack is None:
            text = f"{message.name} was not delivered: {message.error}"
            self.run_state.note("error", text, time.time(), self.run_state.step)
            self.notify(text, title="Command failed", severity="error")
        elif not message.ack.ok:
            self.notify(describe_ack(message.ack), title="Command refused", severity="warning")
        if self._leaving:
            if (message.ack is not None and message.ack.ok) or self.run_state.ended:
                self._close("stopped")
            else:
                self._leaving = False

    @property
    def active_bindings(self) -> dict[str, ActiveBinding]:
        """The live bindings, named by what they do now."""
        found = super().active_bindings
        names = self.names_now()
        if not names:
            return found
        return {
            key: one._replace(binding=dataclasses.replace(one.binding, description=names[one.binding.action]))
            if one.binding.action in names
            else one
            for key, one in found.items()
        }

    def names_now(self) -> dict[str, str]:
        """Action -> what its key does now, where that is not what it does at other times."""
        names: dict[str, str] = {}
        if self.run_state.state == "paused" or self.run_state.waiting:
            names["pause_or_resume"] = "Start now" if self.run_state.waiting else "Resume"
            if self.run_state.parked:
                names["vram"] = "Reload"
        return names

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Commands show only while they can work; None dims them for an observer."""
        state = self.run_state
        if action not in ("pause_or_resume", "command", "learning_rate", "tweak", "vram"):
            return True
        works = state.state in STEERABLE
        if action == "pause_or_resume":
            works = works or state.waiting
        elif action == "vram":
            works = state.state == "paused" and (state.plan is None or state.plan.device != "CPU")
        elif parameters == ("preview",):
            works = works and not (state.preview_refused or state.parked)
        if not works:
            return False
        return None if self._read_only else True

    def _send(self, name: str, **args: Any) -> None:
        self._header.waiting = name
        self._feed.send(name, **args)

    def action_pause_or_resume(self) -> None:
        """Pause a running training, resume a paused one, start one that waits for a device."""
        self._send("resume" if self.run_state.state == "paused" or self.run_state.waiting else "pause")

    def action_command(self, name: str) -> None:
        """Send a command that needs no argument."""
        self._send(name)

    def action_learning_rate(self) -> None:
        """Ask for a learning rate, then set it."""

        def chosen(answer: tuple[float, int] | None) -> None:
            if answer is not None and answer[0] != self.run_state.base_rate:
                value, ramp = answer
                self._send("set", key="learning_rate", value=value, **({"ramp": ramp} if ramp else {}))

        plan = self.run_state.plan
        dialog = RateDialog(self.run_state.base_rate, self.run_state.rate(), plan.scheduler if plan else "the schedule")
        self.app.push_screen(dialog, chosen)

    def action_tweak(self) -> None:
        """Ask for new lambdas, gamma, jitter or clip level, then set those that differ."""
        from acrf_tui.screens.tweak import TweakDialog, values_now

        def chosen(changes: dict[str, float] | None) -> None:
            for key, value in (changes or {}).items():
                self._send("set", key=key, value=value)

        if self.run_state.plan is not None:
            self.app.push_screen(TweakDialog(values_now(self.run_state.plan, self.run_state.settings)), chosen)

    def action_vram(self) -> None:
        """Give the VRAM back while paused, or take it again."""
        self._send("reload" if self.run_state.parked else "free-vram")

    def action_help(self) -> None:
        """List the keys that work now."""
        keys: dict[str, KeyHelp] = {}
        for one in self.active_bindings.values():
            name = one.binding.id or (one.binding.action if one.binding.show else "")
            if name and name not in keys:
                key = self.app.get_key_display(one.binding)
                keys[name] = KeyHelp(key, one.binding.description, one.tooltip, one.enabled)
        self.app.push_screen(HelpDialog([*keys.values(), KeyHelp("tab", "", "Next panel", True)], self.help_notes()))

    def help_notes(self) -> list[str]:
        """What the help says below the keys."""
        return []

    def action_leave(self) -> None:
        """Close an ended run at once; ask what becomes of a live one."""
        if self.run_state.ended:
            self._close("closed")
            return

        def answered(answer: str | None) -> None:
            if answer == "detach":
                self._close("detach")
            elif answer == "stop":
                self._leaving = True
                if not self.run_state.waiting:
                    self.notify("saving a checkpoint, then the run stops", title="Stopping")
                self._send("stop")

        may_stop = self.run_state.state in LEAVABLE and not self._read_only
        dialog = LeaveDialog(self.source.name, may_stop=may_stop, waiting=self.run_state.waiting)
        self.app.push_screen(dialog, answered)

    def _close(self, result: str) -> None:
        self._feed.stop()
        if self.is_current:
            self.dismiss(result)
        elif self in self.app.screen_stack:  # a dialog is still above
            while self.app.screen is not self:
                self.app.pop_screen()
            self.call_after_refresh(self.dismiss, result)
