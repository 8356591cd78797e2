"""The dashboard of one run: it wires feed, state, panels and commands, and holds nothing else."""

from __future__ import annotations

import time
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Container, Vertical
from textual.reactive import Reactive
from textual.widget import Widget
from textual.widgets import Static

from acrf_engine.run.folder import RunFolder
from acrf_tui.alerts import Alerts
from acrf_tui.charts.lines import LineView
from acrf_tui.charts.view import ChartView
from acrf_tui.copying import next_command
from acrf_tui.feed import Batch, FeedTrouble, HistoryRead, RunSource, StepsRead, StreamEnded
from acrf_tui.panels.anchors import AnchorsPanel
from acrf_tui.panels.gpu import GpuPanel
from acrf_tui.panels.header import banner_lines
from acrf_tui.panels.journal import JournalPanel
from acrf_tui.panels.keys import Key, KeysLine
from acrf_tui.panels.loss import LossPanel
from acrf_tui.panels.overview import OverviewPanel
from acrf_tui.panels.panel import Panel
from acrf_tui.panels.progress import ProgressPanel
from acrf_tui.panels.rate import RatePanel
from acrf_tui.panels.weight import WeightPanel
from acrf_tui.screens.arranged import LEAST_HEIGHT, LEAST_WIDTH, TALL, WIDE, ArrangedScreen
from acrf_tui.screens.curtain import CurtainScreen
from acrf_tui.screens.dashboard_keys import BINDINGS
from acrf_tui.screens.steering import SteeringScreen

TICK_SECONDS = 0.25
SLOW_TICK_SECONDS = 1.0
SLOW_EVERY = {1: 1, 2: 3}
"""Ticks of the slow pace for a panel's usual ones; all others take five."""


class DashboardScreen(CurtainScreen[str], SteeringScreen, ArrangedScreen):
    """Shows a run and steers it. Dismissed with "detach", "stopped" or "closed"."""

    CSS_PATH = "../styles/dashboard.tcss"
    AUTO_FOCUS = "#loss"
    ALLOW_IN_MAXIMIZED_VIEW = "#top, #keys"
    ESCAPE_TO_MINIMIZE = False  # a crosshair or a filter goes first: `view.restore` comes after the panel's own keys
    HORIZONTAL_BREAKPOINTS = [  # noqa: RUF012 (an instance variable in Screen)
        (0, "-w-tiny"),
        (LEAST_WIDTH, "-w-phone"),
        (76, "-w-narrow"),
        (110, "-w-normal"),
        (WIDE, "-w-wide"),
    ]
    VERTICAL_BREAKPOINTS = [  # noqa: RUF012 (an instance variable in Screen)
        (0, "-h-tiny"),
        (LEAST_HEIGHT, "-h-short"),
        (30, "-h-middle"),
        (38, "-h-normal"),
        (TALL, "-h-tall"),
    ]
    focused: Reactive[Widget | None] = Reactive(None, repaint=False)  # Screen's own repaints all of it: 40 KB a tab
    BINDINGS: ClassVar[list[BindingType]] = BINDINGS

    def __init__(self, source: RunSource, slow: bool = False) -> None:
        super().__init__(source)
        self.slow = slow
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
            OverviewPanel(source.folder, id="overview"),
        ]
        self.frozen = False
        self._alerts = Alerts(source.name)
        self._ticks = 0
        self._painted: dict[int, int] = {}
        self._shown_for: tuple[object, ...] = ()
        self._keys_first: list[Key] = []
        view.listen(self._view_changed)

    # ------------------------------------------------------------------ building

    def compose(self) -> ComposeResult:
        progress, loss, anchors, gpu, weight, rate, journal, overview = self.panels
        with Vertical(id="top"):
            yield self._header
            yield LineView(id="banner")
        with Container(id="body", classes=self.recall_arrangement()):
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
                    yield overview
        yield Static("This terminal is too small: 60x20 is the least. The training is not affected.", id="too-small")
        yield KeysLine(self.keys_first, id="keys")

    def on_mount(self) -> None:
        self.set_interval(SLOW_TICK_SECONDS if self.slow else TICK_SECONDS, self._tick)
        self._feed.start()
        self.call_after_refresh(self._settle)

    def on_unmount(self) -> None:
        self._feed.stop()

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
        self._header.paint(self.run_state, now)  # at every tick: its clock is the one of the progress panel
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
        self._painted.pop(index, None)  # what has no place now is painted at the first tick when it has one
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

    def keys_first(self) -> list[Key]:
        """What the keys line begins with: the focused panel knows."""
        panel = self.focused_panel()
        self._keys_first = panel.keys_first() if panel is not None else []
        return self._keys_first

    def names_now(self) -> dict[str, str]:
        """Zoom and freeze say how they end."""
        names = super().names_now()
        if self.maximized is not None:
            names["zoom"] = "Restore"
        if self.frozen:
            names["freeze"] = "Unfreeze"
        return names

    def _view_changed(self) -> None:
        panel = self.focused_panel()
        if panel is not None and panel.keys_first() != self._keys_first:
            self.refresh_bindings()

    def action_freeze(self) -> None:
        """Hold the panels still, or let them go on."""
        self.frozen = self._header.frozen = not self.frozen
        self.refresh_bindings()
        self._paint_all() if not self.frozen else self._header.paint(self.run_state, time.time())

    def action_filter(self) -> None:
        """Go to the journal and ask what to look for in it."""
        journal = self.query_one(JournalPanel)
        self.action_panel(self.panels.index(journal) + 1)
        self.call_after_refresh(journal.ask_filter)

    def action_log(self) -> None:
        """Show what the worker and its libraries say."""
        from acrf_tui.screens.log import LogScreen

        self.app.push_screen(LogScreen(self.source.name, RunFolder(self.source.folder).log))

    def text_to_copy(self) -> str:
        """In the journal its lowest entry in view, else the command that goes on from here."""
        panel = self.focused_panel()
        if isinstance(panel, JournalPanel) and panel.lowest is not None:
            return panel.lowest.text
        return next_command(self.source.folder, self.run_state.state)

    def help_notes(self) -> list[str]:
        """What the panels have to explain."""
        return [panel.HELP for panel in self.panels if panel.HELP]

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
