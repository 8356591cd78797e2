"""Writing a LoRA file in a program's format; each is loaded back and compared in effect before it counts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from acrf_engine.model import lora_metadata, tensor_file
from acrf_engine.model.adapter import Lora, is_dora, require_same_effect
from acrf_engine.model.base_weights import BaseWeights
from acrf_engine.model.errors import LoraError
from acrf_engine.model.formats import DORA_NORM, PEFT_SETTINGS, Format, from_file, to_comfyui, to_diffusers, to_kohya
from acrf_engine.model.layout import Checkpoint

RAW_PEFT = "base_model.model."


def read(path: Path, base: Mapping[str, Tensor] | None = None) -> tuple[Lora, dict[str, str]]:
    """The LoRA in a file of any known format, and the file's metadata. Raises LoraError naming the file."""
    tensors, metadata = tensor_file.read(path)
    beside = _peft_settings_beside(path) if any(name.startswith(RAW_PEFT) for name in tensors) else {}
    try:
        return from_file(tensors, {**beside, **metadata}, base), metadata
    except LoraError as error:
        raise LoraError(f"{path}: {error}") from None


def save(
    path: Path,
    lora: Lora,
    metadata: Mapping[str, str],
    kind: Format = "diffusers",
    base: Mapping[str, Tensor] | None = None,
) -> int:
    """Write `lora` as `kind`, and load it back. `base` is needed for a DoRA in ComfyUI format.

    Returns:
        The number of modules that the file holds.

    Raises:
        LoraError: where weights are not finite, the format cannot hold them, or what was read back has another effect.
    """
    require_finite(lora)
    said = lora_metadata.of_weights(lora, metadata)
    match kind:
        case "diffusers":
            tensors = to_diffusers(lora)
        case "comfyui":
            if is_dora(lora):
                said[DORA_NORM] = "base"
                if base is None:
                    raise LoraError("a DoRA in ComfyUI format needs the base model's weights (give --model)")
            tensors = to_comfyui(lora, base or {})
        case "kohya":
            tensors = to_kohya(lora)

    def check(written: dict[str, Tensor]) -> None:
        require_same_effect(from_file(written, said, base), lora)

    tensor_file.write(path, tensors, tensor_file.with_hashes(tensors, said), check)
    return len(lora)


def export(source: Path, kind: Format, target: Path, model: str = "") -> int:
    """Write the LoRA file `source`, of any known format, as `kind`; returns the number of modules.

    What diffusers itself makes of the new file is compared too. `model` is the base, for a DoRA in ComfyUI format
    (default: what the metadata names). Raises LoraError.
    """
    lora, metadata = read(source)
    if target.exists() and target.samefile(source):
        raise LoraError(f"{target}: is the file itself (choose another --out)")
    base = None
    if kind == "comfyui" and is_dora(lora):
        model = model or metadata.get("ss_sd_model_name", "")
        base = BaseWeights(Checkpoint(model)) if model else None
    try:
        count = save(target, lora, metadata, kind, base)
    except LoraError as error:
        raise error if str(target) in str(error) else LoraError(f"{source}: {error}") from error
    if base is None:
        require_diffusers_reads(target, lora)
    return count


def _peft_settings_beside(path: Path) -> dict[str, str]:
    """What peft writes of a LoRA beside its file, as diffusers writes it into the file."""
    try:
        settings = json.loads(path.with_name("adapter_config.json").read_text(encoding="utf-8"))
        return {PEFT_SETTINGS: json.dumps({f"transformer.{key}": value for key, value in settings.items()})}
    except (OSError, ValueError, AttributeError):
        return {}


def require_diffusers_reads(path: Path, lora: Lora) -> None:
    """Raises LoraError, and removes the file, where diffusers' own reader would load anything but `lora`."""
    from diffusers.loaders.lora_pipeline import ZImageLoraLoaderMixin

    try:
        state = ZImageLoraLoaderMixin.lora_state_dict(str(path))
        require_same_effect(from_file(state, {}), lora)
    except (LoraError, ValueError, KeyError, RuntimeError) as error:
        path.unlink(missing_ok=True)
        raise LoraError(f"{path}: a failed save: diffusers does not load it as it is ({error})") from error


def require_finite(lora: Lora) -> None:
    """Raises LoraError, naming the first module, where a weight is NaN or infinite."""
    bad = [
        module
        for module, factors in lora.items()
        if not all(
            torch.isfinite(part).all()
            for part in (factors.down_RI, factors.up_OR, factors.magnitude_O)
            if part is not None
        )
    ]
    if bad:
        raise LoraError(f"the weights of {len(bad)} modules are not finite, first {bad[0]} (nothing is saved)")
