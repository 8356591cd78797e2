"""The GPU panel maximised: a block for every device, with a chart over time of everything that it reports."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from acrf_engine.protocol import Device, Hardware
from acrf_tui.charts import raster
from acrf_tui.charts.lines import Line, fit, line, spread, width_of
from acrf_tui.charts.scale import Scale
from acrf_tui.charts.symbols import BRAILLE, SymbolSet
from acrf_tui.panels import gpu_lines, numbers
from acrf_tui.panels.gpu_lines import BRIMMING, FULL, HOT, NOT_REPORTED, WARM, past

SPANS = (75.0, 150.0, 300.0, 600.0)
"""Seconds that a chart covers; it doubles as they fill, so that a new sample moves nothing that is drawn."""
SHIFT = 150.0
"""Seconds by which a chart that covers the longest span moves on."""
SILENCE = 5.0
"""Seconds without a sample after which the line is broken."""
LEAST_WIDTH, LEAST_PLOT = 19, 2
"""Cells and rows below which a chart says nothing."""
GOOD_PLOT = 6
"""Rows that are enough: more columns would only make the charts narrower."""


@dataclass(frozen=True, slots=True)
class Chart:
    """One reading over time. `warn` and `bad`: values from which it takes those colours; `level`: a dotted line."""

    label: str
    short: str
    text: str
    role: str
    values: Sequence[float]
    low: float
    high: float
    unit: str
    warn: float = math.inf
    bad: float = math.inf
    level: float = math.nan


@dataclass(frozen=True, slots=True)
class Grid:
    """`columns` charts beside each other, `rows` below each other in a block; `plot`: rows of cells of each."""

    columns: int
    rows: int
    plot: int


def time_window(origin: float, last: float) -> tuple[float, float]:
    """The time that charts cover, in the unit of both (Unix seconds); `last` is always inside."""
    passed = max(0.0, last - origin)
    for span in SPANS:
        if passed <= span:
            return origin, origin + span
    end = origin + math.ceil(passed / SHIFT) * SHIFT
    return end - SPANS[-1], end


def grid_for(charts: int, blocks: int, width: int, height: int) -> Grid | None:
    """The grid of the widest charts that are tall enough, else of the tallest; None where not even a row fits."""
    if not charts or not blocks:
        return None
    each = (height - (blocks - 1)) // blocks if height >= 8 * blocks else height // blocks
    best: Grid | None = None
    for columns in (1, 2, 3, 6):
        rows = math.ceil(charts / columns)
        plot = (each - 1) // rows - 1
        if columns > charts or (columns > 1 and width // columns < LEAST_WIDTH) or plot < LEAST_PLOT:
            continue
        if best is None or plot > best.plot:
            best = Grid(columns, rows, plot)
        if plot >= GOOD_PLOT:
            break
    return best


def device_charts(device: Device, samples: list[Hardware], peak: int | None) -> list[Chart]:
    """Everything that a device reports, over time."""

    def history(read: Callable[[Device], float | None]) -> list[float]:
        return past(samples, device, read)

    powers = history(lambda one: one.power)
    limit = device.power_limit or max([1.0, *(value for value in powers if value == value)])
    total = (device.memory_total or 0) / numbers.GIB
    used = numbers.gib(device.memory_used) if device.memory_used is not None else ""
    vram = f"{used} / {numbers.gib(device.memory_total)} GiB" if used and device.memory_total else NOT_REPORTED
    share = (device.memory_used or 0) / device.memory_total if device.memory_total else 0.0
    memory_role = {"meter-fill": "text"}.get(gpu_lines.memory_role(share), gpu_lines.memory_role(share))
    return [
        Chart(
            "VRAM",
            "VRAM",
            vram,
            memory_role,
            [value / numbers.GIB for value in history(lambda one: one.memory_used)],
            0.0,
            total or 1.0,
            "torch peak" if peak else "",
            FULL * total or math.inf,
            BRIMMING * total or math.inf,
            peak / numbers.GIB if peak else math.nan,
        ),
        Chart(
            "temperature",
            "temp",
            gpu_lines.degrees(device),
            gpu_lines.heat_role(device.temperature),
            history(lambda one: one.temperature),
            20.0,
            100.0,
            "°C",
            WARM,
            HOT,
        ),
        Chart(
            "utilisation",
            "util",
            gpu_lines.percent(device),
            "text",
            history(lambda one: one.utilisation),
            0.0,
            100.0,
            "%",
        ),
        Chart("power", "power", gpu_lines.watts(device), "text", powers, 0.0, limit, "W"),
        Chart(
            "SM clock",
            "SM",
            gpu_lines.clock(device.clock_sm, device.clock_sm_max),
            "text",
            history(lambda one: one.clock_sm),
            0.0,
            float(device.clock_sm_max or device.clock_sm or 1),
            "MHz",
        ),
        Chart(
            "memory clock",
            "mem",
            gpu_lines.clock(device.clock_memory, device.clock_memory_max),
            "text",
            history(lambda one: one.clock_memory),
            0.0,
            float(device.clock_memory_max or device.clock_memory or 1),
            "MHz",
        ),
    ]


def machine_charts(sample: Hardware, samples: list[Hardware]) -> list[Chart]:
    """What there is without a GPU: the machine's memory and the worker's."""

    def gib(read: Callable[[Hardware], int | None]) -> list[float]:
        return [math.nan if (value := read(one)) is None else value / numbers.GIB for one in samples]

    total = (sample.ram_total or 0) / numbers.GIB or 1.0
    worker = gib(lambda one: one.worker_rss)
    top = max([0.1, *(value for value in worker if value == value)]) * 1.25
    ram_text = (
        f"{numbers.gib(sample.ram_used)} / {numbers.gib(sample.ram_total)} GiB"
        if sample.ram_used is not None and sample.ram_total
        else NOT_REPORTED
    )
    rss_text = f"{numbers.gib(sample.worker_rss)} GiB" if sample.worker_rss is not None else NOT_REPORTED
    return [
        Chart(
            "RAM",
            "RAM",
            ram_text,
            "text",
            gib(lambda one: one.ram_used),
            0.0,
            total,
            "",
            FULL * total,
            BRIMMING * total,
        ),
        Chart("worker", "worker", rss_text, "text", worker, 0.0, top, ""),
    ]


def title_line(chart: Chart, width: int) -> Line:
    """Label and value; at the right the range of the chart, where there is room."""
    role = "muted" if chart.text == NOT_REPORTED else chart.role
    fits = len(chart.label) + 1 + len(chart.text) <= width
    text = chart.text if fits or " / " not in chart.text else f"{chart.text.split()[0]} {chart.text.split()[-1]}"
    left = line((f"{chart.label if fits else chart.short} ", "muted"), (text, role))
    if chart.unit == "torch peak":
        right = line(("┈ ", "meter-mark"), (f"torch peak {chart.level:.1f} GiB", "muted"))
    else:
        right = line((f"{chart.low:.0f} to {chart.high:.0f} {chart.unit}" if chart.unit else "", "muted"))
    if width_of(left) + width_of(right) + 2 > width or chart.text == NOT_REPORTED:
        return left
    return spread(left, right, width)


def plot_lines(
    chart: Chart, times: Sequence[float], window: tuple[float, float], width: int, height: int, symbols: SymbolSet
) -> list[Line]:
    """The chart itself, coloured by its thresholds; the tick at its left is its highest value."""
    tick, plain = symbols.axis
    width -= len(plain)
    count = width * symbols.dots_x
    scale = Scale(chart.low, chart.high, height * symbols.dots_y)
    traces, roles = [], []
    if math.isfinite(chart.level) and chart.low <= chart.level <= chart.high:
        traces.append(raster.level(count, scale.row(chart.level), dash=4))
        roles.append("meter-mark")
    for low, high, role in (
        (-math.inf, chart.warn, "spark"),
        (chart.warn, chart.bad, "warn"),
        (chart.bad, math.inf, "bad"),
    ):
        if low < high:
            columns = raster.Columns(count, *window)
            before = math.nan
            for at, value in zip(times, chart.values, strict=True):
                if at < window[0]:
                    continue
                if at - before > SILENCE:
                    columns.append(at, math.nan)
                columns.append(at, value if low <= value < high else math.nan)
                before = at
            traces.append(raster.trace(columns, scale.row, scale.rows))
            roles.append(role)
    drawn = raster.compose(traces, width, height, symbols)
    return [((plain if y else tick, "axis"), *spans_of(row, roles)) for y, row in enumerate(drawn)]


def spans_of(row: raster.Row, roles: Sequence[str]) -> Line:
    """A row of a chart as runs of one colour."""
    spans: list[tuple[str, str]] = []
    begin = 0
    for at in range(1, len(row.text) + 1):
        if at == len(row.text) or row.owners[at] != row.owners[begin]:
            owner = row.owners[begin]
            spans.append((row.text[begin:at], "text" if owner == raster.EMPTY else roles[owner]))
            begin = at
    return tuple(spans)


def head_lines(device: Device, grid: Grid, width: int, peak: float) -> list[Line]:
    """The first line of a block, a piece for each column: number and name, what slows the card, torch's peak (GiB)."""
    number = line((f"{gpu_lines.number(device)} ", "muted"), (gpu_lines.short_name(device.name), "bold text"))
    if device.slowed:
        text = gpu_lines.slowed_text(device) if width >= 24 else ", ".join(device.slowed)
        speed = line((fit(text, width), gpu_lines.slowed_role(device.slowed)))
    else:
        speed = line(("nothing slows it" if device.slowed is not None else f"speed {NOT_REPORTED}", "muted"))
    if grid.columns == 1:
        return [spread(number, speed, width)]
    text = f"torch peak {peak:.1f} GiB"
    text = text if len(text) <= width else text.removeprefix("torch ")
    most = line((text, "muted")) if math.isfinite(peak) else ()
    return [number, speed, most, *([()] * grid.columns)][: grid.columns]


def columns_of_blocks(
    blocks: Sequence[tuple[Device | None, list[Chart]]],
    grid: Grid,
    samples: list[Hardware],
    window: tuple[float, float],
    width: int,
    height: int,
    symbols: SymbolSet = BRAILLE,
) -> list[list[Line]]:
    """The lines of every column of charts, `width` cells each; blocks stand below each other with a line between."""
    times = array("d", (sample.time for sample in samples))
    columns: list[list[Line]] = [[] for _ in range(grid.columns)]
    each = 1 + grid.rows * (grid.plot + 1)
    apart = (each + 1) * len(blocks) - 1 <= height
    for at, (device, charts) in enumerate(blocks):
        heads = head_lines(device, grid, width, charts[0].level) if device is not None else [()] * grid.columns
        for column, lines in enumerate(columns):
            if at and apart:
                lines.append(())
            lines.append(heads[column])
            for chart in charts[column :: grid.columns]:
                lines.append(title_line(chart, width))
                lines += plot_lines(chart, times, window, width, grid.plot, symbols)
            missing = grid.rows - len(charts[column :: grid.columns])
            lines += [()] * (missing * (grid.plot + 1))
    return columns
