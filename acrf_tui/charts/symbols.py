"""Which characters a chart is drawn with: braille (2x4 dots a cell), blocks (2x2) or plain ASCII (1x2)."""

from __future__ import annotations

from dataclasses import dataclass

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


def _bits(mask: int, values: tuple[int, ...]) -> int:
    return sum(value for index, value in enumerate(values) if mask >> index & 1)


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
)
BLOCK = SymbolSet(
    name="block",
    dots_x=2,
    dots_y=2,
    table=tuple(tuple(_QUADRANTS[left + 4 * right] for right in range(4)) for left in range(4)),
    ring="○",
    disc="●",
    bar=" ▏▎▍▌▋▊▉█",
    column=" ▁▂▃▄▅▆▇█",
    mark="┃",
    track="─",
    axis=("┤", "│"),
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
)

SYMBOL_SETS: dict[str, SymbolSet] = {symbols.name: symbols for symbols in (BRAILLE, BLOCK, ASCII)}
