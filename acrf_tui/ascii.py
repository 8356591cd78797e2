"""Everything in plain ASCII, cell by cell, for terminals and locales that know nothing else."""

from __future__ import annotations

import unicodedata
from functools import lru_cache

from rich.cells import cell_len
from rich.segment import Segment
from textual.color import Color
from textual.filter import LineFilter

UNKNOWN = "?"
_SAME: dict[str, str] = {
    "-": "─╌┄┈╴╶‐‑‒–—―−⁃",
    "|": "│┃╎╏┆┇┊┋║╵╷╹╻‖▏▎▍▌▐▕⏐",
    "+": "±┌┐└┘├┤┬┴┼┏┓┗┛┣┫┳┻╋╭╮╯╰╔╗╚╝╠╣╦╩╬┝┥┯┷┿┠┨┰┸╂✓✔",
    "*": "●•∙⬤★✱◉",
    "o": "○◇◌◯◦°◔◷◑◕↻",
    "#": "█▉▊▋■▪◼▓▒◆▣⬛▆▇",
    "=": "━╍┅┉╸╺═▀▄▬▔≡",
    ".": "·⋅▁▂░",
    ":": "▃▄▅⋮",
    "x": "✗✘×✕✖",
    "^": "▲△↑⇑⏶",
    "v": "▼▽▾↓⇓⏷",
    ">": "≥▶▸►→⇒›»⏵",
    "<": "≤↵⏎◀◂◄←⇐‹«",
    "/": "÷∕⁄╱",
    "\\": "╲",
    "~": "≈∼…",
    '"': "“”„",
    "'": "‘’‚′",
    "a": "α", "b": "β", "g": "γ", "d": "δ∂", "e": "ε", "z": "ζ", "n": "η", "i": "ι", "k": "κ", "l": "λ",
    "u": "μµ", "p": "π", "r": "ρ", "s": "σς", "t": "τθ", "f": "φ", "w": "ωψ", "y": "χ",
    "D": "Δ", "S": "ΣΣ∑", "L": "Λ", "O": "ΩΘ", "P": "ΠΦ", "G": "Γ",
    "V": "√", "8": "∞",
}  # fmt: skip
_TABLE: dict[str, str] = {char: plain for plain, chars in _SAME.items() for char in chars}


@lru_cache(4096)
def _plain(char: str) -> str:
    width = cell_len(char)
    found = _TABLE.get(char, "")
    if not found:
        if 0x2800 <= ord(char) < 0x2900:  # braille: few dots, many dots
            found = " .:#"[min(3, ((ord(char) - 0x2800).bit_count() + 2) // 3)]
        elif 0x2580 <= ord(char) < 0x25A0:
            found = "#"
        else:
            base = unicodedata.normalize("NFKD", char)[:1]
            found = base if base.isascii() and base.isprintable() and width == 1 else UNKNOWN
    return found * width if width == 1 or found == UNKNOWN else UNKNOWN * width


@lru_cache(4096)
def to_ascii(text: str) -> str:
    """`text` in ASCII, in exactly as many cells: lookalikes where there are some, else question marks."""
    if text.isascii():
        return text
    plain = "".join(char if char.isascii() else _plain(char) for char in text)
    width = cell_len(text)  # less than the sum where characters join, as in flags
    return plain if cell_len(plain) == width else plain[:width].ljust(width, UNKNOWN)


class AsciiOnly(LineFilter):
    """Turns whatever is drawn into ASCII."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        """Replace the text of every segment; styles and control codes stay."""
        return [
            segment if segment.control or segment.text.isascii() else Segment(to_ascii(segment.text), segment.style)
            for segment in segments
        ]
