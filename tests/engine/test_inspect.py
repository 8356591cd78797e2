"""`acrf-tui inspect`: what a LoRA file is, told from its header alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from acrf_engine.run.folder import RunError
from acrf_engine.run.lora_files import describe


def write(path: Path, names: dict[str, tuple[int, ...]], **metadata: str) -> Path:
    save_file({name: torch.zeros(shape) for name, shape in names.items()}, path, metadata)
    return path


@pytest.mark.parametrize(
    ("prefix", "down", "up", "style"),
    [
        ("transformer.layers.0.attention.to_q", "lora_A", "lora_B", "diffusers"),
        ("diffusion_model.layers.0.attention.to_q", "lora_A", "lora_B", "ComfyUI"),
        ("lora_unet_layers_0_attention_to_q", "lora_down", "lora_up", "kohya"),
        ("base_model.model.layers.0.attention.to_q", "lora_A", "lora_B", "raw PEFT"),
    ],
)
def test_the_writer_is_told_by_the_names(tmp_path: Path, prefix: str, down: str, up: str, style: str) -> None:
    names = {f"{prefix}.{down}.weight": (8, 64), f"{prefix}.{up}.weight": (64, 8)}
    rows = dict(describe(write(tmp_path / "lora.safetensors", names, ss_steps="7")))
    assert rows["format"] == style
    assert rows["rank"] == "8"
    assert rows["modules"].startswith("1: ")
    assert rows["ss_steps"] == "7"
    assert ("warning" in rows) == (style == "raw PEFT")


def test_a_module_that_nothing_matches_is_warned_of(tmp_path: Path) -> None:
    name = "transformer.layers.0.attention.to_out.0.0"
    names = {f"{name}.lora_A.weight": (4, 8), f"{name}.lora_B.weight": (8, 4)}
    assert "to_out.0" in dict(describe(write(tmp_path / "lora.safetensors", names)))["warning"]


def test_other_files_are_refused_by_name(tmp_path: Path) -> None:
    vae = write(tmp_path / "vae.safetensors", {"encoder.weight": (2, 2)})
    noise = tmp_path / "noise.safetensors"
    noise.write_bytes(b"not a header at all")
    for path, reason in ((vae, "not a LoRA"), (noise, "not a readable"), (tmp_path / "none", "no such file")):
        with pytest.raises(RunError, match=reason) as caught:
            describe(path)
        assert str(path) in str(caught.value)
