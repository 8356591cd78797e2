"""LoRA in the transformer (paper, section 5): which modules, injecting, its weights, turning it on and off."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor, nn

from acrf_engine.config import RunConfig
from acrf_engine.lora_config import LoraConfig
from acrf_engine.model.errors import LoraError as LoraError
from acrf_engine.model.targets import choose
from acrf_engine.model.targets import refuse_forbidden as refuse_forbidden
from acrf_engine.randomness import seed_for

ADAPTER = "default"
TRAINING_ADAPTER = "training_adapter"
PARAMETER = re.compile(rf"(.+)\.(lora_A|lora_B|lora_magnitude_vector)\.{ADAPTER}\.weight")
PARTS = {
    "lora_A": "lora_A.weight",
    "lora_B": "lora_B.weight",
    "lora_magnitude_vector": "lora_magnitude_vector",
}


def target_modules(
    transformer: nn.Module,
    targets: Literal["std", "ext"] | list[str],
    refiners: bool = False,
    blocks: str = "all",
) -> list[str]:
    """Names of the modules to train, in the model's order. Raises TargetsError."""
    linears = [name for name, module in transformer.named_modules() if isinstance(module, nn.Linear)]
    return choose(linears, LoraConfig(targets=targets, refiners=refiners, blocks=blocks))


def scaling(rank: int, alpha: float, use_rslora: bool) -> float:
    """What the product of the two factors is multiplied by: alpha / rank, or alpha / sqrt(rank)."""
    return alpha / math.sqrt(rank) if use_rslora else alpha / rank


def inject(
    transformer: nn.Module,
    names: list[str],
    rank: int,
    alpha: float,
    seed: int,
    *,
    use_rslora: bool = False,
    use_dora: bool = False,
    dropout: float = 0.0,
) -> list[nn.Parameter]:
    """Add LoRA to `names` with fp32 weights, everything else frozen. Returns the trainable parameters, in order."""
    from peft import LoraConfig as PeftConfig
    from peft import inject_adapter_in_model

    refuse_forbidden(names)
    config = PeftConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=names,
        init_lora_weights=True,
        use_rslora=use_rslora,
        use_dora=use_dora,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(config, transformer, ADAPTER)
    trainable = []
    for name, parameter in transformer.named_parameters():
        parameter.requires_grad_(".lora_" in name)
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
            trainable.append(parameter)
    expected = (3 if use_dora else 2) * len(names)
    if len(trainable) != expected:
        raise LoraError(f"{len(trainable)} LoRA tensors were injected, expected {expected}")
    reset_magnitudes(transformer)
    return trainable


@torch.no_grad()
def reset_magnitudes(transformer: nn.Module) -> None:
    """Let every DoRA magnitude be the row length of weight + update, in fp32, so that DoRA itself changes nothing yet.

    peft takes them in the base's dtype: in bf16 that alone would change the model by 0.4 %.
    """
    from peft.utils.integrations import dequantize_module_weight

    layers: Iterator[Any] = transformer.modules()
    for module in layers:
        if getattr(module, "lora_magnitude_vector", None):
            weight = dequantize_module_weight(module.get_base_layer()).float()
            update = module.lora_B[ADAPTER].weight @ module.lora_A[ADAPTER].weight
            weight = weight + module.scaling[ADAPTER] * update
            module.lora_magnitude_vector[ADAPTER].weight.copy_(torch.linalg.norm(weight, dim=1))


def weights(transformer: nn.Module) -> dict[str, Tensor]:
    """The LoRA's tensors by module, fp32, in the order of the trainable parameters, the scale not folded in.

    `<module>.lora_A.weight` and `.lora_B.weight`, with DoRA `<module>.lora_magnitude_vector` too.
    """
    return {
        f"{found[1]}.{PARTS[found[2]]}": parameter.detach()
        for name, parameter in transformer.named_parameters()
        if (found := PARAMETER.fullmatch(name))
    }


def require_finite(tensors: dict[str, Tensor]) -> None:
    """Raises LoraError, naming the first, where a tensor holds NaN or infinity."""
    bad = [name for name, value in tensors.items() if not torch.isfinite(value).all()]
    if bad:
        raise LoraError(f"{len(bad)} LoRA tensors are not finite, first {bad[0]} (nothing is saved)")


def seed_dropout(config: RunConfig, micro_step: int, rank: int = 0) -> None:
    """Let the dropout of a micro-batch depend on its number alone, so that a resumed run drops the same inputs.

    Of several processes each drops others.
    """
    if config.lora.dropout:
        torch.manual_seed(seed_for(config.seed, "lora-dropout", micro_step, *((rank,) if rank else ())))


def load_weights(transformer: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Put `weights()` of the same shape back, bit for bit. Raises LoraError where names or shapes differ."""
    current = weights(transformer)
    if current.keys() != tensors.keys():
        raise LoraError("the LoRA's modules differ from the model's (another rank, target set or model)")
    for name, value in tensors.items():
        if current[name].shape != value.shape:
            raise LoraError(f"{name}: shape {tuple(value.shape)}, expected {tuple(current[name].shape)}")
        current[name].copy_(value)


def set_active(transformer: nn.Module, active: bool, *, training: bool = False) -> None:
    """Turn the LoRA on or off without touching its weights; `training`: a training adapter too, if there is one."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for module in transformer.modules():
        if isinstance(module, BaseTunerLayer):
            module.enable_adapters(active)
            if active:
                module.set_adapter([ADAPTER, TRAINING_ADAPTER] if training else [ADAPTER])
    for name, parameter in transformer.named_parameters():
        if f".{TRAINING_ADAPTER}." in name:
            parameter.requires_grad_(False)
