"""What is wrong with the user's data, said so that the user can act on it."""

from __future__ import annotations

from pathlib import Path


def printable(name: str | Path) -> str:
    """Return `name` safe to show in a terminal, a log or JSON.

    File names may hold escape sequences, newlines and bytes that are no UTF-8; each such character becomes a
    backslash escape.
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in str(name))


class DataError(Exception):
    """The data cannot be used as it is. `message` names the file or folder and what to do about it."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class PictureError(DataError):
    """One picture cannot be used. `reason` is short and leaves out the name, for lists that show it beside."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{printable(path)}: {reason}")
        self.path = path
        self.reason = reason
