"""The half of the dashboard that moves panels: focus, maximise, hide, bring back, and remember it."""

from __future__ import annotations

from textual import events
from textual.screen import Screen
from textual.widget import Widget

from acrf_tui.panels.panel import Panel
from acrf_tui.screens.arrangement import Arrangement, from_memory, to_memory

MAIN = frozenset({"progress", "loss", "journal"})
SIDE = frozenset({"gpu", "anchors", "weight", "rate", "overview"})
LEAST_WIDTH, LEAST_HEIGHT = 60, 20
WIDE, TALL = 170, 46
"""Cells from which the overview has a place of its own."""
MEMORY = "panels"
"""The arrangement's key in the app's memory."""


class ArrangedScreen(Screen[str]):
    """A screen of numbered panels inside `#body`, which has a class `-no-ID` for every hidden one."""

    panels: list[Panel]
    arrangement: Arrangement
    _has_no_place: bool = False
    """A panel is maximised because nothing else could be shown."""

    @property
    def panel_ids(self) -> list[str]:
        """The ids of all panels, in the order of their numbers."""
        return [panel.id or "" for panel in self.panels]

    def _paint_all(self) -> None:
        """Paint every panel that has a place on the screen."""
        raise NotImplementedError

    def recall_arrangement(self) -> str:
        """Take the arrangement of the last time; returns the classes of `#body`."""
        from acrf_tui.memory import remembered

        self.arrangement = from_memory(self.panel_ids, remembered().get(MEMORY))
        self._mark_hidden()
        return " ".join(name for name, on in self._body_classes().items() if on)

    def _body_classes(self) -> dict[str, bool]:
        shown = set(self.arrangement.shown)
        found = {f"-no-{name}": name not in shown for name in self.arrangement.panels}
        wide = self.app.size.width >= WIDE and self.app.size.height >= TALL
        side = SIDE if wide else SIDE - {"overview"}  # which has a place of its own only there
        return {**found, "-no-main": not shown & MAIN, "-no-side": not shown & side}

    def take_arrangement(self, arrangement: Arrangement) -> None:
        """Show and hide panels, and remember it."""
        from acrf_tui.memory import remember

        if arrangement == self.arrangement:
            return
        self.arrangement = arrangement
        remember(**{MEMORY: to_memory(arrangement)})
        self._mark_hidden()
        self._arrange_body()
        self.call_after_refresh(self._settle)

    def _arrange_body(self) -> None:
        body = self.query_one("#body")
        for name, on in self._body_classes().items():
            body.set_class(on, name)

    @property
    def is_too_small(self) -> bool:
        """Whether the terminal shows nothing but that it is too small."""
        return self.app.size.width < LEAST_WIDTH or self.app.size.height < LEAST_HEIGHT

    def on_resize(self, event: events.Resize) -> None:
        if self.maximized is not None and (self.is_too_small or self._has_no_place):
            self.minimize()
        self._has_no_place = False
        self._arrange_body()
        self.call_after_refresh(self._settle)

    def _mark_hidden(self) -> None:
        for panel in self.panels:
            panel.say_hidden(panel.id in self.arrangement.hidden)

    def _settle(self) -> None:
        """After a new arrangement or size: something is seen and has the focus, and all is painted."""
        self.on_panel_vanished()
        self._paint_all()

    def on_panel_vanished(self) -> None:
        """Something is seen and has the focus, whatever is hidden or has no place at this size."""
        if self.is_too_small:
            return
        if self.maximized is None and not any(panel.is_on_screen for panel in self.panels):
            self._has_no_place = True
            self.maximize(self.query_one(f"#{self.arrangement.shown[0]}", Panel), container=False)
            self.call_after_refresh(self._settle)
            return
        panel = self.focused_panel()
        if panel is None or not panel.is_on_screen:
            self.focus_something()

    def focus_something(self) -> None:
        """Focus the first panel that can be seen, the loss before all others."""
        seen = [panel for panel in self.panels if panel.is_on_screen and panel.id not in self.arrangement.hidden]
        seen.sort(key=lambda panel: panel.id != "loss")
        if seen:
            self.set_focus(seen[0], scroll_visible=False)

    def focused_panel(self) -> Panel | None:
        """The panel that has the focus, or that holds what has it."""
        node: Widget | None = self.focused
        while node is not None and not isinstance(node, Panel):
            node = node.parent if isinstance(node.parent, Widget) else None
        return node

    def action_zoom(self) -> None:
        """Maximise the focused panel, or restore it."""
        self.refresh_bindings()
        if self.maximized is not None:
            self.minimize()
            self.call_after_refresh(self._settle)
            return
        panel = self.focused_panel()
        if panel is not None:
            self.maximize(panel, container=False)
        self.call_after_refresh(self._paint_all)

    def action_restore(self) -> None:
        """Restore the maximised panel."""
        if self.maximized is not None:
            self.action_zoom()

    def action_panel(self, number: int) -> None:
        """Focus a panel; it is maximised where it is hidden or has no room, and in the maximised view."""
        panel = self.panels[number - 1]
        if self.maximized is None and panel.is_on_screen:
            self.set_focus(panel)  # at once: the next key may be for this panel
            return
        if self.maximized is not None:
            self.minimize()
        self.maximize(panel, container=False)
        self.call_after_refresh(self._paint_all)
        self.call_after_refresh(panel.focus)

    def action_hide(self) -> None:
        """Hide the focused panel, or bring back one that is hidden and maximised."""
        panel = self.focused_panel()
        if panel is None or panel.id is None:
            self.app.bell()
            return
        if not self.arrangement.may_hide(panel.id) and panel.id not in self.arrangement.hidden:
            self.notify("the last panel stays (p brings others back)", title=panel.TITLE, severity="warning")
            return
        arrangement = self.arrangement.toggled(panel.id)
        if panel.id in arrangement.hidden:
            self.notify(f"hidden: {panel.NUMBER} shows it, p brings it back", title=panel.TITLE, timeout=4)
        if self.maximized is not None:
            self.minimize()
        self.take_arrangement(arrangement)

    def action_panels(self) -> None:
        """Ask which panels are shown."""
        from acrf_tui.screens.panels_dialog import PanelRow, PanelsDialog

        rows = [
            PanelRow(panel.id or "", panel.NUMBER, panel.TITLE, has_room=self._has_room(panel)) for panel in self.panels
        ]

        def chosen(arrangement: Arrangement | None) -> None:
            if arrangement is not None:
                if self.maximized is not None:
                    self.minimize()
                self.take_arrangement(arrangement)

        self.app.push_screen(PanelsDialog(rows, self.arrangement), chosen)

    def _has_room(self, panel: Panel) -> bool:
        return self.maximized is not None or panel.id in self.arrangement.hidden or panel.is_on_screen
