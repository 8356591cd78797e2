"""The preview beside the configs: what the chosen one will do, or why it cannot."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rich.cells import cell_len
from textual import events
from textual.containers import VerticalScroll

from acrf_tui.charts.lines import Line, LineView, fit, line, wrap
from acrf_tui.printable import printable, short_path
from acrf_tui.screens.launchpad_check import Outlook, remedy
from acrf_tui.screens.launchpad_configs import ConfigEntry, Row

LABEL = 11
METER = 24
TALL = 22
"""Rows from which everything is visible at once."""
MOST_BUCKETS = 6
TWO_COLUMNS_FROM = 118


def outlook_lines(entry: ConfigEntry, outlook: Outlook, width: int, height: int = TALL) -> list[Line]:
    """The preview of a config in `width` cells. Where it is low, what matters most stands first."""
    lines = _lines(entry, outlook, width, height, brief=False)
    return lines if len(lines) <= height else _lines(entry, outlook, width, height, brief=True)


def _lines(entry: ConfigEntry, outlook: Outlook, width: int, height: int, *, brief: bool) -> list[Line]:
    low = height < TALL
    about = printable(entry.audience if low else entry.description)
    lines: list[Line] = [line((text, "text")) for text in wrap(about, min(width, 100))]
    if lines:
        lines.append(())
    check = _check_lines(outlook, width, brief)
    if width >= TWO_COLUMNS_FROM and not outlook.error:
        half = (width - 4) // 2
        lines += _beside(_rows(outlook.settings, half), _check_lines(outlook, half, brief), half)
    else:
        settings = _rows(outlook.settings, width)
        first, second = (check, settings) if low or outlook.error else (settings, check)
        lines += [*first, *([()] if first and second else []), *second]
    source = _source_lines(entry, outlook, width)
    return lines + source if outlook.error or len(lines) + len(source) <= height else lines


def _check_lines(outlook: Outlook, width: int, brief: bool) -> list[Line]:
    if outlook.error:
        problems = [part for text in outlook.error.splitlines() for part in _wrapped(text, width - 2)]
        lines = [line(("✗ " if index == 0 else "  ", "bad"), (text, "bad")) for index, text in enumerate(problems)]
        return [*lines, (), *(line((text, "text")) for text in wrap(outlook.advice or remedy(outlook.error), width))]
    if outlook.checking:
        return [line(("checking the pictures, the memory and the disk …", "muted"))]
    lines = []
    for label, text in outlook.rows:
        if brief and not label:
            continue  # details of the line above
        table = label == "buckets" and not brief and len(outlook.buckets) > 1
        lines += _bucket_table(outlook.buckets, width) if table else _rows([(label, text)], width)
        if label == "memory" and outlook.memory_share is not None:
            lines.append(_meter(outlook.memory_share))
    for note in outlook.notes:
        for index, text in enumerate(_wrapped(note, width - 2)):
            lines.append(line(("· " if index == 0 else "  ", "muted"), (text, "muted")))
    return lines


def _bucket_table(buckets: Sequence[tuple[str, int]], width: int) -> list[Line]:
    """One line for each size, with a bar; what does not fit is counted."""
    shown, most = buckets[:MOST_BUCKETS], max(count for _, count in buckets)
    sizes, counts = max(len(size) for size, _ in shown), max(len(f"{count:,}") for _, count in shown)
    room = min(METER, width - LABEL - sizes - counts - 4)
    lines = []
    for index, (size, count) in enumerate(shown):
        label = f"{'buckets' if index == 0 else '':{LABEL}}"
        bar = "━" * max(1, round(count / most * room)) if room > 0 else ""
        lines.append(line((label, "muted"), (f"{size:>{sizes}}  {count:>{counts},}  ", "text"), (bar, "meter-fill")))
    if rest := buckets[MOST_BUCKETS:]:
        pictures = sum(count for _, count in rest)
        lines.append(line((f"{'':{LABEL}}and {len(rest)} more sizes with {pictures:,} pictures", "muted")))
    return lines


def _source_lines(entry: ConfigEntry, outlook: Outlook, width: int) -> list[Line]:
    """The file with numbers, the line that an error names marked."""
    if not outlook.source:
        return []
    found = re.search(re.escape(str(entry.path)) + r":(\d+)", outlook.error)
    wrong = int(found.group(1)) if found else 0
    place = f"sample config {entry.path.name}" if entry.origin == "sample" else short_path(entry.path)
    lines: list[Line] = [(), line((fit(place, width), "muted"))]
    for number, text in enumerate(outlook.source, start=1):
        role = "bad" if number == wrong else "muted"
        mark = "✗" if number == wrong else " "
        lines.append(line((f"{mark}{number:>4}  ", role), (fit(text, width - 7), "text" if mark == "✗" else "muted")))
    return lines


def _meter(share: float) -> Line:
    full = min(METER, max(1, round(share * METER)))
    role = "bad" if share > 1 else "warn" if share > 0.9 else "meter-fill"
    return line(
        (" " * LABEL, "text"),
        ("━" * full, role),
        ("━" * (METER - full), "meter-track"),
        (f" {share:.0%}", "text" if share <= 0.9 else role),
    )


def _rows(rows: Sequence[Row], width: int) -> list[Line]:
    lines: list[Line] = []
    for label, value in rows:
        for index, text in enumerate(_wrapped(value, max(12, width - LABEL)) or [""]):
            lines.append(line((f"{label if index == 0 else '':{LABEL}}", "muted"), (text, "text")))
    return lines


def _wrapped(text: str, width: int) -> list[str]:
    """Like `wrap`, but a long path is broken, not cut: the end of it is what one needs to read."""
    words: list[str] = []
    for word in text.split():
        while cell_len(word) > width > 0:
            end = width
            while cell_len(word[:end]) > width:
                end -= 1
            words.append(word[:end])
            word = word[end:]
        words.append(word)
    return wrap(" ".join(words), width)


def _beside(left: Sequence[Line], right: Sequence[Line], half: int) -> list[Line]:
    lines: list[Line] = []
    for index in range(max(len(left), len(right))):
        first = left[index] if index < len(left) else ()
        second = right[index] if index < len(right) else ()
        gap = half - sum(cell_len(text) for text, _ in first) + 4
        lines.append((*first, (" " * gap, "text"), *second))
    return lines


class OutlookView(VerticalScroll):
    """Shows an outlook; takes the focus only while there is something to scroll."""

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id, can_focus=False)
        self.border_title = "What it will do"
        self._view = LineView()
        self._entry: ConfigEntry | None = None
        self._outlook = Outlook()
        self._height = 0

    def on_mount(self) -> None:
        self.mount(self._view)

    def show(self, entry: ConfigEntry | None, outlook: Outlook) -> None:
        """Show the outlook of a config."""
        if (entry, outlook) == (self._entry, self._outlook):
            return
        if entry != self._entry:
            self.scroll_home(animate=False)
        self._entry, self._outlook = entry, outlook
        self._draw()

    def on_resize(self, event: events.Resize) -> None:
        self._draw()

    def _draw(self) -> None:
        if self._entry is None:
            return
        if self.border_title != self._entry.name:  # setting it draws the panel again
            self.border_title = self._entry.name
            self.border_subtitle = "" if self._entry.origin == "sample" else short_path(self._entry.path)
        room = self.scrollable_content_region.size
        lines = outlook_lines(self._entry, self._outlook, max(20, room.width), room.height)
        # As high as the panel at least: a height that changes would draw the whole panel again.
        height = max(1, len(lines), room.height)
        if height != self._height:
            self._height = height
            self._view.styles.height = height
        self._view.show(lines)
        overflows = len(lines) > room.height
        if self.can_focus != overflows:
            self.can_focus = overflows
            if self.has_focus:
                self.screen.focus_previous()
