"""The table of docs/memory.md: what `acrf-tui check` estimates for a folder of Z-Image-Turbo's sizes.

python docs/memory_table.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from acrf_engine.check import check
from acrf_engine.config import build_config
from benchmarks.full_size import full_size

WAYS: dict[str, dict[str, Any]] = {
    "bf16, all blocks kept": {"gradient_checkpointing": "off"},
    "bf16, every other block recomputed": {"gradient_checkpointing": "every other"},
    "bf16 (the default)": {},
    "fp8": {"quantization": "fp8"},
    "int8": {"quantization": "int8", "text_encoder": "int8"},
    "nf4": {"quantization": "nf4", "text_encoder": "nf4"},
    "offload": {"offload": True, "text_encoder": "nf4"},
}
SIZES = ((512, 1), (1024, 1), (1024, 4))
CARD = 80.0
"""A card on which all of them fit, so that the estimate is one for CUDA."""


def main() -> None:
    with tempfile.TemporaryDirectory() as place:
        model, photos = Path(place) / "Z-Image-Turbo", Path(place) / "photos"
        full_size(model)
        _photo(photos)
        heads = [f"{side} px, batch {batch}" for side, batch in SIZES]
        print("| base weights | caching | " + " | ".join(heads) + " | preview, 1024 px | RAM |")
        print("|---|---:|" + "---:|" * (len(SIZES) + 2))
        for name, memory in WAYS.items():
            reports = [_look(model, photos, memory, side, batch) for side, batch in SIZES]
            phases = [report.memory_phases for report in reports]
            cells = [phases[1]["caching"], *(one["training"] for one in phases), phases[1]["preview"]]
            texts = [f"{value / 2**30:.1f}" for value in cells]
            texts.append(f"{reports[0].memory_ram / 2**30:.1f}" if reports[0].memory_ram else "")
            print(f"| {name} | {' | '.join(texts)} |")


def _look(model: Path, photos: Path, memory: dict[str, Any], side: int, batch: int) -> Any:
    values = {"model": str(model), "dataset": str(photos), "resolution": side, "batch_size": batch}
    return check(build_config({**values, "memory": {**memory, "vram": CARD}}), "table", photos)


def _photo(folder: Path) -> None:
    """One picture large enough for every size, with a caption of usual length."""
    from PIL import Image

    folder.mkdir()
    Image.new("RGB", (1024, 1024)).save(folder / "0.png")
    (folder / "0.txt").write_text("a photo of ohwx person in a red coat, standing in a street at night", "utf-8")


if __name__ == "__main__":
    main()
