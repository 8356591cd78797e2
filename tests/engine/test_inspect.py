"""`acrf-tui inspect`: what a LoRA file is, told without torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from acrf_engine.run.folder import RunError
from acrf_engine.run.lora_keys import dotted, parse, underscored
from acrf_engine.run.lora_report import look, report_json, rows

ATTENTION = "layers.0.attention.to_q"


def write(path: Path, names: dict[str, tuple[int, ...]], **metadata: str) -> Path:
    save_file({name: torch.ones(shape) for name, shape in names.items()}, path, metadata)
    return path


def told(path: Path) -> dict[str, str]:
    return dict(rows(look(path)))


@pytest.mark.parametrize(
    ("prefix", "down", "up", "style"),
    [
        ("transformer.layers.0.attention.to_q", "lora_A", "lora_B", "diffusers"),
        ("diffusion_model.layers.0.attention.to_q", "lora_A", "lora_B", "ComfyUI"),
        ("lora_unet_layers_0_attention_to_q", "lora_down", "lora_up", "kohya"),
        ("lora_transformer_layers_0_attention_to_q", "lora_down", "lora_up", "OneTrainer"),
        ("base_model.model.layers.0.attention.to_q", "lora_A", "lora_B", "raw PEFT"),
        ("layers.0.attention.to_q", "lora_A.default", "lora_B.default", "diffusers, without a prefix"),
    ],
)
def test_the_writer_is_told_by_the_names(tmp_path: Path, prefix: str, down: str, up: str, style: str) -> None:
    names = {f"{prefix}.{down}.weight": (8, 64), f"{prefix}.{up}.weight": (64, 8)}
    said = told(write(tmp_path / "lora.safetensors", names, ss_steps="7"))
    assert said["format"] == style
    assert said["rank"] == "8"
    assert said["modules"] == "1: attention.to_q (1)"
    assert said["blocks"] == "layers 0"
    assert said["ss_steps"] == "7"
    assert ("warning" in said) == (style == "raw PEFT")


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        (
            {"lycoris_layers_0_attention_to_q.lokr_w1": (4, 4)},
            "LoKr",
        ),
        ({"lora_unet_layers_0_attention_to_q.hada_w1_a": (4, 4)}, "LoHa"),
        ({"transformer.layers.0.attention.to_q.oft_blocks": (4, 4)}, "OFT"),
        (
            {
                f"transformer.{ATTENTION}.lora_A.weight": (2, 8),
                f"transformer.{ATTENTION}.lora_B.weight": (8, 2),
                f"transformer.{ATTENTION}.lora_magnitude_vector": (8,),
            },
            "DoRA",
        ),
        (
            {
                "lora_unet_layers_0_attention_to_q.lora_down.weight": (2, 8),
                "lora_unet_layers_0_attention_to_q.lora_up.weight": (8, 2),
                "lora_unet_layers_0_attention_to_q.dora_scale": (8, 1),
            },
            "DoRA",
        ),
    ],
)
def test_adapters_of_other_kinds_are_named(tmp_path: Path, names: dict[str, tuple[int, ...]], kind: str) -> None:
    assert told(write(tmp_path / "a.safetensors", names))["kind"] == kind


@pytest.mark.parametrize(
    ("module", "shape", "base"),
    [
        ("transformer.layers.29.attention.to_q", (3840, 3840), "Z-Image (3840 wide)"),
        ("transformer.layers.0.feed_forward.w2", (3840, 10240), "Z-Image (3840 wide)"),
        ("diffusion_model.layers.0.attention.qkv", (6912, 2304), "Lumina-Image 2.0 (2304 wide)"),
        ("transformer.layers.0.attention.to_q", (1000, 1000), "unknown: named as Z-Image"),
        ("transformer.single_transformer_blocks.3.attn.to_q", (3072, 3072), "FLUX.1 or Chroma"),
        ("lora_unet_single_blocks_3_linear1", (9216, 3072), "FLUX.1 or Chroma"),
        ("transformer.transformer_blocks.3.img_mlp.net.2", (3072, 12288), "Qwen-Image"),
        ("diffusion_model.blocks.3.self_attn.q", (5120, 5120), "Wan"),
        ("unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k", (640, 2048), "Stable Diffusion XL"),
        (
            "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k",
            (640, 768),
            "Stable Diffusion 1.x",
        ),
        ("transformer.something.else", (5, 7), "unknown (modules such as something.else)"),
    ],
)
def test_the_base_is_told_by_names_and_widths(tmp_path: Path, module: str, shape: tuple[int, int], base: str) -> None:
    names = {f"{module}.lora_down.weight": (2, shape[1]), f"{module}.lora_up.weight": (shape[0], 2)}
    assert told(write(tmp_path / "a.safetensors", names))["base model"].startswith(base)


def lora(scale: float = 1.0, dtype: torch.dtype = torch.float32, rank: int = 4) -> dict[str, torch.Tensor]:
    source = torch.Generator().manual_seed(rank)
    name = f"transformer.{ATTENTION}"
    return {
        f"{name}.lora_A.weight": torch.randn(rank, 32, generator=source).to(dtype),
        f"{name}.lora_B.weight": (scale * torch.randn(24, rank, generator=source)).to(dtype),
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_the_norm_is_that_of_the_whole_change_of_the_weight_with_its_alpha(tmp_path: Path, dtype: torch.dtype) -> None:
    tensors = lora(dtype=dtype)
    down, up = (value.double() for value in tensors.values())
    path = tmp_path / "a.safetensors"
    save_file({**tensors, f"transformer.{ATTENTION}.alpha": torch.tensor(2.0)}, path)
    (module,) = look(path).modules
    assert (module.rank, module.alpha, module.shape) == (4, 2.0, (24, 32))
    assert module.norm == pytest.approx((0.5 * up @ down).norm().item(), rel=1e-5)


def test_what_is_broken_is_said_with_the_modules_name(tmp_path: Path) -> None:
    tensors: dict[str, Any] = {}
    for index, value in enumerate((1.0, 0.0, float("nan"))):
        for name, tensor in lora().items():
            tensors[name.replace("layers.0", f"layers.{index}")] = tensor * value
    tensors["transformer.layers.9.attention.to_q.lora_A.weight"] = torch.ones(4, 32)
    path = tmp_path / "a.safetensors"
    save_file(tensors, path, {"sshs_model_hash": "0" * 64})
    said = " | ".join(look(path).warnings)
    assert "1 modules change nothing (all zero): layers.1.attention.to_q" in said
    assert "1 modules hold NaN or infinity: layers.2.attention.to_q" in said
    assert "1 modules have only one of their two factors: layers.9.attention.to_q" in said
    assert "changed after it was written" in said
    loaded = json.loads(report_json(look(path)))
    assert [module["norm"] is None for module in loaded["modules"]] == [False, False, True, True]


def test_several_ranks_alphas_and_blocks_are_counted(tmp_path: Path) -> None:
    tensors = {}
    for index, rank in ((0, 4), (1, 4), (2, 8), (7, 4)):
        for name, tensor in lora(rank=rank).items():
            tensors[name.replace("layers.0", f"layers.{index}")] = tensor
        tensors[f"transformer.layers.{index}.attention.to_q.alpha"] = torch.tensor(float(rank))
    path = tmp_path / "a.safetensors"
    save_file(tensors, path)
    said = told(path)
    assert said["rank"] == "4 (3 modules), 8 (1 modules)"
    assert said["alpha"] == "4 (3 modules), 8 (1 modules)"
    assert said["blocks"] == "layers 0-2,7"


def test_control_characters_of_a_file_do_not_reach_the_terminal(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file(lora(), path, {"modelspec.title": "x\x1b[2Jy"})
    assert told(path)["modelspec.title"] == "x?[2Jy"


def test_a_module_that_nothing_matches_is_warned_of(tmp_path: Path) -> None:
    name = "transformer.layers.0.attention.to_out.0.0"
    names = {f"{name}.lora_A.weight": (4, 8), f"{name}.lora_B.weight": (8, 4)}
    assert "to_out.0" in told(write(tmp_path / "lora.safetensors", names))["warning"]


def test_other_files_are_refused_by_name(tmp_path: Path) -> None:
    vae = write(tmp_path / "vae.safetensors", {"encoder.weight": (2, 2)})
    noise = tmp_path / "noise.safetensors"
    noise.write_bytes(b"not a header at all")
    empty = tmp_path / "empty.safetensors"
    empty.touch()
    cut = write(tmp_path / "cut.safetensors", {"a.lora_A.weight": (8, 8), "a.lora_B.weight": (8, 8)})
    cut.write_bytes(cut.read_bytes()[:-1])
    for path, reason in (
        (vae, "not a LoRA"),
        (noise, "not a readable"),
        (cut, "cut off"),
        (tmp_path / "none", "no such file"),
        (tmp_path, "a folder"),
        (empty, "the file is empty"),
    ):
        with pytest.raises(RunError, match=reason) as caught:
            look(path)
        assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    "module",
    [
        "layers.12.attention.to_out.0",
        "noise_refiner.1.feed_forward.w3",
        "context_refiner.0.attention.to_q",
        "layers.3.adaLN_modulation.0",
        "layers.3.attention.norm_q",
        "layers.0.attention_norm1",
        "t_embedder.mlp.0",
        "cap_embedder.1",
    ],
)
def test_underscored_names_of_z_image_are_known_again(module: str) -> None:
    assert dotted(underscored(module)) == module
    key = parse(f"lora_unet_{underscored(module)}.lora_down.weight")
    assert key is not None
    assert (key.module, key.part) == (module, "down")
