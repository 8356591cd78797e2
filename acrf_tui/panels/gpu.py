"""GPU: memory, temperature, utilisation and power of every device as NVML reports them, or the machine's RAM."""

from __future__ import annotations

import math
from collections.abc import Callable

from textual.app import ComposeResult

from acrf_engine.protocol import Device, Hardware
from acrf_tui.charts.lines import Line, LineView, fit, line, spread, wrap
from acrf_tui.charts.marks import meter, sparkline
from acrf_tui.charts.symbols import BRAILLE
from acrf_tui.panels import numbers
from acrf_tui.panels.panel import Panel
from acrf_tui.state import RunState

NOT_REPORTED = "not reported"
WARM, HOT = 80, 87
"""Degrees C at which cards begin to slow down, and at which they do."""
FULL, BRIMMING = 0.90, 0.97
LABEL = 7


def heat_role(temperature: int | None) -> str:
    """Colour of a temperature."""
    if temperature is None:
        return "muted"
    return "bold bad" if temperature >= HOT else "warn" if temperature >= WARM else "text"


def memory_role(share: float) -> str:
    """Colour of a memory meter."""
    return "bad" if share >= BRIMMING else "warn" if share >= FULL else "meter-fill"


def memory_line(label: str, used: int | None, total: int | None, peak: int | None, width: int) -> Line:
    """A meter in GiB with the peak as a mark."""
    if used is None or not total:
        text = NOT_REPORTED if used is None else f"{numbers.gib(used)} GiB used, total {NOT_REPORTED}"
        return line((f"{label:<{LABEL}}", "muted"), (text, "muted"))
    share = used / total
    text = f" {numbers.gib(used):>5} / {numbers.gib(total)} GiB"
    room = max(1, width - len(text) - LABEL)
    filled, _, whole = meter(share, room, peak / total if peak else None)
    cut = len(filled)
    spans = [(whole[:cut], memory_role(share)), (whole[cut:], "meter-track")]
    if peak:
        spans = [piece for span in spans for piece in _with_mark(*span)]
    return line((f"{label:<{LABEL}}", "muted"), *spans, (text, "text"))


def _with_mark(text: str, role: str) -> list[tuple[str, str]]:
    before, mark, after = text.partition(BRAILLE.mark)
    return [span for span in ((before, role), (mark, "meter-mark"), (after, role)) if span[0]]


def reading(label: str, history: list[float], low: float, high: float, value: str, role: str, width: int) -> Line:
    """A label, a sparkline of the last samples and the value at the right."""
    room = max(0, width - LABEL - 16)
    return line(
        (f"{label:<{LABEL}}", "muted"),
        (sparkline(history if value != NOT_REPORTED else [], room, low, high), "spark"),
        (f"{value:>16}", role),
    )


def degrees(device: Device) -> str:
    """Temperature with unit."""
    return f"{device.temperature} °C" if device.temperature is not None else NOT_REPORTED


def percent(device: Device) -> str:
    """Utilisation with unit."""
    return f"{device.utilisation} %" if device.utilisation is not None else NOT_REPORTED


def watts(device: Device) -> str:
    """Power with unit, and the limit where it is known."""
    if device.power is None:
        return NOT_REPORTED
    return f"{device.power:.0f} / {device.power_limit:.0f} W" if device.power_limit else f"{device.power:.0f} W"


def past(samples: list[Hardware], index: int, read: Callable[[Device], float | None]) -> list[float]:
    """One value of one device over the last samples, NaN where it was not reported."""
    values = []
    for sample in samples:
        found = next((device for device in sample.devices if device.index == index), None)
        value = read(found) if found is not None else None
        values.append(math.nan if value is None else float(value))
    return values


def full_lines(device: Device, samples: list[Hardware], peak: int | None, width: int) -> list[Line]:
    """Six rows for one device."""
    ceiling = device.power_limit or max([1.0, *(v for v in past(samples, device.index, lambda d: d.power) if v == v)])
    peak_text = f"torch peak {numbers.gib(peak)} GiB" if peak else f"torch peak {NOT_REPORTED}"
    return [
        spread(line((device.name, "bold text")), line((f" GPU {device.index}", "muted")), width),
        memory_line("VRAM", device.memory_used, device.memory_total, peak, width),
        line((" " * LABEL, "muted"), (fit(f"{'┃ ' if peak else ''}{peak_text}", max(1, width - LABEL)), "muted")),
        reading(
            "temp",
            past(samples, device.index, lambda d: d.temperature),
            30.0,
            95.0,
            degrees(device),
            heat_role(device.temperature),
            width,
        ),
        reading(
            "util",
            past(samples, device.index, lambda d: d.utilisation),
            0.0,
            100.0,
            percent(device),
            "text" if device.utilisation is not None else "muted",
            width,
        ),
        reading(
            "power",
            past(samples, device.index, lambda d: d.power),
            0.0,
            ceiling,
            watts(device),
            "text" if device.power is not None else "muted",
            width,
        ),
    ]


def compact_lines(device: Device, peak: int | None, width: int) -> list[Line]:
    """Two rows for one device."""
    values = [
        (degrees(device) if device.temperature is not None else "", heat_role(device.temperature)),
        (percent(device) if device.utilisation is not None else "", "text"),
        (f"{device.power:.0f} W" if device.power is not None else "", "text"),
    ]
    right: list[tuple[str, str]] = [(f"{text:>7}", role) for text, role in values if text]
    if not right:
        right = [(NOT_REPORTED, "muted")]
    return [
        spread(line((f"{device.index} ", "muted"), (short_name(device.name), "bold text")), tuple(right), width),
        memory_line("VRAM", device.memory_used, device.memory_total, peak, width),
    ]


def single_line(device: Device, width: int) -> Line:
    """One row for one device, where there are many."""
    used, total = device.memory_used, device.memory_total
    memory = f"{numbers.gib(used)}/{numbers.gib(total)} GiB" if used is not None and total else "–"
    heat = f"{device.temperature} °C" if device.temperature is not None else "–"
    load = f"{device.utilisation} %" if device.utilisation is not None else "–"
    role = memory_role(used / total) if used is not None and total else "muted"
    return spread(
        line((f"{device.index} ", "muted"), (short_name(device.name), "bold text")),
        line(
            (f"{memory:>14}", "text" if role == "meter-fill" else role),
            (f"{heat:>6}", heat_role(device.temperature)),
            (f"{load:>6}", "text"),
        ),
        width,
    )


def short_name(name: str) -> str:
    """A card's name without its maker, where room is short."""
    return name.removeprefix("NVIDIA ").removeprefix("GeForce ")


def machine_lines(sample: Hardware, samples: list[Hardware], width: int) -> list[Line]:
    """No GPU: why, and what the worker takes of the machine's memory."""
    lines = [line((text, "muted")) for text in wrap(sample.note or "no GPU is visible on this machine", width)]
    lines.append(())
    lines.append(memory_line("RAM", sample.ram_used, sample.ram_total, None, width))
    rss = sample.worker_rss
    values = [float(one.worker_rss) if one.worker_rss is not None else math.nan for one in samples]
    top = max((value for value in values if value == value), default=1.0)
    text = f"{numbers.gib(rss)} GiB" if rss is not None else NOT_REPORTED
    lines.append(reading("worker", values, 0.0, top, text, "text" if rss is not None else "muted", width))
    return lines


class GpuPanel(Panel):
    """Every device, in as many rows as there are."""

    TITLE = "GPU"
    NUMBER = 4
    EVERY = 4

    def compose(self) -> ComposeResult:
        yield LineView(id="gpu-lines")

    def paint(self, state: RunState, now: float) -> None:
        view = self.query_one("#gpu-lines", LineView)
        width, height = view.size
        sample = state.hardware
        if sample is None:
            view.show([line(("the first sample comes within a second", "muted"))])
            return
        self.set_class(len(sample.devices) > 1, "-several")
        self.set_class(len(sample.devices) > 6, "-many")
        samples = list(state.hardware_history)[-max(1, width) :]
        if not sample.devices:
            view.show(machine_lines(sample, samples, width))
            return
        lines: list[Line] = []
        peak = state.memory.peak if state.memory else None
        each = height // len(sample.devices)
        for position, device in enumerate(sample.devices):
            of_worker = peak if position == 0 else None  # torch reports the device of rank 0 only
            if each >= 6:
                rows = full_lines(device, samples, of_worker, width)
            elif each >= 2:
                rows = compact_lines(device, of_worker, width)
            else:
                rows = [single_line(device, width)]
            if position and (len(rows) + 1) * len(sample.devices) - 1 <= height:
                lines.append(())
            lines += rows
        view.show(lines)
