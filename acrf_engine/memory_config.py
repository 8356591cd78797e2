"""The config keys of what fits on the card, and of what the LoRA is trained on beside `model`."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from acrf_engine.config_group import Group
from acrf_engine.lora_config import block_numbers

LARGE_MODEL = 1_000_000_000
"""Parameters above which gradient checkpointing is on by itself."""


class BaseConfig(Group):
    """What the LoRA is trained on, beside the folder `model`."""

    transformer: str = ""
    """One .safetensors file in the place of the weights in transformer/ (diffusers, ComfyUI or original names)."""
    training_adapter: str = ""
    """A LoRA file added at strength 1 in training and validation, and left out of previews and every saved file."""


class MemoryConfig(Group):
    """What fits on the card. `acrf-tui check` estimates it part by part; docs/memory.md says what saves what."""

    dtype: Literal["auto", "bf16", "fp32"] = "auto"
    """In what the frozen base computes: `auto` is bf16 on a GPU and fp32 on a CPU."""
    device: Literal["auto", "cuda", "mps", "cpu"] | Annotated[str, Field(pattern=r"^cuda:[0-9]{1,2}$")] = "auto"
    """Where to train: `cpu`, `mps`, `cuda:N` (as nvidia-smi counts), or `auto`: the emptiest GPU without a run."""
    vram: Annotated[float, Field(gt=0, le=4096, allow_inf_nan=False)] | None = None
    """GiB of the card that the run may take: `check` estimates against it, and torch is held to it on CUDA."""
    quantization: Literal["none", "int8", "nf4", "fp8"] = "none"
    """How the frozen base is stored: as `dtype`, by bitsandbytes (`int8`, `nf4`), or cast layer by layer (`fp8`)."""
    text_encoder: Literal["none", "int8", "nf4"] = "none"
    """How the text encoder is stored while captions are cached."""
    gradient_checkpointing: (
        Literal["auto", "on", "off", "every other"] | Annotated[str, Field(pattern=r"^[0-9][0-9, -]*$")]
    ) = "auto"
    """Recompute blocks for the backward pass: all, `every other`, or `0-19`; `auto`: all above a billion weights."""
    offload: bool = False
    """Keep the base in RAM and bring each layer to the card when it computes (diffusers' group offload): slow."""
    compile: bool = False
    """Compile each block by torch.compile: slow first steps, then faster ones."""
    attention: str = Field("native", pattern=r"^[a-z0-9_]{1,64}$")
    """The attention backend, by its name in diffusers' dispatcher; `native` is torch's own."""

    @field_validator("dtype", mode="before")
    @classmethod
    def _fp16_overflows(cls, value: Any) -> Any:
        if str(value).lower() in ("fp16", "float16", "half"):
            raise ValueError("Z-Image's activations leave the range of fp16 and become NaN (use bf16, or fp32)")
        return value

    @field_validator("gradient_checkpointing", mode="before")
    @classmethod
    def _true_is_on(cls, value: Any) -> Any:
        if isinstance(value, bool):
            return "on" if value else "off"
        text = str(value) if type(value) is int else value  # YAML reads one block as a number
        if isinstance(text, str) and text[:1].isdecimal():
            block_numbers(text)
        return text

    @model_validator(mode="after")
    def _what_goes_together(self) -> Self:
        if self.offload and self.quantization != "none":
            raise ValueError("offload takes a base that is not quantised (one of the two is enough: remove one)")
        if self.compile and (self.offload or self.quantization != "none"):
            raise ValueError("compile takes a base that is neither offloaded nor quantised (remove compile, or those)")
        if self.recomputes_all and self.gradient_checkpointing not in ("auto", "on"):
            raise ValueError(
                f"{'offload' if self.offload else 'quantization fp8'} saves memory only where all blocks are "
                "recomputed for the backward pass (set gradient_checkpointing: on)"
            )
        if self.vram is not None and self.device in ("cpu", "mps"):
            raise ValueError(f"vram has no effect with device {self.device!r} (remove it)")
        if self.attention.startswith(("sage", "_sage")):
            raise ValueError(f"attention {self.attention!r} has no backward: it cannot train (use native, or flash)")
        return self

    @property
    def recomputes_all(self) -> bool:
        """Whether weights come and go around each layer: a graph that kept them would keep them all."""
        return self.offload or self.quantization == "fp8"

    def recomputed(self, blocks: int, large: bool) -> set[int]:
        """Which of the blocks 0 .. `blocks` - 1 are recomputed; `large`: the model has over a billion parameters.

        Raises ValueError for a block that the model has not.
        """
        match self.gradient_checkpointing:
            case "auto":
                return set(range(blocks)) if large or self.recomputes_all else set()
            case "on":
                return set(range(blocks))
            case "off":
                return set()
            case "every other":
                return set(range(0, blocks, 2))
            case text:
                chosen = block_numbers(text)
                if beyond := sorted(number for number in chosen if number >= blocks):
                    raise ValueError(
                        f"memory.gradient_checkpointing: {text}: this model has blocks 0-{blocks - 1}, no {beyond[0]}"
                    )
                return chosen

    @property
    def recomputes_refiners(self) -> bool:
        """Whether the few refiner blocks are recomputed too: where no choice of blocks is made, as the others are."""
        return self.gradient_checkpointing in ("auto", "on")
