"""How often a piece of code waits for the device, told without a device.

On a GPU the CPU queues work and runs ahead of it; it stands still where Python asks for a number, or copies from
ordinary memory. On a CPU nothing waits, but the same calls are made. So tensors that would be on the device are
followed through every call, and a call that would have to know their values is counted, with the file that made it.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils.weak import WeakTensorKeyDictionary

READS = frozenset(
    {"item", "tolist", "cpu", "numpy", "nonzero", "argwhere", "masked_select", "unique", "equal", "allclose",
     "is_nonzero", "repeat_interleave", "__bool__", "__float__", "__int__", "__index__", "__array__", "__contains__"}
)  # fmt: skip
INDEXING = frozenset({"__getitem__", "__setitem__"})
ROOT = Path(__file__).parent.parent


class Waits(TorchFunctionMode):
    """Counts waits by where they are: `acrf_engine/training/measured.py tolist`, or the library's file.

    Args:
        on_device: tensors that would be on the device from the start: weights, and what was moved before.
    """

    def __init__(self, on_device: Iterable[Tensor]) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()
        self._on_device = WeakTensorKeyDictionary()
        for tensor in on_device:
            self._on_device[tensor] = True

    @property
    def ours(self) -> Counter[str]:
        """Those in this repository's own code; the others are in the model's or the optimizer's."""
        return Counter({where: count for where, count in self.found.items() if where.startswith("acrf_engine/")})

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        given = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        there = any(tensor in self._on_device for tensor in given)
        moved = name == "to" and not there and self._names_a_device(args, kwargs)
        if (there and self._reads(name, args)) or (moved and not kwargs.get("non_blocking", False)):
            self.found[f"{_caller()} {name}"] += 1
        result = func(*args, **kwargs)
        if moved:  # on a CPU the copy is the tensor itself, which stays where it is
            result = pytree.tree_map_only(Tensor, lambda tensor: tensor.view_as(tensor), result)
        if there or moved or kwargs.get("device") is not None:  # the last: made there
            for tensor in pytree.tree_leaves(result):
                if isinstance(tensor, Tensor):
                    self._on_device[tensor] = True
        return result

    def _reads(self, name: str, args: Any) -> bool:
        """Whether this call needs the values of a tensor that is on the device."""
        if name in READS:
            return True
        return name in INDEXING and any(
            isinstance(leaf, Tensor) and leaf.dtype == torch.bool and leaf in self._on_device
            for leaf in pytree.tree_leaves(args[1])
        )

    @staticmethod
    def _names_a_device(args: Any, kwargs: Any) -> bool:
        return kwargs.get("device") is not None or any(isinstance(leaf, torch.device) for leaf in args[1:])


def _caller() -> str:
    """The innermost file outside torch and this one, from the repository's or the package folder's root."""
    frame = sys._getframe(2)
    while frame.f_back is not None and ("/torch/" in frame.f_code.co_filename or frame.f_code.co_filename == __file__):
        frame = frame.f_back
    path = Path(frame.f_code.co_filename)
    if path.is_relative_to(ROOT) and "site-packages" not in path.parts:
        return path.relative_to(ROOT).as_posix()
    return "/".join(path.parts[-2:])
