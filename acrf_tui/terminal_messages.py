"""What the app says to the terminal beside drawing: the clipboard (OSC 52) and notifications (OSC 9), also in tmux."""

from __future__ import annotations

import base64
from collections.abc import Mapping

LONGEST_COPY = 74_994
"""Bytes of UTF-8 that terminals take: xterm, tmux and hterm stop at 100,000 characters of base64."""
LONGEST_NOTICE = 200
SCREEN_CHUNK = 240
"""GNU screen forgets a string that is longer than about 256 bytes."""


def clipboard_sequence(text: str, environment: Mapping[str, str]) -> str:
    """OSC 52 that puts `text` on the clipboard of the terminal in front. Raises ValueError where it is too long."""
    body = text.encode("utf-8", "replace")
    if len(body) > LONGEST_COPY:
        raise ValueError(f"{len(body):,} bytes are too long for a terminal's clipboard (at most {LONGEST_COPY:,})")
    return through(f"\x1b]52;c;{base64.b64encode(body).decode()}\a", environment)


def notification_sequence(text: str, environment: Mapping[str, str]) -> str:
    """OSC 9, which iTerm2, kitty, WezTerm, Ghostty, Windows Terminal and others show as a notification."""
    shown = "".join(char if char.isprintable() else " " for char in text)[:LONGEST_NOTICE]
    return through(f"\x1b]9;{shown}\a", environment)


def through(sequence: str, environment: Mapping[str, str]) -> str:
    """`sequence` so that it also passes a multiplexer.

    In tmux it is sent twice: as it is, which tmux takes itself (`set-clipboard on`), and wrapped, which tmux hands to
    the terminal outside (`allow-passthrough on`, and before tmux 3.3 always). Which one is allowed cannot be asked.
    """
    if environment.get("TMUX") or environment.get("TERM", "").startswith("tmux"):
        doubled = sequence.replace("\x1b", "\x1b\x1b")
        return f"{sequence}\x1bPtmux;{doubled}\x1b\\"
    if environment.get("STY"):
        pieces = [sequence[start : start + SCREEN_CHUNK] for start in range(0, len(sequence), SCREEN_CHUNK)]
        return "".join(f"\x1bP{piece}\x1b\\" for piece in pieces)
    return sequence
