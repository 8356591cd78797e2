"""Pictures of the screen, as SVG files of the user."""

from __future__ import annotations

import os
import time
from pathlib import Path


def write_picture(folder: Path, svg: str, now: float) -> Path:
    """Write `svg` under a free name that says when it was taken. Raises OSError where the folder cannot be written."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    stem = f"acrf-tui-{time.strftime('%Y-%m-%d-%H%M%S', time.localtime(now))}"
    number = 1
    while True:
        path = folder / (f"{stem}.svg" if number == 1 else f"{stem}-{number}.svg")
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            number += 1
            continue
        with open(fd, "w", encoding="utf-8") as file:
            file.write(svg)
        return path
