"""The dashboard of one run: it wires feed, state, panels and commands, and holds nothing else."""

from __future__ import annotations

import dataclasses
import time
from typing import Any, ClassVar

from textual import events
from textual.app import ComposeResult
from textual.binding import ActiveBinding, Binding, BindingType
from textual.containers import Container, Vertical
from textual.reactive import Reactive
from textual.widget import Widget
from textual.widgets import Static

from acrf_engine.run.folder import RunFolder
from acrf_tui.alerts import Alerts
from acrf_tui.charts.lines import LineView
from acrf_tui.charts.view import ChartView
from acrf_tui.copying import next_command
from acrf_tui.feed import Answered, Batch, Feed, FeedTrouble, HistoryRead, RunSource, StepsRead, StreamEnded
from acrf_tui.panels.anchors import AnchorsPanel
from acrf_tui.panels.gpu import GpuPanel
from acrf_tui.panels.header import Header, banner_lines
from acrf_tui.panels.journal import JournalPanel
from acrf_tui.panels.keys import KeysLine
from acrf_tui.panels.loss import LossPanel
from acrf_tui.panels.panel import Panel
from acrf_tui.panels.progress import ProgressPanel
from acrf_tui.panels.rate import RatePanel
from acrf_tui.panels.weight import WeightPanel
from acrf_tui.screens.curtain import CurtainScreen
from acrf_tui.screens.dialogs import HelpDialog, KeyHelp, LeaveDialog, RateDialog
from acrf_tui.state import RunState, describe_ack

TICK_SECONDS = 0.25
SLOW_TICK_SECONDS = 1.0
SLOW_EVERY = {1: 1, 2: 3}
"""Ticks of the slow pace for a panel's usual ones; all others take five."""
STEERABLE: frozenset[str] = frozenset({"running", "paused"})
LEAVABLE: frozenset[str] = frozenset({"running", "paused", "caching", "starting"})


def command_binding(key: str, action: str, description: str, id: str, tooltip: str, *, show: bool = True) -> Binding:
    """A binding that a user can remap by its id."""
    return Binding(key, action, description, show=show, id=id, tooltip=tooltip)


class DashboardScreen(CurtainScreen[str]):
    """Shows a run and steers it. Dismissed with "detach", "stopped" or "closed"."""

    CSS_PATH = "../styles/dashboard.tcss"
    AUTO_FOCUS = "#loss"
    ALLOW_IN_MAXIMIZED_VIEW = "#top, #keys"
    ESCAPE_TO_MINIMIZE = False  # a crosshair or a filter goes first: `view.restore` comes after the panel's own keys
    HORIZONTAL_BREAKPOINTS = [  # noqa: RUF012 (an instance variable in Screen)
        (0, "-w-tiny"),
        (60, "-w-phone"),
        (76, "-w-narrow"),
        (110, "-w-normal"),
        (170, "-w-wide"),
    ]
    VERTICAL_BREAKPOINTS = [  # noqa: RUF012 (an instance variable in Screen)
        (0, "-h-tiny"),
        (20, "-h-short"),
        (30, "-h-middle"),
        (38, "-h-normal"),
        (46, "-h-tall"),
    ]
    focused: Reactive[Widget | None] = Reactive(None, repaint=False)  # Screen's own repaints all of it: 40 KB a tab
    BINDINGS: ClassVar[list[BindingType]] = [
        command_binding("space", "pause_or_resume", "Pause", "run.pause", "Pause or resume training; the model stays"),
        command_binding("c", "command('checkpoint')", "Save", "run.checkpoint", "Save a checkpoint at the next step"),
        command_binding("s", "command('preview')", "Preview", "run.preview", "Render preview pictures now"),
        command_binding("l", "learning_rate", "LR", "run.learning-rate", "Change the learning rate"),
        command_binding("t", "tweak", "Tweak", "run.tweak", "Change lambdas, gamma, jitter or the clip level"),
        command_binding("v", "vram", "Free VRAM", "run.vram", "While paused: give the VRAM back, or take it again"),
        command_binding("z", "zoom", "Zoom", "view.zoom", "Maximise the focused panel, or restore it"),
        command_binding("escape", "restore", "Restore", "view.restore", "Restore the maximised panel", show=False),
        command_binding("f", "freeze", "Freeze", "view.freeze", "Hold the view still; training goes on"),
        command_binding("slash", "filter", "Filter", "journal.filter", "Filter the journal", show=False),
        command_binding("w", "log", "Log", "view.log", "The worker's log: follow it, filter it", show=False),
        command_binding("q", "leave", "Leave", "app.leave", "Detach, or checkpoint and stop"),
        command_binding("question_mark", "help", "Help", "app.help", "Show the keys that work now"),
        command_binding("g", "log_scale", "Log", "loss.log", "Loss: logarithmic or linear scale", show=False),
        command_binding("plus,equals_sign", "zoom_loss(1)", "In", "loss.zoom-in", "Charts: fewer steps", show=False),
        command_binding("minus", "zoom_loss(-1)", "Out", "loss.zoom-out", "Charts: more steps", show=False),
        command_binding("B", "series('loss_balanced')", "Balanced", "loss.balanced", "Loss: balanced", show=False),
        command_binding("R", "series('loss')", "Raw", "loss.raw", "Loss: raw trace", show=False),
        command_binding("C", "series('loss_char')", "Char", "loss.char", "Loss: Charbonnier component", show=False),
        command_binding("O", "series('loss_cos')", "Cos", "loss.cos", "Loss: cosine component", show=False),
        command_binding("F", "series('loss_fft')", "FFT", "loss.fft", "Loss: FFT component", show=False),
        command_binding("V", "series('validation')", "Validation", "loss.validation", "Loss: validation", show=False),
        *(
            command_binding(
                str(n), f"panel({n})", f"Panel {n}", f"view.panel-{n}", f"Go to the {name} panel", show=False
            )
            for n, name in enumerate(("progress", "loss", "anchors", "GPU", "w(σ)", "LR", "journal"), start=1)
        ),
    ]

    def __init__(self, source: RunSource, slow: bool = False) -> None:
        super().__init__()
        self.source = source
        self.slow = slow
        self.run_state = RunState()
        view = ChartView()
        self.loss = LossPanel(view, id="loss")
        self.panels: list[Panel] = [
            ProgressPanel(id="progress"),
            self.loss,
            AnchorsPanel(id="anchors"),
            GpuPanel(id="gpu"),
            WeightPanel(id="weight"),
            RatePanel(view, id="rate"),
            JournalPanel(id="journal"),
        ]
        self.frozen = False
        self._read_only = source.read_only
        self._header = Header(source.name, self._read_only, id="header")
        self._feed = Feed(source, self)
        self._alerts = Alerts(source.name)
        self._ticks = 0
        self._painted: dict[int, int] = {}
        self._leaving = False
        self._shown_for: tuple[object, ...] = ()

    # ------------------------------------------------------------------ building

    def compose(self) -> ComposeResult:
        progress, loss, anchors, gpu, weight, rate, journal = self.panels
        with Vertical(id="top"):
            yield self._header
            yield LineView(id="banner")
        with Container(id="body"):
            with Vertical(id="main"):
                yield progress
                yield loss
                yield journal
            with Container(id="side"):
                with Vertical(id="side-first"):
                    yield gpu
                    yield anchors
                with Vertical(id="side-second"):
                    yield weight
                    yield rate
        yield Static("This terminal is too small: 60x20 is the least. The training is not affected.", id="too-small")
        yield KeysLine(id="keys")

    def on_mount(self) -> None:
        self.query_one("#banner").display = False
        self.set_interval(SLOW_TICK_SECONDS if self.slow else TICK_SECONDS, self._tick)
        self._feed.start()
        self.call_after_refresh(self._paint_all)

    def on_unmount(self) -> None:
        self._feed.stop()

    def on_resize(self, event: events.Resize) -> None:
        self.call_after_refresh(self._paint_all)

    def on_panel_resized(self, message: Panel.Resized) -> None:
        """A breakpoint, a zoom or the banner changed a panel's size."""
        self._paint_panel(self.panels.index(message.panel), message.panel, time.time(), force=True)

    # ------------------------------------------------------------------ what the feed says

    def on_history_read(self, message: HistoryRead) -> None:
        """Start from what is stored; for an ended run that is all there is."""
        self.run_state.load(message.history)
        status = message.status
        self._alerts.begin(status)
        self.run_state.total_steps = self.run_state.total_steps or int(status.get("total_steps") or 0)
        self._feed.taken()
        self._after_events()
        self._paint_all()
        self.raise_curtain()

    def _ask_for_detail(self) -> None:
        """A view into the condensed part of a long run wants its steps in full."""
        wanted = self.run_state.detail.wanted(*self.loss.chart.view.window())
        if wanted is not None:
            self._feed.read_steps(*wanted)

    def on_steps_read(self, message: StepsRead) -> None:
        """The steps of a view are here."""
        if message.steps is None:
            text = f"older steps cannot be read: {message.error}; the charts show them condensed"
            self.run_state.note("warning", text, time.time(), self.run_state.step)
            return
        self.run_state.take_steps(message.first, message.last, message.steps)
        self._paint_all()

    def on_batch(self, message: Batch) -> None:
        """Reduce new events; panels see them at their next tick."""
        for event in message.events:
            self.run_state.apply(event)
        for alert in self._alerts.of(message.events):
            self.app.post_message(alert)
        if self.source.skew and not self._read_only:
            self._read_only = self._header.read_only = True
            self.run_state.note("warning", self.source.skew, time.time())
        self._feed.taken()
        self._after_events()

    def on_stream_ended(self, message: StreamEnded) -> None:
        """The supervisor is gone. A run that said its last word stays as it is."""
        status = message.status
        for alert in self._alerts.ended(status):
            self.app.post_message(alert)
        self.run_state.vanish(str(status.get("state", "interrupted")), str(status.get("error") or ""), time.time())
        self._after_events()
        self._paint_all()

    def on_feed_trouble(self, message: FeedTrouble) -> None:
        """Reading failed; it is tried again, and the user knows."""
        if message.text and not self._header.trouble:
            self.run_state.note("warning", f"no link to the run: {message.text}", time.time())
        self._header.trouble = message.text

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

    def _after_events(self) -> None:
        state = self.run_state
        shown_for = (state.state, state.waiting, state.parked, state.preview_refused, self._read_only)
        if shown_for == self._shown_for:
            return
        self._shown_for = shown_for
        if state.ended:
            self._read_only = True
            self._show_banner()
        self.refresh_bindings()

    def _show_banner(self) -> None:
        banner = self.query_one("#banner", LineView)
        lines = banner_lines(self.source.name, self.run_state, max(10, self.size.width - 4))
        banner.show(lines)
        banner.styles.height = len(lines)
        banner.set_classes([f"-{self.run_state.state}"])
        banner.display = True

    # ------------------------------------------------------------------ painting

    def _tick(self) -> None:
        self._ticks += 1
        if self.app.screen is not self and self.slow:
            return
        now = time.time()
        self._header.frozen = self.frozen
        if self.slow or self._ticks % 2 == 0:
            self._header.paint(self.run_state, now)
        self._ask_for_detail()
        if self.frozen:
            return
        for index, panel in enumerate(self.panels):
            every = SLOW_EVERY.get(panel.EVERY, 5) if self.slow else panel.EVERY
            if self._ticks % every == 0:
                self._paint_panel(index, panel, now)

    def _paint_panel(self, index: int, panel: Panel, now: float, force: bool = False) -> None:
        clock_runs = isinstance(panel, ProgressPanel) and not self.run_state.ended
        if not force and not clock_runs and not panel.behind and self._painted.get(index) == self.run_state.revision:
            return
        if panel.size.width and panel.is_on_screen:
            self._painted[index] = self.run_state.revision
            panel.paint(self.run_state, now)

    def _paint_all(self) -> None:
        if not self.is_mounted:
            return
        now = time.time()
        self._header.paint(self.run_state, now)
        if self.run_state.ended:
            self._show_banner()
        for index, panel in enumerate(self.panels):
            self._paint_panel(index, panel, now, force=True)

    # ------------------------------------------------------------------ keys

    @property
    def active_bindings(self) -> dict[str, ActiveBinding]:
        """The live bindings, named by what they do now."""
        found = super().active_bindings
        if self.run_state.state != "paused" and not self.run_state.waiting:
            return found
        names = {"pause_or_resume": "Start now" if self.run_state.waiting else "Resume"}
        if self.run_state.parked:
            names["vram"] = "Reload"
        return {
            key: one._replace(binding=dataclasses.replace(one.binding, description=names[one.binding.action]))
            if one.binding.action in names
            else one
            for key, one in found.items()
        }

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

    def action_zoom(self) -> None:
        """Maximise the focused panel, or restore it."""
        if self.maximized is not None:
            self.minimize()
        else:
            panel = self._focused_panel()
            if panel is not None:
                self.maximize(panel, container=False)
        self.call_after_refresh(self._paint_all)

    def action_restore(self) -> None:
        """Restore the maximised panel."""
        if self.maximized is not None:
            self.action_zoom()

    def action_freeze(self) -> None:
        """Hold the panels still, or let them go on."""
        self.frozen = self._header.frozen = not self.frozen
        self._paint_all() if not self.frozen else self._header.paint(self.run_state, time.time())

    def action_panel(self, number: int) -> None:
        """Focus a panel; in the maximised view that panel takes its place."""
        panel = self.panels[number - 1]
        if self.maximized is not None:
            self.minimize()
            self.maximize(panel, container=False)
            self.call_after_refresh(self._paint_all)
            panel.focus()
        elif panel.is_on_screen:
            panel.focus()
        else:
            self.maximize(panel, container=False)
            self.call_after_refresh(self._paint_all)
            self.call_after_refresh(panel.focus)

    def action_filter(self) -> None:
        """Go to the journal and ask what to look for in it."""
        journal = self.query_one(JournalPanel)
        self.action_panel(self.panels.index(journal) + 1)
        self.call_after_refresh(journal.ask_filter)

    def action_log(self) -> None:
        """Show what the worker and its libraries say."""
        from acrf_tui.screens.log import LogScreen

        self.app.push_screen(LogScreen(self.source.name, RunFolder(self.source.folder).log))

    def action_log_scale(self) -> None:
        """Switch the loss chart between logarithmic and linear."""
        self.loss.toggle_log()

    def action_zoom_loss(self, levels: int) -> None:
        """Show fewer or more steps in the charts."""
        self.loss.zoom(levels)

    def action_series(self, key: str) -> None:
        """Show or hide one series of the loss chart."""
        self.loss.toggle(key)
        self.loss.paint(self.run_state, time.time())

    def action_help(self) -> None:
        """List the keys that work now."""
        keys: dict[str, KeyHelp] = {}
        for one in self.active_bindings.values():
            name = one.binding.id or (one.binding.action if one.binding.show else "")
            if name and name not in keys:
                key = self.app.get_key_display(one.binding)
                keys[name] = KeyHelp(key, one.binding.description, one.tooltip, one.enabled)
        notes = [panel.HELP for panel in self.panels if panel.HELP]
        self.app.push_screen(HelpDialog([*keys.values(), KeyHelp("tab", "", "Next panel", True)], notes))

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

    def text_to_copy(self) -> str:
        """In the journal its lowest entry in view, else the command that goes on from here."""
        panel = self._focused_panel()
        if isinstance(panel, JournalPanel) and panel.lowest is not None:
            return panel.lowest.text
        return next_command(self.source.folder, self.run_state.state)

    def _focused_panel(self) -> Panel | None:
        node: Widget | None = self.focused
        while node is not None and not isinstance(node, Panel):
            node = node.parent if isinstance(node.parent, Widget) else None
        return node

    def _close(self, result: str) -> None:
        self._feed.stop()
        if self.is_current:
            self.dismiss(result)
        elif self in self.app.screen_stack:  # a dialog is still above
            while self.app.screen is not self:
                self.app.pop_screen()
            self.call_after_refresh(self.dismiss, result)
