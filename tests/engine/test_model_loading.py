"""A checkpoint is used as it is: whole or told what is missing, from a folder or one file, with its own settings."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from exactly import trace, train
from safetensors.torch import load_file, save_file
from torch import Tensor

from acrf_engine.config import RunConfig, absolute
from acrf_engine.model.device import choose_device, choose_dtype
from acrf_engine.model.layout import Checkpoint, ModelError
from acrf_engine.model.zimage import Encoders, load_transformer
from acrf_engine.preview.picture import draw
from acrf_engine.training.identity import MismatchError
from acrf_engine.training.trainer import Trainer
from acrf_engine.yaml_source import ConfigError

Make = Callable[..., Trainer]
WEIGHTS = "diffusion_pytorch_model.safetensors"
CPU = torch.device("cpu")


@pytest.fixture
def copy(tiny_model: Path, tmp_path: Path) -> Path:
    """A tiny model of the test's own."""
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **values}), encoding="utf-8")


def as_comfyui(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Original names: one matrix for q, k and v, and a prefix."""
    found: dict[str, Tensor] = {}
    for name, value in tensors.items():
        if ".to_k." in name or ".to_v." in name:
            continue
        if ".to_q." in name:
            value = torch.cat([tensors[name.replace("to_q", one)] for one in ("to_q", "to_k", "to_v")])
        name = name.replace(".attention.to_q.", ".attention.qkv.").replace(".attention.to_out.0.", ".attention.out.")
        name = name.replace(".norm_q.", ".q_norm.").replace(".norm_k.", ".k_norm.")
        name = name.replace("all_final_layer.2-1.", "final_layer.").replace("all_x_embedder.2-1.", "x_embedder.")
        found[f"model.diffusion_model.{name}"] = value.contiguous()
    return found


def test_all_that_is_missing_is_named_at_once_with_the_expected_layout(copy: Path) -> None:
    shutil.rmtree(copy / "vae")
    (copy / "transformer" / WEIGHTS).unlink()
    (copy / "tokenizer" / "tokenizer_config.json").unlink()
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model.safetensors"}}
    (copy / "text_encoder" / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError) as refused:
        Checkpoint(str(copy))
    shard = "text_encoder/model-00001-of-00002.safetensors"
    for part in ("vae/", "transformer/*.safetensors", "tokenizer/tokenizer_config.json", shard, "model_index.json"):
        assert part in str(refused.value)
    assert "text_encoder/model.safetensors," not in str(refused.value)


def test_a_hub_id_without_a_network_says_where_the_cache_is_and_what_to_do(tmp_path: Path) -> None:
    config = tmp_path / "hub.yaml"
    config.write_text("model: Tongyi-MAI/Z-Image-Turbo\ndataset: demo\n")
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(tmp_path / "hub cache")}
    command = [sys.executable, "-P", "-m", "acrf_engine", "check", str(config)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 2
    for part in ("Tongyi-MAI/Z-Image-Turbo", str(tmp_path / "hub cache"), "hf download", "local folder"):
        assert part in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.count("'") % 2 == 0, "their words are not cut in the middle of one"


@pytest.mark.parametrize("names", [dict, as_comfyui])
def test_a_single_file_gives_the_weights_of_the_folder_whoever_named_them(
    names: Callable[[dict[str, Tensor]], dict[str, Tensor]], tiny_model: Path, tmp_path: Path
) -> None:
    save_file(names(load_file(tiny_model / "transformer" / WEIGHTS)), tmp_path / "one.safetensors")
    whole, single = Checkpoint(str(tiny_model)), Checkpoint(str(tiny_model), str(tmp_path / "one.safetensors"))
    assert single.transformer_shapes() == whole.transformer_shapes()
    wanted = load_transformer(whole, torch.float32, CPU).state_dict()
    found = load_transformer(single, torch.float32, CPU).state_dict()
    assert wanted.keys() == found.keys()
    assert all(torch.equal(value, found[name]) for name, value in wanted.items())


def test_a_single_file_needs_no_weights_in_the_folder_and_trains_as_the_folder_does(
    make_trainer: Make, copy: Path
) -> None:
    whole = trace(train(make_trainer("whole", model=str(copy)), 2))
    single = (copy / "transformer" / WEIGHTS).rename(copy.parent / "one.safetensors")
    assert trace(train(make_trainer("single", model=str(copy), base={"transformer": str(single)}), 2)) == whole


def test_a_picture_is_drawn_with_the_single_file_that_was_trained_on(
    make_trainer: Make, copy: Path, tmp_path: Path
) -> None:
    trainer = make_trainer("drawn", model=str(copy))
    train(trainer, 2)
    lora = tmp_path / "lora.safetensors"
    trainer.save_lora(lora)
    pictures = [tmp_path / "whole.png", tmp_path / "single.png"]
    draw(Checkpoint(str(copy)), lora, "a red circle", pictures[0], steps=2, seed=1, side=None)
    single = (copy / "transformer" / WEIGHTS).rename(tmp_path / "one.safetensors")
    draw(Checkpoint(str(copy), str(single)), lora, "a red circle", pictures[1], steps=2, seed=1, side=None)
    assert pictures[0].read_bytes() == pictures[1].read_bytes()


def test_one_file_as_the_model_says_where_it_belongs(make_config: Callable[..., RunConfig], tiny_model: Path) -> None:
    single = tiny_model / "transformer" / WEIGHTS
    with pytest.raises(ConfigError, match=r"model: .*one file .*base\.transformer"):
        absolute(make_config(model=str(single)))
    with pytest.raises(ConfigError, match=r"base\.transformer: .*gone\.safetensors: there is no such file"):
        absolute(make_config(base={"transformer": "gone.safetensors"}))


def test_a_file_of_another_model_is_refused_by_name(tiny_model: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    save_file({"layers.0.adaLN_modulation.0.weight": torch.zeros(8, 8)}, other)
    with pytest.raises(ModelError, match=r"other\.safetensors: model: cannot be loaded"):
        load_transformer(Checkpoint(str(tiny_model), str(other)), torch.float32, CPU)
    save_file({"encoder.conv_in.weight": torch.zeros(8, 8)}, other)
    with pytest.raises(ModelError, match=r"other\.safetensors: base\.transformer: no transformer of Z-Image"):
        Checkpoint(str(tiny_model), str(other)).transformer_shapes()


def test_dtype_follows_the_device_and_fp16_is_refused_with_the_reason(make_config: Callable[..., RunConfig]) -> None:
    assert choose_dtype("auto", CPU) == torch.float32
    assert choose_dtype("auto", torch.device("cuda")) == choose_dtype("auto", torch.device("mps")) == torch.bfloat16
    with pytest.raises(ConfigError, match=r"memory\.dtype: .*fp16.*NaN.*bf16"):
        make_config(memory={"dtype": "fp16"})
    if not torch.backends.mps.is_available():
        with pytest.raises(ModelError, match="Metal"):
            choose_device("mps")


def test_the_checkpoints_own_shift_moves_the_anchors(make_trainer: Make, copy: Path) -> None:
    before = make_trainer("before", model=str(copy)).method.anchors_K
    change(copy / "scheduler" / "scheduler_config.json", shift=7.0)
    after = make_trainer("after", model=str(copy)).method.anchors_K
    assert (after[1:-1] > before[1:-1]).all()


def test_the_checkpoints_own_vae_and_tokenizer_settings_are_used(copy: Path) -> None:
    pixels = torch.linspace(-1, 1, 3 * 64 * 64).reshape(3, 64, 64)
    before = Encoders(Checkpoint(str(copy)), CPU, torch.float32)
    config = json.loads((copy / "vae" / "config.json").read_text(encoding="utf-8"))
    change(copy / "vae" / "config.json", scaling_factor=config["scaling_factor"] * 2)
    template = copy / "tokenizer" / "chat_template.jinja"
    template.write_text(template.read_text(encoding="utf-8") + "a", encoding="utf-8")
    after = Encoders(Checkpoint(str(copy)), CPU, torch.float32)
    assert torch.equal(after.encode_picture(pixels), before.encode_picture(pixels) * 2)
    assert after.encode_caption("a cat").shape[0] > before.encode_caption("a cat").shape[0]
    assert after.fingerprint != before.fingerprint


def test_a_run_is_not_resumed_on_other_frozen_weights(make_trainer: Make, copy: Path) -> None:
    trainer = make_trainer(model=str(copy))
    train(trainer, 1)
    trainer.save_checkpoint()
    weights = load_file(copy / "transformer" / WEIGHTS)
    weights["x_pad_token"] += 1
    save_file(weights, copy / "transformer" / WEIGHTS)
    with pytest.raises(MismatchError, match="frozen weights changed"):
        make_trainer(model=str(copy))
