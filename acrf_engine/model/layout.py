"""A checkpoint on disk: the diffusers layout, what its configs say, and its tensors' shapes. Loads no torch."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from acrf_engine.config import model_folder
from acrf_engine.run.tensor_header import Header, HeaderError, read_header

SAMPLE_BYTES = 1 << 20
FULL_HASH_BYTES = 64 << 20


class ModelError(Exception):
    """The model cannot be used; the message names the folder or file and what is expected."""


class Checkpoint:
    """A checkpoint in diffusers layout, nothing loaded yet.

    Args:
        model: `tiny`, a folder, or a hub id (downloaded by huggingface_hub, safetensors only).

    Raises:
        ModelError: where a part is missing.
    """

    PARTS = ("transformer", "vae", "text_encoder", "tokenizer", "scheduler")

    def __init__(self, model: str) -> None:
        self.name = model
        self.folder = model_folder(model) or _download(model)
        missing = [part for part in self.PARTS if not (self.folder / part).is_dir()]
        if missing:
            raise ModelError(
                f"{self.folder}: model: {', '.join(missing)} missing (expected the diffusers layout: "
                f"model_index.json, {', '.join(f'{part}/' for part in self.PARTS)})"
            )

    def part_config(self, part: str) -> dict[str, Any]:
        name = "scheduler_config.json" if part == "scheduler" else "config.json"
        path = self.folder / part / name
        try:
            loaded = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ModelError(f"{path}: model: cannot be read ({error})") from None
        return dict(loaded)

    def native_resolution(self) -> int:
        """Side in pixels that the model was made for: what its VAE names as sample size, at most 1024."""
        side = int(self.part_config("vae").get("sample_size", 1024))
        return min(max(side, 32), 1024) // 16 * 16

    def transformer_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every tensor of the transformer, read from the headers of its safetensors files."""
        return {
            name: entry.shape
            for header in transformer_files(self.folder).values()
            for name, entry in header.tensors.items()
        }

    def encoders_fingerprint(self) -> str:
        """A hash of what latents and caption embeddings depend on: VAE, text encoder and tokenizer."""
        digest = hashlib.sha256()
        for part in ("vae", "text_encoder", "tokenizer"):
            for path in sorted((self.folder / part).rglob("*")):
                if path.is_file():
                    digest.update(f"{part}/{path.name}:".encode())
                    digest.update(hash_file(path))
        return digest.hexdigest()


def hash_file(path: Path) -> bytes:
    """sha256 of a file; of one above 64 MiB its size and evenly spread samples, since gigabytes would take minutes."""
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        if size <= FULL_HASH_BYTES:
            digest.update(file.read())
        else:
            for index in range(32):
                file.seek((size - SAMPLE_BYTES) * index // 31)
                digest.update(file.read(SAMPLE_BYTES))
    return digest.digest()


def transformer_files(folder: Path) -> dict[Path, Header]:
    """The header of each of the transformer's safetensors files. Raises ModelError."""
    files = sorted((folder / "transformer").glob("*.safetensors"))
    if not files:
        raise ModelError(f"{folder / 'transformer'}: model: no .safetensors file in this folder")
    headers = {}
    for path in files:
        try:
            headers[path] = read_header(path)
        except (HeaderError, OSError) as error:
            raise ModelError(f"{path}: model: not a readable safetensors file ({error})") from None
    return headers


def _download(model: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(
            snapshot_download(
                model,
                allow_patterns=["*.json", "*.txt", "*.jinja", "*.safetensors", "*/merges.txt"],
                ignore_patterns=["*.bin", "*.pt", "*.ckpt"],
            )
        )
    except Exception as error:
        reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
        raise ModelError(f"{model}: model: cannot be fetched from the hub ({reason}); give a local folder") from error
