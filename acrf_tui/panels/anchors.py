"""Anchors: how often each was drawn against the plan (all the same), and where on the path the model errs."""

from __future__ import annotations

import math

from textual.app import ComposeResult
from textual.containers import Horizontal

from acrf_tui.charts.lines import Line, LineView, line, wrap
from acrf_tui.charts.marks import bar
from acrf_tui.charts.symbols import BRAILLE, SymbolSet, symbols_of
from acrf_tui.panels import numbers
from acrf_tui.panels.anchor_map import AnchorHeat
from acrf_tui.panels.panel import Panel
from acrf_tui.state import RunState

HEADROOM = 1.25
"""A bar that reaches the plan leaves this much room for one that goes beyond."""


def draws_line(sigma: float | None, draws: int, expected: float, width: int, symbols: SymbolSet = BRAILLE) -> Line:
    """sigma, a bar of draws, and the plan as a mark on it."""
    label = f"{sigma:.3f} " if sigma is not None else "  –   "
    room = max(1, width - len(label))
    scale = max(expected * HEADROOM, 1.0)
    filled = bar(draws / scale, room, symbols).rstrip()
    place = min(room - 1, round(expected / scale * room))
    if len(filled) <= place:
        before, after = place - len(filled), room - place - 1
        tail = ((" " * before, "text"), (symbols.mark, "meter-mark"), (" " * after, "text"))
        return line((label, "text"), (filled, "meter-fill"), *tail)
    return line(
        (label, "text"),
        (filled[:place], "meter-fill"),
        (symbols.mark, "meter-mark"),
        (filled[place + 1 :], "meter-fill"),
    )


def loss_line(mean: float, top: float, width: int, symbols: SymbolSet = BRAILLE) -> Line:
    """A bar of the mean loss, on the scale of the largest."""
    room = max(1, width - 6)
    share = mean / top if top > 0 and math.isfinite(mean) else 0.0
    return line((" " * 6, "text"), (bar(share / HEADROOM, room, symbols).rstrip(), "series-char"))


def numbers_line(draws: int, mean: float, worst: bool) -> Line:
    """Draws and mean loss, right-aligned."""
    role = "bad" if draws and math.isnan(mean) else "warn" if worst else "text"
    text = numbers.loss(mean) if draws else numbers.UNKNOWN
    return line((f"{draws:>7,}", "text"), (f"{text:>9}", role))


def stacked_lines(draws: int, mean: float, worst: bool) -> list[Line]:
    """The same two numbers under each other, each beside its bar."""
    role = "bad" if draws and math.isnan(mean) else "warn" if worst else "text"
    text = numbers.loss(mean) if draws else numbers.UNKNOWN
    return [line((f"{draws:>16,}", "text")), line((f"{text:>16}", role))]


class AnchorsPanel(Panel):
    """One row per anchor, most noisy first; maximised with the map of loss over anchor and step."""

    TITLE = "Anchors"
    NUMBER = 3
    EVERY = 4
    SUBTITLE = "┃ plan"
    DEFAULT_CSS = """
    AnchorsPanel AnchorHeat { display: none; }
    AnchorsPanel.-maximized AnchorHeat { display: block; margin-left: 2; }
    AnchorsPanel.-maximized #anchor-list { width: 45%; max-width: 64; }
    """

    def compose(self) -> ComposeResult:
        with Horizontal():
            with Horizontal(id="anchor-list"):
                yield LineView(id="anchor-draws")
                yield LineView(id="anchor-numbers")
            yield AnchorHeat()

    def paint(self, state: RunState, now: float) -> None:
        left, right = self.query_one("#anchor-draws", LineView), self.query_one("#anchor-numbers", LineView)
        if self.has_class("-maximized"):
            self.query_one(AnchorHeat).paint(state)
        totals, symbols = state.anchors, symbols_of(self)
        height, width = left.size.height, left.size.width
        sigmas = state.plan.anchors if state.plan else []
        count = max(len(sigmas), len(totals.draws))
        if not count or (state.plan is None and not any(totals.draws)):
            left.show([line((text, "muted")) for text in wrap("the anchors come with the run's plan", width)])
            right.show([])
            return
        drawn = sum(totals.draws)
        expected = drawn / count
        means = [totals.mean(index) for index in range(len(totals.draws))]
        finite = [mean for mean in means if math.isfinite(mean)]
        worst = max(finite) if len(finite) > 1 and drawn >= 4 * count else math.inf
        head = width >= 12 and height > count
        room = height - (1 if head else 0)
        shown = count if count <= room else max(0, room - 1)
        each = max(1, min(3, room // count))
        top = max(finite, default=0.0)
        lefts = [line(("    σ draws" + (" and mean loss" if each > 1 else ""), "muted"))] if head else []
        title = f"{'drawn':>7}{'loss':>9}" if each == 1 else f"{'drawn':>16}"
        rights = [line((title, "muted"))] if head else []
        for index in range(shown):
            draws = totals.draws[index] if index < len(totals.draws) else 0
            mean = means[index] if index < len(means) else math.nan
            sigma = sigmas[index] if index < len(sigmas) else None
            lefts.append(draws_line(sigma, draws, expected, width - 1, symbols))
            if each == 1:
                rights.append(numbers_line(draws, mean, mean == worst))
                continue
            lefts += [loss_line(mean, top, width - 1, symbols), ()][: each - 1]
            rights += [*stacked_lines(draws, mean, mean == worst), ()][:each]
        if shown < count:
            lefts.append(line((f"… {count - shown} more", "muted")))
        left.show(lefts)
        right.show(rights)
