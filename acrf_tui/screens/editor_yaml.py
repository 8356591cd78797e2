"""The YAML beside the form: always what will be saved, and a place to type in. Draws only rows that look different."""

from __future__ import annotations

import re
from collections.abc import Collection

from rich.style import Style
from rich.text import Text
from textual.geometry import Offset, Region
from textual.strip import Strip
from textual.widgets import TextArea

from acrf_tui.charts.palette import colour
from acrf_tui.screens.editor_repaint import RowByRow

KEY = re.compile(r"^\s*(?:- +)?([A-Za-z_]\w*)(?=\s*:(?:\s|$))")
COMMENT = re.compile(r"(?:^|\s)(#.*)$")


def first_and_last_difference(old: str, new: str) -> tuple[int, int, int]:
    """Where two texts begin to differ, and where their common ends begin in the old and in the new one."""
    shorter = min(len(old), len(new))
    begin = next((i for i in range(shorter) if old[i] != new[i]), shorter)
    same = next((i for i in range(shorter - begin) if old[-1 - i] != new[-1 - i]), shorter - begin)
    return begin, len(old) - same, len(new) - same


def location(text: str, index: int) -> tuple[int, int]:
    """Row and column, from 0, of an index."""
    return text.count("\n", 0, index), index - (text.rfind("\n", 0, index) + 1)


class YamlText(RowByRow, TextArea):
    """A plain text area with quiet colours for keys and comments, and marked lines where something is wrong."""

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id, soft_wrap=False, show_line_numbers=True, compact=True, tab_behavior="focus")
        self.cursor_blink = False
        self._wrong: frozenset[int] = frozenset()
        self._changes_before = 0

    def show_text(self, text: str) -> None:
        """Change the text where it differs, so that undo takes back this change alone."""
        old = self.text
        if text == old:
            return
        begin, old_end, new_end = first_and_last_difference(old, text)
        start, end = location(old, begin), location(old, old_end)
        self.replace(text[begin:new_end], start, end, maintain_selection_offset=False)
        self.move_cursor(start)

    def scroll_cursor_visible(self, center: bool = False, animate: bool = False) -> Offset:
        """As for any text, but beside a form that changes it the beginnings of the lines stay in view."""
        if self.has_focus:
            return super().scroll_cursor_visible(center, animate)
        row, top, height = self.cursor_location[0], self.scroll_offset.y, self.size.height
        if height:
            top = min(max(top, row - height + 2), row)
            self.scroll_to(x=0, y=top, animate=False, immediate=True)
        return Offset(0, 0)

    def mark(self, lines: Collection[int]) -> None:
        """Mark these lines, from 1, as wrong."""
        wrong = frozenset(lines)
        if wrong != self._wrong:
            self._wrong = wrong
            self._line_cache.clear()
            self.refresh()

    def begin_change(self) -> None:
        """What follows is one change, to be taken back at once."""
        self.history.checkpoint()
        self._changes_before = len(self.history._undo_stack)

    def end_change(self) -> None:
        """The change is finished."""
        batches = self.history._undo_stack
        merged = [edit for batch in list(batches)[self._changes_before :] for edit in batch]
        while len(batches) > self._changes_before:
            batches.pop()
        if merged:
            batches.append(merged)
        self.history.checkpoint()

    def go_to_line(self, number: int) -> None:
        """Put the cursor at the end of a line, from 1."""
        row = max(0, min(number - 1, self.document.line_count - 1))
        self.move_cursor((row, len(self.document.get_line(row).split(" #")[0].rstrip())))

    def get_line(self, line_index: int) -> Text:
        """The line in colours, control characters made visible."""
        plain = self.document.get_line(line_index)
        text = Text(
            "".join(char if char.isprintable() or char == "\t" else "\ufffd" for char in plain), end="", no_wrap=True
        )
        variables = self.app.theme_variables
        if line_index + 1 in self._wrong:
            text.stylize(Style(color=colour(variables, "bad").rich_color, bold=True))
            return text
        if found := KEY.match(plain):
            text.stylize(Style(color=colour(variables, "accent").rich_color), *found.span(1))
        if found := COMMENT.search(plain):
            text.stylize(Style(color=colour(variables, "muted").rich_color), *found.span(1))
        return text

    def get_component_rich_style(self, *names: str, partial: bool = False, default: Style | None = None) -> Style:
        """The line of the cursor keeps the colours of its words."""
        found = super().get_component_rich_style(*names, partial=partial, default=default)
        return Style(bgcolor=found.bgcolor) if names == ("text-area--cursor-line",) else found

    def notify_style_update(self) -> None:
        """Another theme: the colours of all lines."""
        self._line_cache.clear()
        super().notify_style_update()

    def on_focus(self) -> None:
        """The border shows where the keys go."""
        self._draw_border()

    def on_blur(self) -> None:
        """The keys go elsewhere."""
        self._draw_border()

    def _draw_border(self) -> None:
        width, height = self.outer_size
        for edge in (Region(-1, -1, width, 1), Region(-1, height - 2, width, 1)):
            self.refresh(edge)
        for x in (-1, width - 2):
            self.refresh(Region(x, -1, 1, height))

    # TextArea draws all of itself again at every key and every step of its cursor: 4 KB where a row would do.

    def paint_line(self, y: int) -> Strip:
        """The row `y`, in the colours of the theme that is on."""
        self._theme.apply_css(self)
        return TextArea.render_line(self, y)
