"""What deserves a bell or a notification: a run that ends, fails, is interrupted, or meets a loss that is no number."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from textual.message import Message

from acrf_engine.protocol import ACTIVE_STATES, Event, Failed, Finished, Step, Stopped, WarningEvent

NOT_FINITE = re.compile(r" is -?(?:nan|inf)\b")
"""As the worker's warnings name it, where a step was skipped or rolled back."""
QUIET_SECONDS = 60.0
"""A run that meets NaN meets it again: once a minute is enough."""


class Alert(Message):
    """Something happened to the run on the screen that its user may want to hear of."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text


class Alerts:
    """Finds what to say in the stream of one run; what was stored before is history and is not said."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._live = False
        self._quiet_until = -math.inf

    def begin(self, status: Mapping[str, Any]) -> None:
        """The history is read; `status` is the run's status at that moment."""
        self._live = status.get("state") in ACTIVE_STATES

    def of(self, events: Iterable[Event]) -> list[Alert]:
        """What new events of the stream amount to."""
        found: list[str] = []
        for event in events:
            match event:
                case Finished():
                    found.append(f"finished at step {event.step:,}")
                case Failed():
                    found.append(f"{event.kind} at step {event.step:,}: {event.error}")
                case WarningEvent() if NOT_FINITE.search(event.message) and event.time >= self._quiet_until:
                    self._quiet_until = event.time + QUIET_SECONDS
                    found.append(event.message)
                case Step() if not math.isfinite(event.loss) and event.time >= self._quiet_until:
                    self._quiet_until = event.time + QUIET_SECONDS
                    found.append(f"the loss is no number at step {event.step:,}")
            if isinstance(event, Finished | Failed | Stopped):
                self._live = False
        return [Alert(f"{self.name}: {text}") for text in found]

    def ended(self, status: Mapping[str, Any]) -> list[Alert]:
        """The stream ended; a run that said its last word was announced by it; a stop was asked for."""
        was_live, self._live = self._live, False
        state = str(status.get("state", "interrupted"))
        if not was_live or state == "stopped":
            return []
        error = str(status.get("error") or "")
        return [Alert(f"{self.name}: {state}: {error}" if error else f"{self.name}: {state}")]
