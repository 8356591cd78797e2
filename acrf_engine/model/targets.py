"""Which modules a LoRA trains (paper, section 5.3), chosen by name; loads no torch."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

from acrf_engine.lora_config import LoraConfig, block_numbers
from acrf_engine.model.errors import TargetsError

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
FEED_FORWARD = ("w1", "w2", "w3")
SETS = {
    "std": tuple(f"attention.{name}" for name in ATTENTION),
    "ext": tuple(f"attention.{name}" for name in ATTENTION) + tuple(f"feed_forward.{name}" for name in FEED_FORWARD),
}
FORBIDDEN = {
    "norm": "normalisation layers (norm): training them breaks the distribution of activations",
    "adaLN": "modulation (adaLN): training it breaks the distribution of activations",
    "embedder": "embedders: training them breaks the space of inputs",
    "final_layer": "the final layer: training it breaks the distribution of outputs",
}
"""Section 5.4: what must stay frozen, and why."""

LAYER = re.compile(r"layers\.(\d+)\.")
REFINER = re.compile(r"(noise|context)_refiner\.\d+\.")


def choose(linears: Sequence[str], config: LoraConfig) -> list[str]:
    """Of the names of a model's Linear modules those to train, in the model's order.

    `std` is q, k, v and out of every attention; `ext` adds the feed-forward layers; a pattern is a regular expression
    of the whole name, or the name's end at a dot. Refiners only where asked, blocks only where in range.

    Raises:
        TargetsError: where nothing is left, a pattern matches nothing, or a module of section 5.4 would be trained.
    """
    within = [name for name in linears if config.refiners or not REFINER.match(name)]
    if not any(LAYER.match(name) for name in within):
        raise TargetsError("this transformer has no module to train (layers.N.attention.to_q and so on)")
    blocks = _blocks(within, config.blocks)
    within = [name for name in within if (layer := LAYER.match(name)) is None or int(layer[1]) in blocks]
    if isinstance(config.targets, str):
        ends = SETS[config.targets]
        chosen = {name for name in within if _in_a_block(name) and any(name.endswith(f".{end}") for end in ends)}
    else:
        chosen = set()
        for pattern in config.targets:
            if not (matched := {name for name in within if matches(pattern, name)}):
                raise TargetsError(_nothing_matches(pattern, within, linears))
            chosen |= matched
    if not chosen:
        raise TargetsError("lora: no module is left to train (widen lora.blocks or lora.targets)")
    names = [name for name in linears if name in chosen]
    refuse_forbidden(names)
    return names


def matches(pattern: str, name: str) -> bool:
    """Whether a pattern of `lora.targets` names this module: its whole name as a regular expression, or its end."""
    return name.endswith(f".{pattern}") or re.fullmatch(pattern, name) is not None


def refuse_forbidden(names: Sequence[str]) -> None:
    """Raises TargetsError, saying why, if any module of section 5.4 is among `names`."""
    for name in names:
        for mark, reason in FORBIDDEN.items():
            if any(mark.lower() in part.lower() for part in name.split(".")):
                raise TargetsError(f"{name} cannot be trained: {reason} (paper, section 5.4)")


def require_rank(path: str, ranks: set[int], rank: int) -> None:
    """Raises TargetsError where the LoRA to start from has other ranks than the one to train."""
    if others := ranks - {rank}:
        raise TargetsError(
            f"lora.init_from: {path}: its rank is {', '.join(map(str, sorted(others)))}, network_dim is {rank} (set "
            f"network_dim, or make a copy of that rank with `acrf-tui resize FILE --rank {rank} --out NEW`)"
        )


def _in_a_block(name: str) -> bool:
    return bool(LAYER.match(name) or REFINER.match(name))


def _blocks(names: Sequence[str], text: str) -> set[int]:
    there = {int(layer[1]) for name in names if (layer := LAYER.match(name))}
    if text == "all":
        return there
    wanted = block_numbers(text)
    if missing := sorted(wanted - there):
        raise TargetsError(f"lora.blocks: {text}: this model has blocks 0-{max(there)}, and no {missing[0]}")
    return wanted


def _nothing_matches(pattern: str, within: Sequence[str], linears: Sequence[str]) -> str:
    text = f"lora.targets: {pattern!r} matches no module"
    if any(matches(pattern, name) for name in set(linears) - set(within)):
        return f"{text} here, only some that lora.blocks or lora.refiners leave out (widen them)"
    kinds = list(dict.fromkeys(re.sub(r"^(layers|noise_refiner|context_refiner)\.\d+\.", "", name) for name in within))
    ends = [name.rpartition(".")[2] for name in kinds]
    close = difflib.get_close_matches(pattern, [*kinds, *ends, *within], n=3, cutoff=0.5)
    return f"{text} (near: {', '.join(close)})" if close else f"{text} (there are {', '.join(kinds[:8])})"
