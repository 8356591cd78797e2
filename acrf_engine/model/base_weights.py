"""Single weights of a checkpoint's transformer, read from its files without loading the model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path

from safetensors import safe_open
from torch import Tensor

from acrf_engine.model.errors import LoraError
from acrf_engine.model.layout import Checkpoint, transformer_files


class BaseWeights(Mapping[str, Tensor]):
    """Weight [out, in] by module name, such as layers.0.attention.to_q, read when asked for."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint

    @cached_property
    def _places(self) -> dict[str, Path]:
        return {
            name.removesuffix(".weight"): path
            for path, header in transformer_files(self.checkpoint.folder).items()
            for name, entry in header.tensors.items()
            if name.endswith(".weight") and len(entry.shape) == 2
        }

    def __getitem__(self, module: str) -> Tensor:
        path = self._places.get(module)
        if path is None:
            raise LoraError(f"{module}: the model {self.checkpoint.name} has no such module")
        with safe_open(path, framework="pt") as file:
            return file.get_tensor(f"{module}.weight")

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)
