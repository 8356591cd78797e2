"""The frozen base and the text encoder in fewer bits: bitsandbytes (int8, NF4) and diffusers' layerwise casting (fp8).

On a CPU bitsandbytes has the same operations, slowly; diffusers asks for a GPU all the same, so there its quantisers
are used without that question. That is how a run on the tiny model goes the way of one on a card.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from acrf_engine.model.kept import KEPT

BITSANDBYTES = ("int8", "nf4")
REPACKS = "support_avx512bf16_for_cpu"
"""Of bitsandbytes' Linear4bit."""


def base_settings(quantization: str, dtype: torch.dtype) -> Any:
    """diffusers' quantisation config of the transformer; None where bitsandbytes has no part in it."""
    from diffusers.quantizers.quantization_config import BitsAndBytesConfig

    return _bits(BitsAndBytesConfig, quantization, dtype, list(KEPT))


def text_encoder_settings(quantization: str, dtype: torch.dtype) -> Any:
    """transformers' quantisation config of the text encoder; None where it is not quantised."""
    from transformers import BitsAndBytesConfig

    return _bits(BitsAndBytesConfig, quantization, dtype, None)


def _bits(kind: Any, quantization: str, dtype: torch.dtype, kept: list[str] | None) -> Any:
    match quantization:
        case "int8":
            return kind(load_in_8bit=True, llm_int8_skip_modules=kept)
        case "nf4":
            return kind(
                load_in_4bit=True,
                bnb_4bit_quant_type="nf4",
                bnb_4bit_use_double_quant=True,
                bnb_4bit_compute_dtype=dtype,
                llm_int8_skip_modules=kept,
            )
    return None


@contextlib.contextmanager
def quantising(device: torch.device) -> Iterator[None]:
    """Around loading with `base_settings`: on a CPU, without the question for a GPU, and without compiling kernels."""
    if device.type != "cpu":
        yield
        return
    from diffusers.quantizers import auto
    from diffusers.quantizers.bitsandbytes import BnB4BitDiffusersQuantizer, BnB8BitDiffusersQuantizer

    class OnCpu:
        def validate_environment(self, *_: Any, **__: Any) -> None:
            """bitsandbytes has CPU operations."""

        def update_device_map(self, _: Any) -> dict[str, str]:
            return {"": "cpu"}

    quantisers = {
        "bitsandbytes_4bit": type("Nf4OnCpu", (OnCpu, BnB4BitDiffusersQuantizer), {}),
        "bitsandbytes_8bit": type("Int8OnCpu", (OnCpu, BnB8BitDiffusersQuantizer), {}),
    }
    before = dict(auto.AUTO_QUANTIZER_MAPPING)
    auto.AUTO_QUANTIZER_MAPPING.update(quantisers)
    try:
        with torch.compiler.set_stance("force_eager"):
            yield
    finally:
        auto.AUTO_QUANTIZER_MAPPING.update(before)


def keep_as_stored(model: nn.Module) -> None:
    """On some CPUs bitsandbytes repacks a 4-bit layer for good, with coarser scales, where it computes without a graph:
    a preview would change the steps after it, and shapes that it cannot pack would fail. Here no layer is repacked.
    """
    for module in model.modules():
        if hasattr(module, REPACKS):
            setattr(module, REPACKS, False)


def store_in_fp8(transformer: nn.Module, dtype: torch.dtype) -> None:
    """Keep the weights in 8-bit floats, each cast to `dtype` while its layer computes."""
    from diffusers.hooks.layerwise_casting import DEFAULT_SKIP_MODULES_PATTERN

    model: Any = transformer
    model.enable_layerwise_casting(
        storage_dtype=torch.float8_e4m3fn,
        compute_dtype=dtype,
        skip_modules_pattern=(*DEFAULT_SKIP_MODULES_PATTERN, *KEPT),
    )
