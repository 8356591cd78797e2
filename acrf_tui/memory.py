"""What the app remembers between days, such as the theme."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import platformdirs

from acrf_engine.run.folder import APP_NAME


def _memory_file() -> Path:
    return platformdirs.user_state_path(APP_NAME) / "app.json"


def remembered() -> dict[str, Any]:
    """What was remembered, such as `theme`; empty where nothing readable says so."""
    try:
        found = json.loads(_memory_file().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def remember(**values: Any) -> None:
    """Remember these values too. A read-only home costs the memory, never the app."""
    with contextlib.suppress(OSError):
        file = _memory_file()
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        file.write_text(json.dumps({**remembered(), **values}) + "\n", encoding="utf-8")
