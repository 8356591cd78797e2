"""What they train on beside the model's folder, and in how many bits: single files, training adapters, quantisation."""

from __future__ import annotations

from pathlib import Path, PurePath

from acrf_engine.translation.ledger import Z_IMAGE, Ledger

BASES = {
    "fp8": ("qfloat8", "float8", "fp8", "float8e4m3fn"),
    "int8": ("qint8", "int8", "uint8", "intw8a8", "intw8a16"),
    "nf4": ("nf4", "nfloat4", "qint4", "int4", "uint4", "float4"),
}
"""Ours, and what they call it, in lower case without _ - and .; of 4 bits ours is NF4."""
TEXT_ENCODERS = {"int8": (*BASES["int8"], *BASES["fp8"]), "nf4": BASES["nf4"]}
"""A text encoder in 8-bit floats is one in 8-bit integers here."""
NOT_HERE = "not among the ways to store weights here (memory.quantization)"


def model(ledger: Ledger, key: str) -> None:
    """A folder or hub id of Z-Image, or one .safetensors file of its transformer; another model is listed."""
    name = str(ledger.peek(key) or "")
    kind = PurePath(name).suffix
    if not name:
        ledger.leave(key, "empty")
    elif kind in (".ckpt", ".pt", ".pth", ".bin", ".gguf", ".sft"):
        ledger.leave(key, f"{kind} files are not read; this trainer takes a folder in diffusers layout, or a hub id")
    elif not _is_z_image(name):
        ledger.leave(key, f"not Z-Image by its name; this trainer trains Z-Image ({Z_IMAGE} is put in)")
    elif kind == ".safetensors":
        if ledger.put("base.transformer", name, key):
            ledger.notes.append(
                "base.transformer has the transformer alone: `model` gives VAE, text encoder and the rest"
            )
    else:
        ledger.put("model", name, key)


def training_adapter(ledger: Ledger, key: str, path: Path) -> None:
    """Their assistant LoRA, where it is a file that is here."""
    name = str(ledger.peek(key) or "")
    if PurePath(name).is_absolute() or (path.parent / name).is_file():
        ledger.put("base.training_adapter", name, key)
    else:
        ledger.leave(key, "from the hub: download it, and name the file in base.training_adapter")


def quantised_base(ledger: Ledger, kind: str, *keys: str) -> None:
    """How the base is stored, by their name for it; nothing is said of weights in 16 or 32 bits."""
    _stored(ledger, "memory.quantization", BASES, kind, keys)


def quantised_text_encoder(ledger: Ledger, kind: str, *keys: str) -> None:
    """How the text encoder is stored while captions are cached."""
    _stored(ledger, "memory.text_encoder", TEXT_ENCODERS, kind, keys)


def _stored(ledger: Ledger, ours: str, known: dict[str, tuple[str, ...]], kind: str, keys: tuple[str, ...]) -> None:
    plain = kind.lower().replace("_", "").replace("-", "").replace(".", "")
    found = next((name for name, theirs in known.items() if plain in theirs), "")
    if found:
        ledger.put(ours, found, *keys)
        return
    for key in keys:
        ledger.leave(key, NOT_HERE)


def _is_z_image(name: str) -> bool:
    return "z-image" in name.lower().replace("_", "-").replace("zimage", "z-image")
