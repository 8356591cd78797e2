"""Text of users, file names and other programs, made safe to show in a terminal."""

from __future__ import annotations


def printable(text: str, keep: str = "") -> str:
    """`text` with every character that could speak to the terminal as a backslash escape, but for those in `keep`."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else c.encode("unicode_escape").decode("ascii") for c in text)
