"""The states of a run, apart from the events: importing those costs a twentieth of the time to the first paint."""

from __future__ import annotations

ACTIVE_STATES: frozenset[str] = frozenset({"starting", "caching", "running", "paused", "stopping"})
RESUMABLE_STATES: frozenset[str] = frozenset({"stopped", "failed", "interrupted"})
