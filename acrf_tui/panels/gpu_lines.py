"""The GPU panel's rows: every device as NVML reports it in nine, six, two or one of them, or the machine's RAM."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from acrf_engine.protocol import Device, Hardware
from acrf_tui.charts.lines import Line, fit, line, spread, width_of, wrap
from acrf_tui.charts.marks import meter, sparkline
from acrf_tui.charts.symbols import BRAILLE, SymbolSet
from acrf_tui.panels import numbers

NOT_REPORTED = "not reported"
WARM, HOT = 80, 87
"""Degrees C at which cards begin to slow down, and at which they do."""
FULL, BRIMMING = 0.90, 0.97
LABEL, VALUE = 7, 17
GRAVE = frozenset({"too hot", "power supply brake", "hardware protection"})
"""Slowdowns that need someone to look after the machine; a power limit is what many cards always run at."""


def heat_role(temperature: int | None) -> str:
    """Colour of a temperature."""
    if temperature is None:
        return "muted"
    return "bold bad" if temperature >= HOT else "warn" if temperature >= WARM else "text"


def memory_role(share: float) -> str:
    """Colour of a memory meter."""
    return "bad" if share >= BRIMMING else "warn" if share >= FULL else "meter-fill"


def slowed_role(reasons: list[str]) -> str:
    """Colour of what slows a card."""
    return "bold bad" if GRAVE.intersection(reasons) else "warn"


def slowed_text(device: Device) -> str:
    """What holds the clocks down, in words; empty where nothing does, or where it is not reported."""
    return f"slowed: {', '.join(device.slowed)}" if device.slowed else ""


def memory_line(
    label: str, used: int | None, total: int | None, peak: int | None, width: int, symbols: SymbolSet = BRAILLE
) -> Line:
    """A meter in GiB with the peak as a mark."""
    if used is None or not total:
        text = NOT_REPORTED if used is None else f"{numbers.gib(used)} GiB used, total {NOT_REPORTED}"
        return line((f"{label:<{LABEL}}", "muted"), (text, "muted"))
    share = used / total
    text = f" {numbers.gib(used):>5} / {numbers.gib(total)} GiB"
    room = max(1, width - len(text) - LABEL)
    filled, _, whole = meter(share, room, peak / total if peak else None, symbols)
    cut = len(filled)
    spans = [(whole[:cut], memory_role(share)), (whole[cut:], "meter-track")]
    if peak:
        spans = [piece for span in spans for piece in _with_mark(*span, symbols.mark)]
    return line((f"{label:<{LABEL}}", "muted"), *spans, (text, "text"))


def _with_mark(text: str, role: str, sign: str) -> list[tuple[str, str]]:
    before, mark, after = text.partition(sign)
    return [span for span in ((before, role), (mark, "meter-mark"), (after, role)) if span[0]]


def reading(
    label: str,
    history: list[float],
    low: float,
    high: float,
    value: str,
    role: str,
    width: int,
    symbols: SymbolSet = BRAILLE,
) -> Line:
    """A label, a sparkline of the last samples and the value at the right."""
    room = max(0, width - LABEL - VALUE)
    return line(
        (f"{label:<{LABEL}}", "muted"),
        (sparkline(history if value != NOT_REPORTED else [], room, low, high, symbols), "spark"),
        (f"{value:>{VALUE}}", role),
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


def past(samples: list[Hardware], device: Device, read: Callable[[Device], float | None]) -> list[float]:
    """One value of one device over the last samples, NaN where it was not reported."""
    values = []
    for sample in samples:
        same = (one for one in sample.devices if (one.host, one.index) == (device.host, device.index))
        found = next(same, None)
        value = read(found) if found is not None else None
        values.append(math.nan if value is None else float(value))
    return values


def clock(now: int | None, highest: int | None) -> str:
    """A clock with unit, beside the highest that the card can do."""
    if now is None:
        return NOT_REPORTED
    return f"{now} / {highest} MHz" if highest else f"{now} MHz"


def full_lines(
    device: Device, samples: list[Hardware], peak: int | None, width: int, rows: int = 6, symbols: SymbolSet = BRAILLE
) -> list[Line]:
    """Six rows for one device, nine with the clocks and what slows it."""

    def row(
        label: str, value: str, read: Callable[[Device], float | None], low: float, high: float, role: str = "text"
    ) -> Line:
        role = role if value != NOT_REPORTED else "muted"
        return reading(label, past(samples, device, read), low, high, value, role, width, symbols)

    def of_power(one: Device) -> float | None:
        return one.power

    powers = [value for value in past(samples, device, of_power) if value == value]
    lines = [
        head_line(device, width, with_reason=rows < 9),
        memory_line("VRAM", device.memory_used, device.memory_total, peak, width, symbols),
        peak_line(device, peak, width, with_clock=rows < 9, symbols=symbols),
        row("temp", degrees(device), lambda d: d.temperature, 30.0, 95.0, heat_role(device.temperature)),
        row("util", percent(device), lambda d: d.utilisation, 0.0, 100.0),
        row("power", watts(device), of_power, 0.0, device.power_limit or max([1.0, *powers])),
    ]
    if rows >= 9:
        sm, memory = device.clock_sm_max or device.clock_sm or 1, device.clock_memory_max or device.clock_memory or 1
        lines += [
            row("SM", clock(device.clock_sm, device.clock_sm_max), lambda d: d.clock_sm, 0.0, sm),
            row("memory", clock(device.clock_memory, device.clock_memory_max), lambda d: d.clock_memory, 0.0, memory),
            speed_line(device, width),
        ]
    return lines


def head_line(device: Device, width: int, *, with_reason: bool) -> Line:
    """Name and number; what slows the card takes the number's place, since it is what one has to know."""
    reason = slowed_text(device) if with_reason else ""
    if not reason:
        return spread(line((device.name, "bold text")), line((f" {title(device)}", "muted")), width)
    right = line((f" {fit(reason, max(8, width - 12))}", slowed_role(device.slowed or [])))
    room = width - width_of(right) - 1
    name = next((text for text in (device.name, short_name(device.name)) if len(text) <= room), f"GPU {device.index}")
    return spread(line((name, "bold text")), right, width)


def peak_line(device: Device, peak: int | None, width: int, *, with_clock: bool, symbols: SymbolSet = BRAILLE) -> Line:
    """What torch held at its peak, and the SM clock where it has no row of its own."""
    text = f"torch peak {numbers.gib(peak)} GiB" if peak else f"torch peak {NOT_REPORTED}"
    left = line((" " * LABEL, "muted"), (f"{f'{symbols.mark} ' if peak else ''}{text}", "muted"))
    right = f" SM {device.clock_sm} MHz" if with_clock and device.clock_sm is not None else ""
    if right and width_of(left) + len(right) < width:
        return spread(left, line((right, "text")), width)
    return line((" " * LABEL, "muted"), (fit(left[1][0], max(1, width - LABEL)), "muted"))


def speed_line(device: Device, width: int) -> Line:
    """What holds the clocks down, in words, or that nothing does."""
    label = (f"{'slowed' if device.slowed else 'speed':<{LABEL}}", "muted")
    if device.slowed is None:
        return line(label, (NOT_REPORTED, "muted"))
    role = slowed_role(device.slowed) if device.slowed else "good"
    return line(label, (fit(", ".join(device.slowed) or "nothing slows it", max(1, width - LABEL)), role))


def name_spans(device: Device, room: int) -> Line:
    """Number and name, and what slows the card where it is grave; the name goes first where room is short."""
    name = short_name(device.name)
    reason = next((word for word in device.slowed or [] if word in GRAVE), "")
    if reason and len(name) + len(reason) + 4 > room:
        name = ""
    return line((f"{number(device)} ", "muted"), (name, "bold text"), (f"{' ' if name else ''}{reason}", "bold bad"))


def compact_lines(device: Device, peak: int | None, width: int, symbols: SymbolSet = BRAILLE) -> list[Line]:
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
        spread(name_spans(device, width - width_of(tuple(right))), tuple(right), width),
        memory_line("VRAM", device.memory_used, device.memory_total, peak, width, symbols),
    ]


def single_line(device: Device, width: int) -> Line:
    """One row for one device, where there are many."""
    used, total = device.memory_used, device.memory_total
    memory = f"{numbers.gib(used)}/{numbers.gib(total)} GiB" if used is not None and total else "–"
    heat = f"{device.temperature} °C" if device.temperature is not None else "–"
    load = f"{device.utilisation} %" if device.utilisation is not None else "–"
    role = memory_role(used / total) if used is not None and total else "muted"
    right = line(
        (f"{memory:>14}", "text" if role == "meter-fill" else role),
        (f"{heat:>6}", heat_role(device.temperature)),
        (f"{load:>6}", "text"),
    )
    return spread(name_spans(device, width - width_of(right)), right, width)


def title(device: Device) -> str:
    """The card's number, and the process of the run that has it, where there are several."""
    rank = f", rank {device.rank}" if device.rank is not None else ""
    return f"GPU {device.index}{rank}{f' on {device.host}' if device.host else ''}"


def number(device: Device) -> str:
    """As `title`, in little room: by rank where the run has several processes."""
    if device.rank is None:
        return f"{device.index}"
    return f"rank {device.rank} {device.host}" if device.host else f"rank {device.rank}"


def short_name(name: str) -> str:
    """A card's name without its maker, where room is short."""
    return name.removeprefix("NVIDIA ").removeprefix("GeForce ")


def machine_lines(sample: Hardware, samples: list[Hardware], width: int, symbols: SymbolSet = BRAILLE) -> list[Line]:
    """No GPU: why, and what the worker, or each of several, takes of the machine's memory."""
    lines = [line((text, "muted")) for text in wrap(sample.note or "no GPU is visible on this machine", width)]
    lines.append(())
    lines.append(memory_line("RAM", sample.ram_used, sample.ram_total, None, width, symbols))
    rss = sample.worker_rss
    values = [float(one.worker_rss) if one.worker_rss is not None else math.nan for one in samples]
    top = max((value for value in values if value == value), default=1.0)
    text = f"{numbers.gib(rss)} GiB" if rss is not None else NOT_REPORTED
    if sample.ranks:
        return lines + [line((f"rank {one['rank']:<3}", "muted"), (_rank_memory(one), "text")) for one in sample.ranks]
    lines.append(reading("worker", values, 0.0, top, text, "text" if rss is not None else "muted", width, symbols))
    return lines


def _rank_memory(rank: dict[str, Any]) -> str:
    memory = f"{numbers.gib(rank['rss'])} GiB" if rank.get("rss") is not None else NOT_REPORTED
    return f"{memory} on {rank['host']}"
