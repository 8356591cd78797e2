"""The journal's entries, and events in the words of the journal."""

from __future__ import annotations

import math
from dataclasses import dataclass

from acrf_engine.protocol import Ack, Validation


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the journal. `kind`: state, done, refused, checkpoint, preview, warning, error or note."""

    time: float
    kind: str
    text: str
    step: int = 0


def describe_validation(event: Validation) -> str:
    """A validation as one line of the journal."""
    loss = f"{event.loss:.4f}" if math.isfinite(event.loss) else "NaN"
    pictures = f"{event.pictures:,} picture{'s' if event.pictures > 1 else ''}"
    return f"validation {loss} on {pictures}, {event.seconds:.1f} s"


def describe_ack(event: Ack) -> str:
    """An acknowledgement as one line of the journal."""
    text = event.command
    if event.key:
        text += f" {event.key}"
        if event.previous is not None:
            text += f" {event.previous:g} →"
        if event.value is not None:
            text += f" {event.value:g}"
    if not event.ok:
        return f"{text} refused: {event.message}" if event.message else f"{text} refused"
    if event.key:  # the message repeats key and values, for those who read it alone
        since = event.message.partition(", ")[2]
        return f"{text}, {since}" if since else text
    return f"{text}: {event.message}" if event.message else text
