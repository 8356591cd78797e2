"""LoRA files of a run, found without torch."""

from __future__ import annotations

from pathlib import Path

from acrf_engine.run.folder import RunError, RunFolder
from acrf_engine.run.tensor_header import Header, HeaderError, read_header

VALIDATION_LOSS, VALIDATION_PICTURES = "acrf_validation_loss", "acrf_validation_pictures"
"""Metadata of the best LoRA of a run: the loss that it was kept for, and on how many held-out pictures."""


def newest_lora(folder: RunFolder) -> Path:
    """The final LoRA of a run, or the newest that was saved on the way. Raises RunError where there is none.

    The best one by validation loss is only taken where it is the only one: it has to be asked for by its path.
    """
    best = folder.best_lora()
    files = [path for path in folder.lora.glob("*.safetensors") if not path.name.startswith(".") and path != best]
    files = files or [path for path in [best] if path.exists()]
    if not files:
        raise RunError(f"run {folder.name} has saved no LoRA yet (`acrf-tui control {folder.name} checkpoint`)")
    return max(files, key=lambda path: path.stat().st_mtime_ns)


def metadata_of(path: Path) -> dict[str, str]:
    """The metadata in the header of a safetensors file. Raises RunError naming the file."""
    return header_of(path).metadata


def header_of(path: Path) -> Header:
    """The header of a safetensors file. Raises RunError naming the file."""
    if path.is_dir():
        raise RunError(f"{path}: a folder (name the .safetensors file in it)")
    if path.is_file() and path.stat().st_size == 0:
        raise RunError(f"{path}: the file is empty (copy or download it again)")
    try:
        return read_header(path)
    except FileNotFoundError:
        raise RunError(f"{path}: there is no such file") from None
    except HeaderError as error:
        raise RunError(f"{path}: not a readable safetensors file ({error})") from None
