"""LoRA on the transformer (paper, section 5): which modules, injecting, saving in the format that loads everywhere."""

from __future__ import annotations

import contextlib
import json
import os
import re
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

ADAPTER = "default"
ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
FEED_FORWARD = ("w1", "w2", "w3")
FORBIDDEN = {
    "norm": "normalisation layers (norm): training them breaks the distribution of activations",
    "adaLN": "modulation (adaLN): training it breaks the distribution of activations",
    "embedder": "embedders: training them breaks the space of inputs",
    "final_layer": "the final layer: training it breaks the distribution of outputs",
}
"""Section 5.4: what must stay frozen, and why."""


class LoraError(Exception):
    """A LoRA cannot be made, saved or read; the message says what and why."""


def target_modules(transformer: nn.Module, targets: Literal["std", "ext"], refiners: bool = False) -> list[str]:
    """Names of the Linear modules to train (section 5.3), in the model's order.

    `std` is q, k, v and out of every attention; `ext` adds the feed-forward layers. Blocks are `layers.N`, and the
    refiners where asked. Raises LoraError where the model has none of them.
    """
    blocks = r"(layers|noise_refiner|context_refiner)\.\d+\." if refiners else r"layers\.\d+\."
    attention = "|".join(re.escape(name) for name in ATTENTION)
    kinds = [rf"attention\.({attention})"]
    if targets == "ext":
        kinds.append(rf"feed_forward\.({'|'.join(FEED_FORWARD)})")
    pattern = re.compile(f"{blocks}({'|'.join(kinds)})")
    names = [
        name
        for name, module in transformer.named_modules()
        if pattern.fullmatch(name.replace(".base_layer", "")) and isinstance(module, nn.Linear)
    ]
    if not names:
        raise LoraError("this transformer has no module to train (layers.N.attention.to_q and so on)")
    refuse_forbidden(names)
    return names


def refuse_forbidden(names: list[str]) -> None:
    """Raises LoraError, saying why, if any module of section 5.4 is among `names`."""
    for name in names:
        for mark, reason in FORBIDDEN.items():
            if any(mark.lower() in part.lower() for part in name.split(".")):
                raise LoraError(f"{name} cannot be trained: {reason} (paper, section 5.4)")


def inject(transformer: nn.Module, names: list[str], rank: int, alpha: float, seed: int) -> list[nn.Parameter]:
    """Add LoRA to `names` with fp32 weights, everything else frozen. Returns the trainable parameters, in order."""
    from peft import LoraConfig, inject_adapter_in_model

    refuse_forbidden(names)
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=names, init_lora_weights=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(config, transformer, ADAPTER)
    trainable = []
    for name, parameter in transformer.named_parameters():
        parameter.requires_grad_("lora_" in name)
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
            trainable.append(parameter)
    expected = 2 * len(names)
    if len(trainable) != expected:
        raise LoraError(f"{len(trainable)} LoRA tensors were injected, expected {expected}")
    return trainable


def weights(transformer: nn.Module) -> dict[str, Tensor]:
    """The LoRA's tensors by module: `<module>.lora_A.weight` and `.lora_B.weight`, fp32, alpha not folded in."""
    suffix = re.compile(rf"\.lora_([AB])\.{ADAPTER}\.weight$")
    return {
        suffix.sub(r".lora_\1.weight", name): parameter.detach()
        for name, parameter in transformer.named_parameters()
        if suffix.search(name)
    }


def load_weights(transformer: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Put `weights()` of the same shape back, bit for bit. Raises LoraError where names or shapes differ."""
    current = weights(transformer)
    if current.keys() != tensors.keys():
        raise LoraError("the LoRA's modules differ from the model's (another rank, target set or model)")
    for name, value in tensors.items():
        if current[name].shape != value.shape:
            raise LoraError(f"{name}: shape {tuple(value.shape)}, expected {tuple(current[name].shape)}")
        current[name].copy_(value)


def set_active(transformer: nn.Module, active: bool) -> None:
    """Turn the LoRA on or off without touching its weights."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for module in transformer.modules():
        if isinstance(module, BaseTunerLayer):
            module.enable_adapters(active)
            if active:
                module.set_adapter([ADAPTER])


def to_diffusers(tensors: dict[str, Tensor], alpha: float) -> dict[str, Tensor]:
    """`transformer.<module>.lora_A/B.weight`, alpha / rank folded into B: loads in diffusers at the right strength."""
    folded = {}
    for name, value in tensors.items():
        value = value.detach().float().cpu()
        if name.endswith(".lora_B.weight"):
            value = value * (alpha / value.shape[1])
        folded[f"transformer.{name}"] = value.contiguous()
    return folded


def save_lora(path: Path, tensors: dict[str, Tensor], alpha: float, metadata: dict[str, str]) -> int:
    """Write a LoRA file (diffusers format), fsync, read it back and compare. Follows umask, replaces by rename.

    Returns:
        The number of modules that the file holds.

    Raises:
        LoraError: where what was read back differs, or is not finite: that is a failed save.
    """
    return write_verified(path, to_diffusers(tensors, alpha), metadata)


def require_finite(tensors: dict[str, Tensor]) -> None:
    """Raises LoraError, naming the first, where a tensor holds NaN or infinity."""
    bad = [name for name, value in tensors.items() if not torch.isfinite(value).all()]
    if bad:
        raise LoraError(f"{len(bad)} LoRA tensors are not finite, first {bad[0]} (nothing is saved)")


def write_verified(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> int:
    """`save_lora` for tensors that are already in the format of the file."""
    require_finite(tensors)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(save(tensors, metadata={"format": "pt", **metadata}))
            file.flush()
            os.fsync(file.fileno())
        count = _verify(temporary, tensors)
        os.replace(temporary, path)
    except OSError as error:
        raise LoraError(f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    return count


def _verify(path: Path, expected: dict[str, Tensor]) -> int:
    with safe_open(path, framework="pt") as file:
        names = set(file.keys())
        if names != set(expected) or not all(torch.equal(file.get_tensor(name), expected[name]) for name in names):
            raise LoraError(f"{path}: reads back differently from what was written (a failed save; is the disk sound?)")
    return len({re.split(r"\.(?:lora_|alpha$)", name)[0] for name in names})


def read_lora(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file. Raises LoraError naming the file."""
    try:
        with safe_open(path, framework="pt") as file:
            names = list(file.keys())
            return {name: file.get_tensor(name) for name in names}, dict(file.metadata() or {})
    except FileNotFoundError:
        raise LoraError(f"{path}: there is no such file") from None
    except (SafetensorError, OSError) as error:
        raise LoraError(f"{path}: not a readable safetensors file ({error})") from None


def metadata_for(
    *, name: str, base_model: str, rank: int, alpha: float, targets: str, step: int, trigger: str, config_hash: str
) -> dict[str, str]:
    """What users' tools read: modelspec and `ss_*` keys. Alpha is folded in, so the alpha of the file is its rank."""
    return {
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": "z-image-turbo/lora",
        "modelspec.implementation": "diffusers",
        "modelspec.title": name,
        "modelspec.trigger_phrase": trigger,
        "ss_base_model_version": "z-image-turbo",
        "ss_sd_model_name": base_model,
        "ss_network_module": "peft",
        "ss_network_dim": str(rank),
        "ss_network_alpha": str(rank),
        "ss_network_args": json.dumps({"targets": targets, "trained_alpha": alpha}),
        "ss_steps": str(step),
        "ss_output_name": name,
        "acrf_config_hash": config_hash,
    }
