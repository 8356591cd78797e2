"""Jump mode: a letter over every place that can have the focus; pressing it goes there.

The letters are widgets laid over the screen, not a screen of their own: Textual repaints all of a screen when another
one comes or goes (40 KB and more), but only the cells of a widget that is added or removed.
"""

from __future__ import annotations

from collections.abc import Sequence

from textual import events
from textual.errors import NoWidget
from textual.geometry import Region
from textual.screen import Screen
from textual.widget import Widget

from acrf_tui.charts.lines import LineView, line
from acrf_tui.panels.keys import KeysLine

LETTERS = "asdfgqwertzxcvbyuiopnmhjkl"
"""Those under the left hand first."""


def letters_for(wanted: Sequence[str]) -> list[str]:
    """A key for every place: the one it wants, such as a panel's number, else the next free letter.

    No key is given twice; "" where all are used.
    """
    own = [key if key and key not in wanted[:at] else "" for at, key in enumerate(wanted)]
    free = iter([letter for letter in LETTERS if letter not in own])
    return [key or next(free, "") for key in own]


def visible_part(widget: Widget) -> Region:
    """Where a widget is seen on the screen; empty where it is not."""
    try:
        geometry = widget.screen.find_widget(widget)
    except NoWidget:  # behind a maximised one
        return Region()
    return geometry.region.intersection(geometry.clip)


def places(screen: Screen[object]) -> list[Widget]:
    """What can have the focus and is seen, in reading order."""
    found = [(visible_part(widget), widget) for widget in screen.focus_chain if not isinstance(widget, JumpLabel)]
    seen = [(region.y, region.x, at, widget) for at, (region, widget) in enumerate(found) if region.area]
    return [widget for *_, widget in sorted(seen, key=lambda one: one[:3])]


class JumpLabel(LineView, can_focus=True):
    """One letter over a place. The first of them has the focus while the user chooses."""

    DEFAULT_CSS = """
    JumpLabel { position: absolute; overlay: screen; width: 3; height: 1; background: $background; }
    """

    def __init__(self, letter: str, target: Widget, former: Widget | None) -> None:
        super().__init__()
        self.letter, self.target, self.former = letter, target, former

    def on_mount(self) -> None:
        region = visible_part(self.target)
        origin = self.parent.region if isinstance(self.parent, Widget) else region
        self.styles.offset = (min(region.x + 1, region.right - 1) - origin.x, region.y - origin.y)
        self.show([line((f" {self.letter} ", "bold reverse accent"))])

    def on_resize(self) -> None:
        self.refresh()

    def on_key(self, event: events.Key) -> None:
        """Go to the place of the letter; any other key leaves all as it was."""
        event.stop()
        event.prevent_default()
        labels = list(self.screen.query(JumpLabel))
        chosen = next((label.target for label in labels if label.letter == event.character), None)
        leave(self.screen, chosen or self.former)

    def on_blur(self) -> None:
        """A click went somewhere else, or the screen was left."""
        if not isinstance(self.screen.focused, JumpLabel):
            leave(self.screen, None)


def leave(screen: Screen[object], to: Widget | None) -> None:
    """Take the letters away and focus `to`."""
    for label in screen.query(JumpLabel):
        label.remove()
    if to is not None and to.is_attached:
        screen.set_focus(to)


async def jump(screen: Screen[object]) -> None:
    """Show the letters; without a choice of places there are none."""
    if screen.query(JumpLabel):
        return
    found = places(screen)
    letters = letters_for([_own_key(widget) for widget in found])
    labels = [
        JumpLabel(letter, widget, screen.focused) for letter, widget in zip(letters, found, strict=True) if letter
    ]
    if len(labels) < 2:
        screen.app.bell()
        return
    await _host(screen).mount_all(labels)
    screen.set_focus(labels[0], scroll_visible=False)


def _host(screen: Screen[object]) -> Widget:
    """Whose children the letters are: Textual repaints all of a widget that gets or loses a child, so a small one."""
    lines = screen.query(KeysLine)
    return lines.first() if lines else screen


def _own_key(widget: Widget) -> str:
    """A panel's number, which goes there without jump mode too."""
    number = getattr(widget, "NUMBER", 0)
    return str(number) if isinstance(number, int) and 0 < number < 10 else ""
