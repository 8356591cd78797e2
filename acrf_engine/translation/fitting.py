"""What makes a model fit: how its weights are stored, compiling, and the adapter that undoes a distillation."""

from __future__ import annotations

from pathlib import Path

from acrf_engine.translation.ledger import Ledger

STORED = {
    "fp8": "fp8", "float8": "fp8", "qfloat8": "fp8",
    "int8": "int8", "qint8": "int8", "uint8": "int8", "intw8a8": "int8",
    "nf4": "nf4", "nfloat4": "nf4",
}  # fmt: skip
"""Their names of a storage, without `_`, and ours."""
AS_IS = ("bfloat16", "float32", "float16", "none", "default")
ADAPTER = (
    "a LoRA file on this machine goes into base.training_adapter; AC-RF can do without, since it trains only where "
    "Turbo samples"
)


def stored(ledger: Ledger, ours: str, name: str, *keys: str) -> None:
    """Take over how weights are stored, as our key `ours`; `keys` say it together."""
    plain = name.lower().replace("_", "")
    if plain in AS_IS:
        for key in keys:
            ledger.leave(key, f"not quantised in their config, nor here ({ours})")
    elif plain in STORED:
        ledger.put(ours, STORED[plain], *keys)
    else:
        for key in keys:
            ledger.leave(key, f"not among the ways to store weights here ({ours})")


def compiled(ledger: Ledger, key: str) -> None:
    """Take over torch.compile where it is on; off is so here anyway."""
    if ledger.peek(key) is True:
        ledger.put("memory.compile", True, key)


def adapter(ledger: Ledger, key: str, folder: Path) -> None:
    """Take over a training adapter that is a file here, seen from their config's `folder`; else say where it goes."""
    name = ledger.peek(key)
    if isinstance(name, str) and name.endswith(".safetensors") and (folder / name).is_file():
        ledger.put("base.training_adapter", str(folder / name), key)
    else:
        ledger.leave(key, ADAPTER)
