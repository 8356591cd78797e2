"""Paths as bytes: Linux allows any in a name, JSON and safetensors only UTF-8."""

from __future__ import annotations

import os
from pathlib import Path


def shown_if_not_utf8(path: Path) -> str:
    """A path whose bytes are no UTF-8, escaped so that it can be shown; '' for every other."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return os.fsencode(path).decode("utf-8", "backslashreplace")
    return ""
