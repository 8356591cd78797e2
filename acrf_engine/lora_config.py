"""The config keys of what is trained: the LoRA, and where it sits."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from acrf_engine.config_group import Group


class LoraConfig(Group):
    """What is trained (paper, section 5.3)."""

    targets: Literal["std", "ext"] | Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)] = "std"
    """`std`: attention q, k, v, out; `ext`: feed-forward too; or patterns: ends of module names, or regexes."""
    refiners: bool = False
    """Also train the noise and context refiner blocks."""
    blocks: str = "all"
    """Which of the blocks (layers.N) to train, such as `0-9,20`."""
    dropout: float = Field(0.0, ge=0, lt=1, allow_inf_nan=False)
    """Share of the LoRA's inputs that are set to 0 in training."""
    use_rslora: bool = False
    """Scale the update by alpha / sqrt(rank) instead of alpha / rank, so that large ranks learn as fast (rsLoRA)."""
    use_dora: bool = False
    """Learn length and direction of every weight row apart (DoRA); slower, and read by fewer programs."""
    init_from: str = ""
    """Start from this LoRA file (diffusers, ComfyUI or kohya format) of the same rank, instead of from nothing."""

    @field_validator("targets")
    @classmethod
    def _patterns_are_regular_expressions(cls, targets: str | list[str]) -> str | list[str]:
        for pattern in targets if isinstance(targets, list) else []:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"{pattern!r} is no regular expression: {error}") from None
        return targets

    @field_validator("blocks", mode="before")
    @classmethod
    def _blocks_are_ranges(cls, blocks: Any) -> Any:
        text = str(blocks) if type(blocks) is int else blocks  # YAML reads one block as a number
        if isinstance(text, str) and text != "all":
            block_numbers(text)
        return text


def block_numbers(text: str) -> set[int]:
    """The numbers that `lora.blocks` names, such as `0-9,20`. Raises ValueError."""
    numbers: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"\s*([0-9]{1,4})\s*(?:-\s*([0-9]{1,4})\s*)?", part)
        if match is None or int(match[2] or match[1]) < int(match[1]):
            raise ValueError(f"expected `all`, or numbers and ranges such as 0-9,20, got {text!r}")
        numbers.update(range(int(match[1]), int(match[2] or match[1]) + 1))
    return numbers
