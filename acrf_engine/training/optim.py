"""The optimizer: its class, its arguments, and the proof that its state can be saved and comes back."""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
from typing import Any

import torch
from torch import Tensor, nn

from acrf_engine.config import RunConfig
from acrf_engine.optimizer_config import KINDS, OptimizationConfig, missing_package, package_of, paged_refusal, unusable
from acrf_engine.training.checkpoint import flatten, unflatten
from acrf_engine.yaml_source import ConfigError

ARGUMENTS: dict[str, dict[str, Any]] = {
    "Adafactor": {"scale_parameter": False, "relative_step": False, "warmup_init": False},
}
"""With these the learning rate means for Adafactor what it means for AdamW, and can be set and scheduled."""
PROBE_SIDE = 64
TABLE = 256
"""Elements of the quantisation maps, which 8-bit optimizers keep beside their state."""


def require_usable(config: RunConfig, device: torch.device) -> None:
    """Before anything is prepared: raises ConfigError where the optimizer is missing, refuses, or cannot be resumed."""
    if why := unusable(config.optimizer, device.type == "cuda"):
        raise ConfigError(f"optimizer: {why}")
    if config.optimizer not in KINDS or config.optimization.optimizer_args:
        require_restorable(config, device)


def make_optimizer(config: RunConfig, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    """The optimizer that the config names, over `parameters`. Raises ConfigError naming the key and what to do."""
    found = optimizer_class(config.optimizer)
    given = _arguments(config, found)
    try:
        optimizer: torch.optim.Optimizer = found(parameters, **given)
    except Exception as error:  # whatever the class raises is about its arguments, or its library
        raise ConfigError(f"optimizer: {config.optimizer} refuses its arguments {given}: {error}") from error
    if getattr(optimizer, "is_paged", False) and any(parameter.device.type == "cpu" for parameter in parameters):
        raise ConfigError(f"optimizer: {paged_refusal(config.optimizer)}")
    return optimizer


def optimizer_class(name: str) -> type[torch.optim.Optimizer]:
    """The class behind a name or an import path. Raises ConfigError naming what is missing or wrong."""
    if missing := missing_package(name):
        raise ConfigError(f"optimizer: {missing}")
    module, _, attribute = (KINDS[name].path if name in KINDS else name).rpartition(".")
    package = package_of(name)
    if name not in KINDS and package not in importlib.metadata.packages_distributions():
        raise ConfigError(
            f"optimizer: {name}: {package} is not an installed package, and classes are loaded from nowhere else "
            "(install it with pip)"
        )
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"optimizer: {name}: there is no such class ({error}) (fix the path)") from None
    if not (isinstance(found, type) and issubclass(found, torch.optim.Optimizer)):
        raise ConfigError(f"optimizer: {name} is no torch.optim.Optimizer (give the path of such a class)")
    if callable(getattr(found, "train", None)) and callable(getattr(found, "eval", None)):
        raise ConfigError(
            f"optimizer: {name} trains other weights than it evaluates (schedule-free), which is not "
            "supported (take another class; AdamW with scheduler: constant comes close)"
        )
    return found


def _arguments(config: RunConfig, found: type[torch.optim.Optimizer]) -> dict[str, Any]:
    taken = _accepted(found)
    given = config.optimization.optimizer_args
    if unknown := sorted(given.keys() - taken):
        known = ", ".join(sorted(taken - {"params", "self", "lr", "weight_decay"}))
        raise ConfigError(
            f"optimization.optimizer_args: {config.optimizer} takes no {', '.join(unknown)} (it takes {known})"
        )
    if "lr" not in taken:
        raise ConfigError(f"optimizer: {config.optimizer} takes no lr, so no learning rate could be set (take another)")
    arguments: dict[str, Any] = {"lr": config.learning_rate}
    decay = config.optimization.weight_decay
    if "weight_decay" in taken:
        arguments["weight_decay"] = decay
    elif decay not in (0, OptimizationConfig().weight_decay):
        raise ConfigError(
            f"optimization.weight_decay has no effect with {config.optimizer}, which has none (remove it)"
        )
    plain = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    return {**arguments, **ARGUMENTS.get(config.optimizer, {}), **plain}


def _accepted(found: type[torch.optim.Optimizer]) -> set[str]:
    """Names of the arguments that the class takes; where it hands the rest to its base, the base's too."""
    names: set[str] = set()
    for base in found.__mro__:
        if base is torch.optim.Optimizer:
            break
        if "__init__" not in vars(base):
            continue
        parameters = inspect.signature(vars(base)["__init__"]).parameters.values()
        names |= {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return names - {"self"}


def load_state(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Give an optimizer the state of a checkpoint; state that it pages is paged again."""
    optimizer.load_state_dict(state)
    if not getattr(optimizer, "is_paged", False):
        return
    for parameter, values in optimizer.state.items():
        for name in ("state1", "state2"):
            if name in values:
                buffer = optimizer.get_state_buffer(parameter, dtype=values[name].dtype)  # type: ignore[attr-defined]  # bitsandbytes' own
                values[name] = buffer.copy_(values[name])


def require_restorable(config: RunConfig, device: torch.device) -> float:
    """Take three steps with a small tensor, the third also after the state went through a checkpoint's form.

    Returns the bytes of state for each number. Raises ConfigError where a run could not be resumed exactly: its state
    holds something else than tensors and numbers, or the third step is another one.
    """
    name = config.optimizer
    parameter = _probe_weight(device)
    optimizer = make_optimizer(config, [parameter])
    try:
        for step in range(2):
            _probe_step(optimizer, parameter, step)
        tensors, structure = flatten(optimizer.state_dict())
        again = nn.Parameter(parameter.detach().clone())
        restored = make_optimizer(config, [again])
        load_state(restored, unflatten(structure, tensors))
        for weight, one in ((parameter, optimizer), (again, restored)):
            _probe_step(one, weight, 2)
    except ConfigError:
        raise
    except Exception as error:  # a foreign class may raise anything here
        raise ConfigError(f"optimizer: {name} cannot be used here: {error}") from error
    if not torch.equal(parameter, again):
        raise ConfigError(
            f"optimizer: {name} goes on differently after its state was saved and read, so a resumed run would be "
            "another one (it keeps state outside of state_dict, in another precision, or draws at random; take another)"
        )
    return sum(tensor.nbytes for tensor in _largest(tensors)) / parameter.numel()


def _probe_weight(device: torch.device) -> nn.Parameter:
    values = torch.linspace(-1, 1, PROBE_SIDE * PROBE_SIDE).sin().view(PROBE_SIDE, PROBE_SIDE)
    return nn.Parameter(values.to(device))


def _probe_step(optimizer: torch.optim.Optimizer, parameter: nn.Parameter, step: int) -> None:
    parameter.grad = (parameter.detach() * (step + 1.5)).cos()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def _largest(tensors: dict[str, Tensor]) -> list[Tensor]:
    """Without tables of one size for every tensor."""
    return [tensor for tensor in tensors.values() if tensor.numel() > TABLE]
