"""What the panels with charts over steps share: the keys for window and crosshair, and words for where they are."""

from __future__ import annotations

from typing import ClassVar

from textual.binding import Binding, BindingType

from acrf_tui.charts.line_chart import LineChart
from acrf_tui.charts.lines import Span
from acrf_tui.charts.symbols import symbols_of
from acrf_tui.charts.view import ChartView
from acrf_tui.panels.keys import Key
from acrf_tui.panels.panel import Panel
from acrf_tui.state import RunState

PAN = 0.25
"""Share of the window that a key moves it."""


def chart_key(key: str, action: str, description: str, id: str, tooltip: str) -> Binding:
    """A key of the charts; help and palette show it while a panel with charts has the focus."""
    return Binding(key, action, description, show=False, id=f"chart.{id}", tooltip=tooltip)


def where(view: ChartView, scale: str, follow_key: str, width: int) -> str:
    """Which steps are shown, for the panel's lower edge; as much of it as fits in `width`."""
    if view.pinned is None:
        return f"{scale}, zoom {2**view.zoom} ×" if view.zoom else scale
    begin, end = view.pinned
    span = f"steps {begin:,.0f}–{end:,.0f}"
    texts = (
        f"{scale}, {span} of {max(view.total, view.last):,.0f}, {follow_key} follows",
        f"{span} of {max(view.total, view.last):,.0f}, {follow_key} follows",
        f"{span}, {follow_key} follows",
    )
    return next((text for text in texts if len(text) <= width), texts[-1])


class ChartPanel(Panel):
    """A panel with charts that share a view. `chart` is the one whose cells the crosshair moves by."""

    BINDINGS: ClassVar[list[BindingType]] = [
        chart_key("x", "crosshair", "Crosshair", "crosshair", "Charts: read the values at one step, or stop reading"),
        chart_key("left", "move(-1)", "Earlier", "earlier", "Charts: earlier steps; the crosshair while it is on"),
        chart_key("right", "move(1)", "Later", "later", "Charts: later steps; the crosshair while it is on"),
        chart_key("shift+left", "move(-10)", "Earlier", "far-earlier", "Charts: a window back, the crosshair by ten"),
        chart_key("shift+right", "move(10)", "Later", "far-later", "Charts: a window on, the crosshair by ten"),
        chart_key("home", "first", "First steps", "first", "Charts: the first steps, as close as now"),
        chart_key("end", "follow", "Follow", "follow", "Charts: follow the newest steps"),
        chart_key("escape", "no_crosshair", "No crosshair", "no-crosshair", "Charts: take the crosshair away"),
    ]

    def __init__(self, view: ChartView | None = None, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.view = view if view is not None else ChartView()
        self.state: RunState | None = None
        """What was painted last."""

    @property
    def chart(self) -> LineChart:
        """The chart whose cells the crosshair moves by."""
        raise NotImplementedError

    def keys_first(self) -> list[Key]:
        """What moves and ends a crosshair or a window that stands; in the maximised view how to begin with them."""
        if self.view.cross is not None and self.view.held:
            return ["chart.earlier", "chart.later", "chart.no-crosshair"]
        if not self.view.follows:
            return ["chart.earlier", "chart.later", "chart.follow"]
        return ["chart.crosshair", "loss.zoom-in", "loss.zoom-out"] if self.has_class("-maximized") else []

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Escape belongs to the crosshair only while it is on."""
        return action != "no_crosshair" or self.view.cross is not None

    def action_crosshair(self) -> None:
        """Read the values at one step, or stop reading."""
        self.chart.toggle_cross()

    def action_no_crosshair(self) -> None:
        """Take the crosshair away."""
        self.view.read(None)

    def action_move(self, cells: int) -> None:
        """Move the crosshair, else the window."""
        if self.view.cross is not None:
            self.chart.move_cross(cells)
        else:
            self.view.pan(PAN * cells if abs(cells) == 1 else (1.0 if cells > 0 else -1.0))

    def action_first(self) -> None:
        """Show the first steps."""
        self.view.pan(-1e9)

    def action_follow(self) -> None:
        """Follow the newest steps."""
        self.view.follow()

    def follow_key(self) -> str:
        """The key that follows again, as it is bound now."""
        for one in self.screen.active_bindings.values():
            if one.binding.id == "chart.follow":
                return self.app.get_key_display(one.binding)
        return "end"

    def what_stands_there(self) -> list[Span]:
        """The markers under the crosshair: symbol and text."""
        found = self.chart.markers_at_cross()
        if not found:
            return []
        last = found[-1]
        more = f" (+{len(found) - 1})" if len(found) > 1 else ""
        return [(f"{symbols_of(self).marker(last.kind)} ", f"marker-{last.kind}"), (f"{last.text}{more}", "text")]
