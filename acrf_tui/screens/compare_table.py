"""What stands below the compared curves: a line for each run, and the keys in which their configs differ."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.cells import cell_len

from acrf_tui.charts.lines import Line, fit, line
from acrf_tui.panels import numbers
from acrf_tui.panels.header import STATES
from acrf_tui.screens.compare_chart import LETTERS, ROLES
from acrf_tui.screens.compare_runs import ABSENT, Compared

LONGEST_KEY = 34
LEAST_VALUE = 3


@dataclass(frozen=True, slots=True)
class Metric:
    """Something that is compared: a column of a curve. `smooth`: it jumps from step to step, a mean shows more."""

    key: str
    name: str
    short: str
    smooth: bool = True

    def text(self, value: float) -> str:
        """A value of it, for people."""
        return numbers.rate(value) if self.key == "lr" else numbers.loss(value)


METRICS = (
    Metric("loss_balanced", "anchor-balanced loss", "balanced", smooth=False),
    Metric("loss", "weighted loss, as minimised", "loss"),
    Metric("loss_char", "Charbonnier loss", "char"),
    Metric("loss_cos", "cosine loss", "cos"),
    Metric("loss_fft", "FFT loss", "fft"),
    Metric("lr", "learning rate", "lr", smooth=False),
    Metric("grad_norm", "gradient norm before clipping", "grad norm"),
)


def differences(configs: Sequence[Mapping[str, str]]) -> list[tuple[str, list[str]]]:
    """The keys in which these configs differ, in the order of the first that has them, and each one's value."""
    keys = dict.fromkeys(key for config in configs for key in config)
    rows = [(key, [config.get(key, ABSENT) for config in configs]) for key in keys]
    return [(key, values) for key, values in rows if len(set(values)) > 1]


def extremes(values: Sequence[float]) -> tuple[float, float]:
    """The last value, as it is, and the lowest finite one; NaN where there is none."""
    finite = [value for value in values if math.isfinite(value)]
    return (values[-1] if len(values) else math.nan), min(finite, default=math.nan)


def value_at(xs: Sequence[float], ys: Sequence[float], x: float) -> float | None:
    """The value at the last point that is not beyond x; None where the run has none, or ended before."""
    if not len(xs) or x < xs[0] or x > xs[-1]:
        return None
    index = bisect_left(xs, x)
    return ys[index if index < len(xs) and xs[index] == x else index - 1]


def run_lines(
    runs: Sequence[Compared], metric: Metric, width: int, hidden: Sequence[int] = (), cross: Sequence[str] = ()
) -> list[Line]:
    """A head and a line for each run; `cross` has the values under the crosshair, if there is one."""
    wide = width >= 110
    values = [extremes(getattr(run.curve, metric.key)) for run in runs]
    steps = [_steps(run) for run in runs]
    step = max([9, *map(len, steps)])
    fixed = 4 + 2 + 13 + 2 + step + (11 if cross else 0) + 2 * 11 + (11 + 12 if wide else 0)
    name = min(max(8, width - fixed), max([8, *(cell_len(run.name) for run in runs)]))
    head = f"    {'run':{name}}  {'state':13}  {'step':>{step}}"
    head += (f"  {'at │':>9}" if cross else "") + f"  {'last':>9}  {'lowest':>9}"
    lines = [line((head + (f"  {'s a step':>9}  {'trained':>10}" if wide else ""), "muted"))]
    for index, run in enumerate(runs):
        last, lowest = values[index]
        symbol, state_role = STATES.get(run.state, ("?", "bad"))
        off = index in hidden
        letter = (f" {LETTERS[index]} ", "muted" if off else f"bold reverse {ROLES[index]}")
        shown = fit(run.name, name)
        role = "muted" if off else "text"
        figures = f"  {steps[index]:>{step}}" + (f"  {cross[index]:>9}" if cross else "")
        some = len(run.curve) > 0
        newest = f"  {_value(metric, last, some):>9}"
        rest = f"  {_value(metric, lowest, some, least=True):>9}"
        if wide:
            trained = numbers.duration(run.curve.elapsed[-1]) if some else ABSENT
            rest += f"  {numbers.significant(run.curve.step_seconds()):>9}  {trained:>10}"
        lines.append(
            line(
                letter,
                (f" {shown}{' ' * (name - cell_len(shown))}  ", role),
                (f"{symbol} {run.state}".ljust(13), "muted" if off else state_role),
                (figures, role),
                (newest, "bad" if some and math.isnan(last) and not off else role),
                (rest, role),
            )
        )
    return lines


def _value(metric: Metric, value: float, some: bool, *, least: bool = False) -> str:
    """What is not known is a dash; a last value that is not finite says so."""
    return metric.text(value) if some and not (least and math.isnan(value)) else ABSENT


def _steps(run: Compared) -> str:
    return f"{run.step:,} / {run.total_steps:,}" if run.total_steps else f"{run.step:,}"


def difference_lines(runs: Sequence[Compared], width: int) -> list[Line]:
    """The keys in which the configs differ, a column for each run."""
    rows = differences([run.config for run in runs])
    if not rows:
        return [line(("The configs of these runs are the same.", "muted"))]
    key = min(LONGEST_KEY, max(len(name) for name, _ in rows), max(12, width // 3))
    longest = max(cell_len(value) for _, values in rows for value in values)
    column = max(LEAST_VALUE, min(longest, (width - key - 2) // len(runs) - 2))
    head = [(f"{'config':{key}}", "muted")]
    for index in range(len(runs)):
        head += [("  ", "text"), (f" {LETTERS[index]} ", f"bold reverse {ROLES[index]}"), (" " * (column - 3), "text")]
    lines = [tuple(head)]
    for name, values in rows:
        spans = [(f"{_end(name, key):{key}}", "muted")]
        for value in values:
            text = fit(value, column)
            spans.append((f"  {text}{' ' * (column - cell_len(text))}", "text"))
        lines.append(tuple(spans))
    return lines


def _end(text: str, width: int) -> str:
    """The end of a key: the group it is in may go."""
    return text if len(text) <= width else f"…{text[1 - width :]}"
