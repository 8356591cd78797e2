"""Optimizer arguments, stored weights and concepts of other trainers: taken over, or listed with the reason."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import pytest

from acrf_engine.config import RunConfig, load_config
from acrf_engine.training.optim import optimizer_class
from acrf_engine.translation.ledger import Ledger
from acrf_engine.translation.optimizer_arguments import TAKEN
from acrf_engine.translation.source import translate
from acrf_engine.translation.writing import config_text

ONETRAINER: dict[str, Any] = {
    "training_method": "LORA",
    "base_model_name": "Tongyi-MAI/Z-Image-Turbo",
    "peft_type": "LORA",
    "lora_rank": 16,
    "resolution": "512,768",
    "concepts": [
        {"path": "/data/cat", "enabled": True, "type": "STANDARD"},
        {"path": "/data/dog", "enabled": True, "type": "STANDARD"},
        {"path": "/data/class", "enabled": True, "type": "PRIOR_PREDICTION"},
        {"path": "/data/held", "enabled": True, "type": "VALIDATION"},
    ],
    "transformer": {"weight_dtype": "NFLOAT_4"},
    "text_encoder": {"weight_dtype": "INT_8"},
    "optimizer": {"optimizer": "ADAMW_8BIT", "beta1": 0.9, "beta2": 0.99, "eps": 1e-8, "stochastic_rounding": True},
}
KOHYA = """pretrained_model_name_or_path = "Tongyi-MAI/Z-Image-Turbo"
train_data_dir = "/data"
network_module = "networks.lora_zimage"
optimizer_type = "prodigyopt.Prodigy"
optimizer_args = ["decouple=True", "weight_decay=0.02", "d_coef=2", "betas=0.9,0.99", "mine=3"]
learning_rate = 1.0
fp8_base = true
gradient_checkpointing = true
"""
TOOLKIT = """config:
  process:
    - train: {optimizer: adamw8bit, lr: 1e-4, optimizer_params: {weight_decay: 0.01, eps: 1e-7}}
      datasets: [{folder_path: /data/cat}]
      model:
        name_or_path: Tongyi-MAI/Z-Image-Turbo
        quantize: true
        qtype: qint8
        quantize_te: false
        qtype_te: qfloat8
        compile: true
        assistant_lora_path: adapter.safetensors
"""


def taken(path: Path, text: str) -> tuple[Ledger, RunConfig, dict[str, str]]:
    """The translation, the config as a user loads it from the written file, and what was left out with the reasons."""
    path.write_text(text, encoding="utf-8")
    ledger = translate(path)
    ours = path.with_name("ours.yaml")
    ours.write_text(config_text(ledger, path), encoding="utf-8")
    return ledger, load_config(ours), {item.key: item.why for item in ledger.left_out}


@pytest.mark.parametrize("name", sorted(TAKEN))
def test_an_argument_that_is_taken_over_is_one_that_our_optimizer_takes(name: str) -> None:
    assert set(TAKEN[name]) <= set(inspect.signature(optimizer_class(name)).parameters)


def test_arguments_of_kohyas_optimizer_come_with_their_types(tmp_path: Path) -> None:
    _, config, why = taken(tmp_path / "kohya.toml", KOHYA)
    assert config.optimizer == "Prodigy"
    assert config.optimization.optimizer_args == {"decouple": True, "d_coef": 2, "betas": [0.9, 0.99]}
    assert config.optimization.weight_decay == 0.02
    assert why["optimizer_args.mine"] == "no counterpart here"
    assert config.memory.quantization == "fp8"


def test_arguments_of_an_optimizer_that_is_not_here_are_not_given_to_another(tmp_path: Path) -> None:
    _, config, why = taken(tmp_path / "kohya.toml", KOHYA.replace("prodigyopt.Prodigy", "CAME"))
    assert config.optimization.optimizer_args == {}
    assert "optimizer_args.betas" in why


def test_arguments_and_stored_weights_of_ai_toolkit(tmp_path: Path) -> None:
    (tmp_path / "adapter.safetensors").write_bytes(b"")
    _, config, why = taken(tmp_path / "ai.yaml", TOOLKIT)
    assert config.optimization.optimizer_args == {"eps": 1e-7}
    assert (config.memory.quantization, config.memory.text_encoder) == ("int8", "none")
    assert config.base.training_adapter == str(tmp_path / "adapter.safetensors")
    assert "not quantised" in why["model.qtype_te"]
    assert "neither offloaded nor quantised" in why["model.compile"], "it does not go with int8 here, and is listed"


def test_an_adapter_that_is_not_here_is_listed_with_the_key_that_takes_it(tmp_path: Path) -> None:
    _, config, why = taken(tmp_path / "ai.yaml", TOOLKIT)
    assert config.base.training_adapter == ""
    assert "base.training_adapter" in why["model.assistant_lora_path"]


def test_a_storage_that_is_not_here_is_listed(tmp_path: Path) -> None:
    _, config, why = taken(tmp_path / "ai.yaml", TOOLKIT.replace("qint8", "uint4"))
    assert config.memory.quantization == "none"
    assert "memory.quantization" in why["model.qtype"]
    assert config.memory.compile


def test_all_concepts_of_onetrainer_have_the_runs_sizes(tmp_path: Path) -> None:
    _, config, why = taken(tmp_path / "one.json", json.dumps(ONETRAINER))
    assert [(source.path, source.resolution) for source in config.sources()] == [
        ("/data/cat", [512, 768]),
        ("/data/dog", [512, 768]),
    ]
    assert "resolution" not in why
    assert config.optimization.optimizer_args == {"betas": [0.9, 0.99], "eps": 1e-8}
    assert (config.memory.quantization, config.memory.text_encoder) == ("nf4", "int8")
    assert why["optimizer.stochastic_rounding"] == "no counterpart here"
    assert "concepts.0.type" not in why


def test_pictures_that_onetrainer_does_not_train_on_are_not_trained_on(tmp_path: Path) -> None:
    _, config, why = taken(tmp_path / "one.json", json.dumps(ONETRAINER))
    assert not {"/data/class", "/data/held"} & {source.path for source in config.sources()}
    assert "regularisation" in why["concepts.2.path"]
    assert "validation.holdout" in why["concepts.3.path"]
