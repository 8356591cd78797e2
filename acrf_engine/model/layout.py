"""A checkpoint on disk: the diffusers layout, what its configs say, and its tensors' shapes. Loads no torch."""

from __future__ import annotations

import hashlib
import json
import textwrap
from pathlib import Path
from typing import Any

from acrf_engine.config import RunConfig, model_folder
from acrf_engine.model.single_file import as_in_diffusers
from acrf_engine.model.targets import LAYER
from acrf_engine.run.tensor_header import Header, HeaderError, read_header

SAMPLE_BYTES = 1 << 20
FULL_HASH_BYTES = 64 << 20


class ModelError(Exception):
    """The model cannot be used; the message names the folder or file and what is expected."""


WEIGHTS = "*.safetensors"
LAYOUT = {
    "transformer": ("config.json", WEIGHTS),
    "vae": ("config.json", WEIGHTS),
    "text_encoder": ("config.json", WEIGHTS),
    "tokenizer": ("tokenizer_config.json",),
    "scheduler": ("scheduler_config.json",),
}
"""The diffusers layout: what each part's folder must hold."""


class Checkpoint:
    """A checkpoint in diffusers layout, nothing loaded yet.

    Args:
        model: `tiny`, a folder, or a hub id (downloaded by huggingface_hub, safetensors only).
        transformer: a .safetensors file in the place of the weights in transformer/; its config.json is still read.

    Raises:
        ModelError: where a part is missing; all that is missing is named at once.
    """

    def __init__(self, model: str, transformer: str = "") -> None:
        self.name = model
        self.folder = model_folder(model) or _download(model)
        self.single_file = Path(transformer) if transformer else None
        if missing := self._missing():
            expected = ", ".join(f"{part}/ ({', '.join(files)})" for part, files in LAYOUT.items())
            raise ModelError(
                f"{self.folder}: model: {', '.join(missing)} missing (expected the diffusers layout: model_index.json, "
                f"{expected})"
            )

    @classmethod
    def of(cls, config: RunConfig) -> Checkpoint:
        """What a run trains on."""
        return cls(config.model, config.base.transformer)

    def _missing(self) -> list[str]:
        missing = []
        for part, files in LAYOUT.items():
            place = self.folder / part
            if not place.is_dir():
                missing.append(f"{part}/")
                continue
            wanted = [name for name in files if not (part == "transformer" and self.single_file and name == WEIGHTS)]
            missing += [f"{part}/{name}" for name in wanted if not any(place.glob(name))]
            if WEIGHTS in wanted:
                missing += [f"{part}/{name}" for name in _shards(place) if not (place / name).is_file()]
        return missing

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
        headers = [read_named(self.single_file)] if self.single_file else transformer_files(self.folder).values()
        shapes = {name: entry.shape for header in headers for name, entry in header.tensors.items()}
        if self.single_file is None:
            return shapes
        found = as_in_diffusers(shapes)
        if not any(map(LAYER.match, found)):
            raise ModelError(f"{self.single_file}: base.transformer: no transformer of Z-Image (no layers.N in it)")
        return found

    def part_shapes(self, part: str) -> dict[str, tuple[int, ...]]:
        """Shape of every tensor of VAE or text encoder, by the headers of its files."""
        return {
            name: entry.shape
            for path in sorted((self.folder / part).glob(WEIGHTS))
            for name, entry in read_named(path).tensors.items()
        }

    def transformer_fingerprint(self) -> str:
        """A hash of the frozen weights and their config."""
        digest = hashlib.sha256()
        folder = self.folder / "transformer"
        weights = [self.single_file] if self.single_file else sorted(folder.glob(WEIGHTS))
        for path in [folder / "config.json", *weights]:
            digest.update(hash_file(path))
        return digest.hexdigest()

    def encoders_fingerprint(self, text_encoder: str = "none") -> str:
        """A hash of what latents and caption embeddings depend on: VAE, tokenizer, text encoder and its storage."""
        digest = hashlib.sha256(b"" if text_encoder == "none" else text_encoder.encode())
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
    return {path: read_named(path) for path in files}


def read_named(path: Path) -> Header:
    """The header of a safetensors file. Raises ModelError naming the file."""
    try:
        return read_header(path)
    except (HeaderError, OSError) as error:
        raise ModelError(f"{path}: model: not a readable safetensors file ({error})") from None


def _shards(folder: Path) -> list[str]:
    """The weight files that a part's index names; none where it has no index."""
    names: set[str] = set()
    for index in folder.glob("*.safetensors.index.json"):
        try:
            names.update(map(str, json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise ModelError(f"{index}: model: cannot be read ({error})") from None
    return sorted(names)


def _download(model: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.constants import HF_HUB_CACHE

    try:
        return Path(
            snapshot_download(
                model,
                allow_patterns=["*.json", "*.txt", "*.jinja", "*.safetensors", "*/merges.txt"],
                ignore_patterns=["*.bin", "*.pt", "*.ckpt"],
            )
        )
    except Exception as error:
        said = str(error).strip().splitlines()
        # Their message goes on about their own switches: its first sentence is the reason.
        reason = textwrap.shorten(said[0].split(". ")[0], 200, placeholder=" ...") if said else type(error).__name__
        raise ModelError(
            f"{model}: model: is not whole in the cache {HF_HUB_CACHE}, and cannot be fetched from the hub ({reason}); "
            f"download it where there is a network (`hf download {model}`), or give a local folder"
        ) from error
