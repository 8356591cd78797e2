"""Which characters a chart is drawn with: braille (2x4 dots a cell), blocks (2x2) or plain ASCII (1x2)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from textual.widget import Widget

_BRAILLE_LEFT = (0x01, 0x02, 0x04, 0x40)
_BRAILLE_RIGHT = (0x08, 0x10, 0x20, 0x80)
_QUADRANTS = " ▘▖▌▝▀▞▛▗▚▄▙▐▜▟█"
"""Index: bits top-left 1, bottom-left 2, top-right 4, bottom-right 8."""


@dataclass(frozen=True, slots=True)
class SymbolSet:
    """`table[left][right]` is the character of a cell whose dot columns hold these bits (bit 0 is the top dot)."""

    name: str
    dots_x: int
    dots_y: int
    table: tuple[tuple[str, ...], ...]
    ring: str
    """Marks a fixed place, such as an anchor."""
    disc: str
    """Marks something that just happened."""
    bar: str
    """Characters of a horizontal bar from empty to full; the last one fills a cell."""
    column: str
    """Characters of a vertical bar from empty to full."""
    mark: str
    """A vertical mark over a bar."""
    track: str
    """The part of a meter that is not filled."""
    axis: tuple[str, str]
    """Closes the y axis on the right: at a tick, elsewhere."""
    crosshair: str
    """The vertical line through the step that is read."""
    broken: str
    """Stands at the top edge where a value was not finite."""
    swatch: tuple[str, str]
    """Before a series' name in a legend: shown, hidden."""
    dots: str
    """A dotted line, such as a level, in a legend."""
    shades: str
    """A cell of a heat map by density, from least to most: for terminals without colours."""
    cell: str
    """A cell of a heat map that has a colour."""
    nothing: str
    """A cell of a heat map without data."""
    markers: tuple[tuple[str, str], ...]
    """Kind of a marker on the step axis and its character."""
    several: str
    """Stands for markers of several kinds in one cell."""
    spelling: dict[int, str] = field(default_factory=dict, repr=False, hash=False)
    """For `spell`: what this set writes in the place of a character of others, cell for cell."""

    def marker(self, kind: str) -> str:
        """The character of a kind of marker."""
        return dict(self.markers).get(kind, self.several)

    def spell(self, text: str) -> str:
        """`text` in characters of this set, as many cells wide: braille becomes quadrants, all becomes ASCII.

        What has no like in ASCII is a question mark a cell.
        """
        if not self.spelling or text.isascii():
            return text
        text = text.translate(self.spelling)
        if self.name != "ascii" or text.isascii():
            return text
        from acrf_tui.ascii import to_ascii

        return to_ascii(text)


def _bits(mask: int, values: tuple[int, ...]) -> int:
    return sum(value for index, value in enumerate(values) if mask >> index & 1)


def _quadrant(left: int, right: int) -> str:
    return _QUADRANTS[left + 4 * right]


def _coarse_braille(dots_y: int, char_of: Callable[[int, int], str]) -> dict[int, str]:
    """Every braille character -> the one with dots at the same places of a coarser cell."""
    found = {}
    for left in range(16):
        for right in range(16):
            coarse = [sum(1 << half for half in range(dots_y) if mask >> half * 2 & 3) for mask in (left, right)]
            code = 0x2800 + _bits(left, _BRAILLE_LEFT) + _bits(right, _BRAILLE_RIGHT)
            found[code] = char_of(coarse[0], coarse[1])
    return found


_PLAIN: dict[int, str] = {
    ord(char): plain
    for char, plain in zip(
        "━╸─╌┈┃│┤▏▎▍▌▋▊▉█▁▂▃▄▅▆▇░▒▓●○◇◆▸▣▲▾✓✗…–—·×÷→←↑↓“”‘’σγλ≤≥±°µ↻",
        "#=--.||+.::;;!!#.....::.:#*oocsp!x+x.--.xx><^v\"\"''sgl<>+*ur",
        strict=True,
    )
}
"""What is written instead in ASCII; one cell for one cell."""
SHADES = ".:-=+*#@"
MARKERS = (("set", "▸"), ("checkpoint", "◆"), ("preview", "▣"), ("warning", "▲"), ("attempt", "↻"))

BRAILLE = SymbolSet(
    name="braille",
    dots_x=2,
    dots_y=4,
    table=tuple(
        tuple(
            chr(0x2800 + _bits(left, _BRAILLE_LEFT) + _bits(right, _BRAILLE_RIGHT)) if left or right else " "
            for right in range(16)
        )
        for left in range(16)
    ),
    ring="○",
    disc="●",
    bar=" ╸━",
    column=" ▁▂▃▄▅▆▇█",
    mark="┃",
    track="─",
    axis=("┤", "│"),
    crosshair="│",
    broken="▾",
    swatch=("━", "╌"),
    dots="┈",
    shades=SHADES,
    cell="█",
    nothing="·",
    markers=MARKERS,
    several="+",
)
BLOCK = replace(
    BRAILLE,
    name="block",
    dots_y=2,
    table=tuple(tuple(_QUADRANTS[left + 4 * right] for right in range(4)) for left in range(4)),
    bar=" ▖▄",
    spelling=_coarse_braille(2, _quadrant),
)
ASCII = SymbolSet(
    name="ascii",
    dots_x=1,
    dots_y=2,
    table=tuple((char,) for char in " '.:"),
    ring="o",
    disc="*",
    bar=" #",
    column=" .:#",
    mark="|",
    track="-",
    axis=("+", "|"),
    crosshair="|",
    broken="x",
    swatch=("=", "-"),
    dots=".",
    shades=SHADES,
    cell="#",
    nothing="_",
    markers=(("set", "s"), ("checkpoint", "c"), ("preview", "p"), ("warning", "!"), ("attempt", "r")),
    several="+",
    spelling={**_PLAIN, **_coarse_braille(2, lambda left, right: " '.:"[left | right])},
)

SYMBOL_SETS: dict[str, SymbolSet] = {symbols.name: symbols for symbols in (BRAILLE, BLOCK, ASCII)}


def symbols_of(widget: Widget) -> SymbolSet:
    """The symbol set of the app a widget is in; asked at paint time, because a setting may change it."""
    found = getattr(widget.app, "symbols", BRAILLE)
    return found if isinstance(found, SymbolSet) else BRAILLE
