"""The base in RAM, each large layer on the card only while it computes: diffusers' group offload at leaf level.

Put on before the LoRA is injected, it moves the frozen layers alone: LoRA weights and their gradients stay on the card,
and so do the small layers, whose weights backward reads again. The large ones need every block recomputed in backward:
a graph that kept them would keep them all.
"""

from __future__ import annotations

import torch
from torch import nn

from acrf_engine.model.kept import is_quantised


def offload_base(transformer: nn.Module, device: torch.device) -> None:
    """Let the large layers of the model, which is on the CPU, come to `device` one by one; the rest moves there."""
    from diffusers.hooks import apply_group_offloading

    waiting: set[int] = set()
    for name, module in transformer.named_modules():
        if isinstance(module, nn.Linear) and is_quantised(f"{name}.weight", tuple(module.weight.shape)):
            apply_group_offloading(
                module,
                onload_device=device,
                offload_device=torch.device("cpu"),
                offload_type="leaf_level",
                low_cpu_mem_usage=True,
            )
            waiting.update(id(parameter) for parameter in module.parameters())
    bring([parameter for parameter in transformer.parameters() if id(parameter) not in waiting], device)


def bring(parameters: list[nn.Parameter], device: torch.device) -> None:
    """Move weights to the card: what is not offloaded, and the LoRA, which was made beside offloaded layers."""
    for parameter in parameters:
        parameter.data = parameter.data.to(device)
