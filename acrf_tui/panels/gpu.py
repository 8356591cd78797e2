"""GPU: every device in as many rows as there are; maximised, all it reports over time. Without one: the RAM."""

from __future__ import annotations

import math

from textual.app import ComposeResult
from textual.containers import Horizontal

from acrf_engine.protocol import Device, Hardware
from acrf_tui.charts.lines import Line, LineView, line, wrap
from acrf_tui.panels import numbers
from acrf_tui.panels.gpu_history import (
    SPANS,
    Chart,
    Grid,
    columns_of_blocks,
    device_charts,
    grid_for,
    machine_charts,
    time_window,
)
from acrf_tui.panels.gpu_lines import compact_lines, full_lines, machine_lines, single_line
from acrf_tui.panels.panel import Panel
from acrf_tui.state import RunState

COLUMNS = 6
GUTTER = 2


def of_rank_0(sample: Hardware) -> int:
    """Position of the card that the worker's own figures, torch's peak, are of."""
    return next((at for at, device in enumerate(sample.devices) if device.rank == 0), 0)


class GpuPanel(Panel):
    """One view of rows, and as many columns of charts as fit: each is a widget, so that only its end is resent."""

    TITLE = "GPU"
    NUMBER = 4
    EVERY = 4

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._origin = math.nan
        """When the charts begin: the first sample that was seen."""

    def compose(self) -> ComposeResult:
        yield LineView(id="gpu-lines")
        with Horizontal(id="gpu-charts"):
            for _ in range(COLUMNS):
                yield LineView()

    def paint(self, state: RunState, now: float) -> None:
        sample = state.hardware
        rows_view, charts_view = self.query_one("#gpu-lines", LineView), self.query_one("#gpu-charts")
        width, height = self.content_size
        grid = self._grid(sample, width, height)
        if charts_view.display is (grid is None):
            charts_view.display, rows_view.display = grid is not None, grid is None
        if sample is None:
            text = self._why_no_sample(state)
            rows_view.show([line((part, "muted")) for part in wrap(text, max(8, width))])
            return
        self.set_class(len(sample.devices) > 1, "-several")
        self.set_class(len(sample.devices) > 6, "-many")
        peak = state.memory.peak if state.memory else None
        samples = list(state.hardware_history)
        if grid is not None:
            self._paint_charts(sample, samples, peak, grid)
            return
        self._say_span("")
        rows_view.show(self._rows(sample, samples[-2 * max(1, width) :], peak, width, height))

    def _why_no_sample(self, state: RunState) -> str:
        if state.ended:
            return "no sample was taken before the run ended"
        return "the first sample comes within a second"

    def _grid(self, sample: Hardware | None, width: int, height: int) -> Grid | None:
        if sample is None or not self.has_class("-maximized"):
            return None
        if not sample.devices:
            return grid_for(2, 1, width, height - 1 - len(wrap(sample.note, max(8, width))))
        return grid_for(COLUMNS, len(sample.devices), width, height)

    def _rows(self, sample: Hardware, samples: list[Hardware], peak: int | None, width: int, height: int) -> list[Line]:
        if not sample.devices:
            return machine_lines(sample, samples, width, self.symbols)
        lines: list[Line] = []
        each = height // len(sample.devices)
        for position, device in enumerate(sample.devices):
            of_worker = peak if position == of_rank_0(sample) else None
            if each >= 6:
                rows = full_lines(device, samples, of_worker, width, 9 if each >= 9 else 6, self.symbols)
            elif each >= 2:
                rows = compact_lines(device, of_worker, width, self.symbols)
            else:
                rows = [single_line(device, width)]
            if position and (len(rows) + 1) * len(sample.devices) - 1 <= height:
                lines.append(())
            lines += rows
        return lines

    def _paint_charts(self, sample: Hardware, samples: list[Hardware], peak: int | None, grid: Grid) -> None:
        views = list(self.query_one("#gpu-charts").query(LineView))
        width, height = self.content_size
        for at, view in enumerate(views):
            view.display = at < grid.columns
        last = samples[-1].time
        if not self._origin <= last:
            self._origin = next(one.time for one in samples if one.time > last - SPANS[-1])
        window = time_window(self._origin, last)
        each = (width - GUTTER * grid.columns) // grid.columns
        if sample.devices:
            blocks: list[tuple[Device | None, list[Chart]]] = [
                (device, device_charts(device, samples, peak if position == of_rank_0(sample) else None))
                for position, device in enumerate(sample.devices)
            ]
            above: list[Line] = []
        else:
            blocks = [(None, machine_charts(sample, samples))]
            above = [line((text, "muted")) for text in wrap(sample.note, max(8, each))]
        columns = columns_of_blocks(blocks, grid, samples, window, each, height, self.symbols)
        for at, (view, lines) in enumerate(zip(views, columns, strict=False)):
            view.show((above if at == 0 else [()] * len(above)) + lines)
        self._say_span(f"{numbers.clock(window[0])} to {numbers.clock(window[1])}")

    def _say_span(self, text: str) -> None:
        if self.border_subtitle != text:
            self.border_subtitle = text
