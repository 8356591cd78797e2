"""A widget of styled text lines that repaints only the cells that changed."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from rich.style import Style
from textual.geometry import Region, Size
from textual.strip import Strip
from textual.widget import Widget

from acrf_tui.charts.palette import style_of
from acrf_tui.charts.symbols import symbols_of

Span = tuple[str, str]
"""Text and the spec of its style (see `palette.style_of`)."""
Line = tuple[Span, ...]


def line(*spans: Span | str) -> Line:
    """A line of spans; a bare string is plain text."""
    return tuple((span, "text") if isinstance(span, str) else span for span in spans if span)


def width_of(spans: Line) -> int:
    """Width in cells."""
    return sum(cell_len(text) for text, _ in spans)


def spread(left: Line, right: Line, width: int) -> Line:
    """`left` at the left edge and `right` at the right edge of `width` cells; `left` is cut where both do not fit."""
    room = max(0, width - width_of(right) - 1)
    cut: list[Span] = []
    for text, spec in left:
        length = cell_len(text)
        if length <= room:
            cut.append((text, spec))
        elif room > 0:
            cut.append((fit(text, room), spec))
        room -= min(room, length)
    return (*cut, (" " * (room + 1), "text"), *right)


def fit(text: str, width: int) -> str:
    """`text` in at most `width` cells, with an ellipsis where it was cut."""
    if cell_len(text) <= width:
        return text
    return set_cell_size(text, width - 1) + "…" if width > 1 else set_cell_size(text, max(0, width))


def wrap(text: str, width: int) -> list[str]:
    """Words of `text` in lines of at most `width` cells."""
    lines: list[str] = []
    current = ""
    for word in text.split():
        candidate = f"{current} {word}" if current else word
        if cell_len(candidate) <= width or not current:
            current = candidate
        else:
            lines.append(fit(current, width))
            current = word
    return [*lines, fit(current, width)] if current else lines


def joined(spans: Line) -> list[Span]:
    """Neighbours of one style in one piece; spaces take the style before them, since each change costs 40 bytes."""
    pieces: list[Span] = []
    for text, spec in spans:
        if not text:
            continue
        if pieces and (spec == pieces[-1][1] or (text.isspace() and "reverse" not in pieces[-1][1] + spec)):
            pieces[-1] = (pieces[-1][0] + text, pieces[-1][1])
        else:
            pieces.append((text, spec))
    return pieces


def first_difference(old: Line, new: Line) -> tuple[int, int] | None:
    """First and one-past-last cell in which two lines differ; None when they look the same."""
    if old == new:
        return None
    before, after = _cells(old), _cells(new)
    longest = max(len(before), len(after))
    before += [(" ", "")] * (longest - len(before))
    after += [(" ", "")] * (longest - len(after))
    changed = [index for index in range(longest) if before[index] != after[index]]
    return (changed[0], changed[-1] + 1) if changed else None


def _cells(spans: Line) -> list[tuple[str, str]]:
    cells: list[tuple[str, str]] = []
    for text, spec in spans:
        if text.isascii():
            cells.extend((char, spec) for char in text)
            continue
        for char in text:
            cells.append((char, spec))
            cells.extend([("", spec)] * (cell_len(char) - 1))
    return cells


class LineView(Widget):
    """Shows lines of spans. `show` compares with what is on screen and asks for a repaint of the difference only."""

    ALLOW_SELECT = False
    DEFAULT_CSS = """
    LineView { width: 1fr; height: 1fr; }
    """

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self.lines: list[Line] = []
        self._styles_by_spec: dict[str, Style] = {}

    def show(self, lines: Sequence[Line]) -> None:
        """Replace the lines."""
        old, self.lines = self.lines, list(lines)
        width, height = self.size
        if not width or not height:
            self.refresh()  # hidden or not laid out yet: whatever was rendered before is stale
            return
        for y in range(min(height, max(len(old), len(self.lines)))):
            before = old[y] if y < len(old) else ()
            after = self.lines[y] if y < len(self.lines) else ()
            span = first_difference(before, after)
            if span is not None and span[0] < width:
                self.refresh(Region(span[0], y, min(span[1], width) - span[0], 1))

    def notify_style_update(self) -> None:
        """A theme or focus change: styles are looked up again."""
        self._styles_by_spec.clear()
        super().notify_style_update()

    def style_for(self, spec: str) -> Style:
        """The style of a spec, remembered until the theme changes."""
        style = self._styles_by_spec.get(spec)
        if style is None:
            style = self._styles_by_spec[spec] = style_of(self, spec)
        return style

    def render_line(self, y: int) -> Strip:
        width = self.size.width
        spans = self.lines[y] if y < len(self.lines) else ()
        spell = symbols_of(self).spell
        segments = [Segment(spell(text), self.style_for(spec)) for text, spec in joined(spans)]
        used = sum(cell_len(segment.text) for segment in segments)
        if used < width:
            segments.append(Segment(" " * (width - used), self.style_for("text")))
        strip = Strip(segments)
        return strip.crop(0, width) if used > width else strip

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        return max(1, len(self.lines))
