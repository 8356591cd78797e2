"""The config keys of a run on several GPUs, of one box or of many."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from acrf_engine.config_group import Group


class DistributedConfig(Group):
    """Processes that train one LoRA together, by accelerate; see docs/distributed.md."""

    num_processes: int = Field(1, ge=1, le=1024)
    """Processes, one a GPU; each trains on `batch_size` pictures. Under `accelerate launch` it is the launcher's."""
    strategy: Literal["ddp", "fsdp2"] = "ddp"
    """`ddp`: the whole model on every GPU; `fsdp2`: its blocks are shared out, and gathered one by one when used."""
    backend: Literal["auto", "nccl", "gloo"] = "auto"
    """What carries the gradients: `auto` is nccl between GPUs and gloo on the CPU."""
    timeout: int = Field(600, ge=5, le=86_400)
    """Seconds after which a process that the others wait for is given up, and the run with it."""

    @model_validator(mode="after")
    def _several_processes(self) -> Self:
        if self.num_processes > 1:
            return self
        given = [
            name for name in ("backend", "timeout") if getattr(self, name) != type(self).model_fields[name].default
        ]
        if given:
            raise ValueError(f"{given[0]} has no effect with num_processes 1 (remove it, or set num_processes)")
        return self
