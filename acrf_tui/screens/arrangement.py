"""Which panels of the dashboard are hidden, as it is remembered from one day to the next. Pure: no app, no file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Arrangement:
    """`panels` are the ids of all panels in the order of their numbers; at least one is never hidden."""

    panels: tuple[str, ...]
    hidden: frozenset[str] = frozenset()

    @property
    def shown(self) -> tuple[str, ...]:
        """The panels that are not hidden."""
        return tuple(panel for panel in self.panels if panel not in self.hidden)

    def may_hide(self, panel: str) -> bool:
        """Whether something is left to see without it."""
        return any(other != panel for other in self.shown)

    def toggled(self, panel: str) -> Arrangement:
        """With the panel hidden or brought back; the same where it is the last one to see."""
        if panel in self.hidden:
            return Arrangement(self.panels, self.hidden - {panel})
        return Arrangement(self.panels, self.hidden | {panel}) if self.may_hide(panel) else self


def from_memory(panels: Sequence[str], found: Any) -> Arrangement:
    """The arrangement of what `to_memory` gave; all panels where it is something else, or hides every one of them."""
    names = found.get("hidden") if isinstance(found, dict) else None
    known = {name for name in names if isinstance(name, str)} if isinstance(names, list) else set()
    hidden = frozenset(known & set(panels))
    return Arrangement(tuple(panels), hidden if len(hidden) < len(panels) else frozenset())


def to_memory(arrangement: Arrangement) -> dict[str, list[str]]:
    """What is remembered of it."""
    return {"hidden": [panel for panel in arrangement.panels if panel in arrangement.hidden]}
