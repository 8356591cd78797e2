"""Text of users, file names and other programs, made safe to show in a terminal."""

from __future__ import annotations

from pathlib import Path


def printable(text: str, keep: str = "") -> str:
    """`text` with every character that could speak to the terminal as a backslash escape, but for those in `keep`."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else c.encode("unicode_escape").decode("ascii") for c in text)


def short_path(path: str | Path) -> str:
    """A path as people write it: below the home folder with `~`."""
    text = printable(str(path))
    home = str(Path.home())
    return f"~{text[len(home) :]}" if text == home or text.startswith(f"{home}/") else text
