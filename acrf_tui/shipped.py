"""Where the files that come with the program are: beside the package in a wheel, at the root of a source tree."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

Kind = Literal["themes", "sample_configs"]


def shipped(kind: Kind) -> Path:
    """The folder of shipped themes or sample configs."""
    package = Path(__file__).resolve().parent
    installed = package / "_shipped" / kind
    return installed if installed.is_dir() else package.parent / kind
