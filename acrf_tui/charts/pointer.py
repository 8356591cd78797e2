"""The mouse over a chart: hovering reads a step, a click holds the crosshair, dragging pans, the wheel zooms."""

from __future__ import annotations

from collections.abc import Sequence

from textual import events
from textual.widget import Widget

from acrf_tui.charts.axes import nearest, x_of
from acrf_tui.charts.plot import Plot
from acrf_tui.charts.view import ChartView

WHEEL_PAN = 1 / 8
"""Share of the window that a notch of the wheel moves it with shift."""


class PointedChart(Widget):
    """A widget with a `plot` whose x axis is the window of `view`; `steps` are the x values that can be read."""

    view: ChartView
    plot: Plot
    _grabbed: tuple[int, float] | None = None
    """Column of the pointer and begin of the window when the button went down."""
    _dragged: bool = False

    @property
    def steps(self) -> Sequence[float]:
        """The x values of the samples, rising."""
        raise NotImplementedError

    def x_at(self, screen_x: int) -> float:
        """The x under a column of the screen."""
        region = self.plot.region
        cell = min(region.width - 1, max(0, screen_x - region.x))
        return x_of(cell, *self.view.window(), region.width)

    def step_at(self, screen_x: int) -> float | None:
        """The sample nearest to a column of the screen."""
        index = nearest(self.steps, self.x_at(screen_x))
        return None if index is None else self.steps[index]

    def _over_plot(self, event: events.MouseEvent) -> bool:
        return self.plot.region.contains(int(event.screen_x), int(event.screen_y))

    def on_mouse_down(self, event: events.MouseDown) -> None:
        """Take hold of the steps under the pointer."""
        if event.button == 1 and self._over_plot(event) and len(self.steps):
            self._grabbed, self._dragged = (int(event.screen_x), self.view.window()[0]), False
            self.capture_mouse()

    def on_mouse_move(self, event: events.MouseMove) -> None:
        """Drag the window, or read the step under the pointer."""
        x = int(event.screen_x)
        if self._grabbed is not None:
            start, begin = self._grabbed
            if x != start or self._dragged:
                self._dragged = True
                left, right = self.view.window()
                self.view.show_from(begin - (x - start) / max(1, self.plot.region.width) * (right - left))
        elif self._over_plot(event) and len(self.steps) and not self.view.held:
            self.view.read(self.step_at(x), held=False)

    def on_mouse_up(self, event: events.MouseUp) -> None:
        """A press without a drag holds the crosshair where it is, or lets a held one go."""
        if self._grabbed is None:
            return
        dragged, self._grabbed = self._dragged, None
        self.release_mouse()
        if dragged:
            return
        step = self.step_at(int(event.screen_x))
        same = self.view.held and step == self.view.cross
        self.view.read(None if same else step)

    def on_leave(self, event: events.Leave) -> None:
        """A crosshair that nobody holds goes with the pointer."""
        if not self.view.held and self.view.cross is not None and not self.is_mouse_over:
            self.view.read(None)

    def _wheel(self, event: events.MouseEvent, towards: int) -> None:
        # A page that scrolls keeps its wheel.
        page = any(isinstance(node, Widget) and node.max_scroll_y > 0 for node in self.ancestors)
        if page or not len(self.steps):
            return
        event.stop()
        if event.shift:
            self.view.pan(-towards * WHEEL_PAN)
        else:
            self.view.zoom_by(towards, self.x_at(int(event.screen_x)))

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        """Zoom in at the pointer; with shift show earlier steps."""
        self._wheel(event, 1)

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        """Zoom out at the pointer; with shift show later steps."""
        self._wheel(event, -1)

    def on_mouse_scroll_left(self, event: events.MouseScrollLeft) -> None:
        """Show earlier steps."""
        event.stop()
        self.view.pan(-WHEEL_PAN)

    def on_mouse_scroll_right(self, event: events.MouseScrollRight) -> None:
        """Show later steps."""
        event.stop()
        self.view.pan(WHEEL_PAN)
