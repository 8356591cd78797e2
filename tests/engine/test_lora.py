"""Section 5: what is trained, what must not be, and how many parameters that are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import ZImageTransformer2DModel

from acrf_engine.check import check
from acrf_engine.config import build_config
from acrf_engine.model.errors import LoraError, TargetsError
from acrf_engine.model.layout import Checkpoint
from acrf_engine.model.lora import (
    inject,
    load_weights,
    scaling,
    set_active,
    target_modules,
    weights,
)
from acrf_engine.model.targets import refuse_forbidden
from acrf_engine.model.zimage import load_transformer, velocity
from acrf_engine.yaml_source import ConfigError

ATTENTION = ("attention.to_q", "attention.to_k", "attention.to_v", "attention.to_out.0")
FEED_FORWARD = ("feed_forward.w1", "feed_forward.w2", "feed_forward.w3")
CPU = torch.device("cpu")


def tiny(seed: int = 0) -> ZImageTransformer2DModel:
    """The tiny size of the real class, initialised by the seed."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = ZImageTransformer2DModel(
            dim=128, n_layers=4, n_refiner_layers=1, n_heads=4, n_kv_heads=4, cap_feat_dim=64, axes_dims=[16, 8, 8],
            axes_lens=[1024, 512, 512],
        )  # fmt: skip
        torch.nn.init.normal_(model.x_pad_token, std=0.02)
        torch.nn.init.normal_(model.cap_pad_token, std=0.02)
    return model.requires_grad_(False).eval()


def names_of(blocks: list[str], kinds: tuple[str, ...]) -> set[str]:
    return {f"{block}.{kind}" for block in blocks for kind in kinds}


LAYERS = [f"layers.{i}" for i in range(4)]


def test_std_is_q_k_v_and_out_of_every_layer() -> None:
    assert set(target_modules(tiny(), "std")) == names_of(LAYERS, ATTENTION)


def test_ext_adds_the_feed_forward_layers() -> None:
    assert set(target_modules(tiny(), "ext")) == names_of(LAYERS, ATTENTION + FEED_FORWARD)


@pytest.mark.parametrize(("targets", "kinds"), [("std", ATTENTION), ("ext", ATTENTION + FEED_FORWARD)])
def test_refiners_are_trained_only_on_request(targets: str, kinds: tuple[str, ...]) -> None:
    blocks = [*LAYERS, "noise_refiner.0", "context_refiner.0"]
    assert set(target_modules(tiny(), targets, refiners=True)) == names_of(blocks, kinds)


# ---- patterns and blocks ---------------------------------------------------------------------------------------------


def test_a_pattern_is_the_end_of_a_name_or_a_regular_expression_of_it_all() -> None:
    model = tiny()
    assert set(target_modules(model, ["feed_forward.w2"])) == names_of(LAYERS, ("feed_forward.w2",))
    assert set(target_modules(model, ["to_k", r"layers\.[01]\..*w3"])) == (
        names_of(LAYERS, ("attention.to_k",)) | names_of(LAYERS[:2], ("feed_forward.w3",))
    )
    assert target_modules(model, [r"noise_refiner\.0\..*to_q"], refiners=True) == ["noise_refiner.0.attention.to_q"]


def test_one_block_is_a_number_to_yaml() -> None:
    config = build_config({"lora": {"blocks": 3}})
    assert config.lora.blocks == "3"
    assert build_config({"lora": {"blocks": config.lora.blocks}}) == config


def test_blocks_say_which_layers_are_trained_and_leave_refiners_alone() -> None:
    model = tiny()
    assert set(target_modules(model, "std", blocks="0-1,3")) == names_of([LAYERS[0], LAYERS[1], LAYERS[3]], ATTENTION)
    chosen = names_of(["layers.2", "noise_refiner.0", "context_refiner.0"], ATTENTION)
    assert set(target_modules(model, "std", refiners=True, blocks="2")) == chosen


@pytest.mark.parametrize(
    ("lora", "said"),
    [
        ({"targets": ["atention.to_q"]}, r"'atention\.to_q' matches no module \(near: attention\.to_q"),
        ({"targets": ["to_q", "proj"]}, r"'proj' matches no module \((near|there are)"),
        ({"targets": ["noise_refiner.0.attention.to_q"]}, r"leave out \(widen them\)"),
        ({"targets": ["layers.3.attention.to_q"], "blocks": "0-1"}, r"leave out \(widen them\)"),
        ({"blocks": "2-5"}, r"lora\.blocks: 2-5: this model has blocks 0-3, and no 4"),
        ({"targets": [".*"]}, r"cannot be trained: .*section 5\.4"),
    ],
)
def test_what_matches_nothing_or_too_much_is_refused(lora: dict[str, object], said: str) -> None:
    with pytest.raises(TargetsError, match=said):
        target_modules(tiny(), **{"targets": "std", **lora})


@pytest.mark.parametrize(
    "lora", [{"targets": ["("]}, {"targets": []}, {"blocks": "9-0"}, {"blocks": "a"}, {"blocks": ""}]
)
def test_a_pattern_or_range_that_is_none_is_an_error_of_the_config(lora: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=r"lora\.(targets|blocks)"):
        build_config({"lora": lora})


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("layers.0.attention_norm1", "norm"),
        ("layers.0.attention.norm_q", "norm"),
        ("layers.3.adaLN_modulation.0", "adaLN"),
        ("t_embedder.mlp.0", "embedders"),
        ("cap_embedder.1", "embedders"),
        ("all_x_embedder.2-1", "embedders"),
        ("all_final_layer.2-1.linear", "final layer"),
    ],
)
def test_forbidden_modules_are_refused_with_the_reason(name: str, reason: str) -> None:
    with pytest.raises(LoraError, match=rf"{name} cannot be trained: .*{reason}.*section 5\.4"):
        refuse_forbidden(["layers.0.attention.to_q", name])
    with pytest.raises(LoraError, match="cannot be trained"):
        inject(tiny(), [name], 4, 4, seed=0)


def test_a_model_without_such_layers_is_refused() -> None:
    with pytest.raises(LoraError, match="no module to train"):
        target_modules(torch.nn.Sequential(torch.nn.Linear(2, 2)), "std")


@pytest.mark.parametrize(("targets", "millions"), [("std", 14.7), ("ext", 35.0)])
def test_the_full_model_has_the_number_of_trainable_parameters_that_facts_name(targets: str, millions: float) -> None:
    with torch.device("meta"):
        full = ZImageTransformer2DModel()
    modules = dict(full.named_modules())
    names = target_modules(full, targets)
    count = sum(16 * (modules[name].in_features + modules[name].out_features) for name in names)
    assert count / 1e6 == pytest.approx(millions, abs=0.05)
    assert sum(p.numel() for p in full.parameters()) / 1e9 == pytest.approx(6.15, abs=0.01)


@pytest.mark.parametrize(
    "lora",
    [
        {"targets": "std"},
        {"targets": "ext", "refiners": True},
        {"targets": "ext", "blocks": "1-2"},
        {"targets": ["to_q", "w2"], "refiners": True, "use_dora": True},
    ],
)
def test_check_announces_the_number_that_is_then_trained(
    tiny_model: Path, photo_folder: Path, tmp_path: Path, lora: dict[str, Any]
) -> None:
    config = build_config({"model": str(tiny_model), "dataset": str(photo_folder), "lora": lora})
    announced = check(config, "my.yaml", tmp_path).trainable_parameters
    transformer = load_transformer(Checkpoint(str(tiny_model)), torch.float32, CPU)
    wanted = config.lora
    modules = target_modules(transformer, wanted.targets, wanted.refiners, wanted.blocks)
    trained = inject(transformer, modules, 16, 16, seed=0, use_dora=wanted.use_dora)
    assert announced == sum(p.numel() for p in trained)


# ---- injecting -------------------------------------------------------------------------------------------------------


def test_lora_weights_are_fp32_on_a_bf16_base_and_only_they_train() -> None:
    model = tiny().to(torch.bfloat16)
    modules = target_modules(model, "std")
    trainable = inject(model, modules, rank=4, alpha=8, seed=0)
    assert {p.dtype for p in trainable} == {torch.float32}
    assert len(trainable) == 2 * len(modules)
    assert {id(p) for p in model.parameters() if p.requires_grad} == {id(p) for p in trainable}
    assert {p.dtype for p in model.parameters() if not p.requires_grad} == {torch.bfloat16}


def test_a_bf16_base_gets_bf16_inputs_and_gives_finite_gradients_to_fp32_weights() -> None:
    model = tiny().to(torch.bfloat16)
    trainable = inject(model, target_modules(model, "std"), rank=4, alpha=8, seed=0)
    v = velocity(model, torch.randn(2, 16, 8, 8), torch.tensor([0.5, 0.9]), [torch.randn(5, 64), torch.randn(9, 64)])
    assert v.dtype == torch.float32
    v.square().mean().backward()
    gradients = [p.grad for p in trainable]
    assert all(g is not None and torch.isfinite(g).all() for g in gradients)
    assert any(g.abs().max() > 0 for g in gradients if g is not None)


def predict(model: torch.nn.Module) -> torch.Tensor:
    source = torch.Generator().manual_seed(1)
    x = torch.randn(1, 16, 8, 8, generator=source)
    caption = torch.randn(6, 64, generator=source)
    with torch.no_grad():
        return velocity(model, x, torch.tensor([0.7]), [caption])


@pytest.mark.parametrize("use_dora", [False, True])
def test_a_new_lora_changes_nothing_yet(use_dora: bool) -> None:
    model = tiny()
    before = predict(model)
    inject(model, target_modules(model, "ext"), rank=4, alpha=4, seed=0, use_dora=use_dora)
    assert torch.allclose(predict(model), before, atol=1e-5)


def test_a_new_dora_on_a_bf16_base_starts_at_the_true_row_lengths() -> None:
    """peft takes them in bf16, which is off by up to 0.4 %."""
    model = tiny().to(torch.bfloat16)
    inject(model, target_modules(model, "std"), rank=4, alpha=4, seed=0, use_dora=True)
    layer = model.layers[0].attention.to_q
    lengths = layer.base_layer.weight.double().norm(dim=1)
    assert torch.allclose(weights(model)["layers.0.attention.to_q.lora_magnitude_vector"].double(), lengths, rtol=1e-6)
    predict(model).square().mean()
    assert all(p.dtype == torch.float32 for p in model.parameters() if p.requires_grad)


def test_rslora_scales_by_the_root_of_the_rank() -> None:
    assert scaling(16, 8, use_rslora=False) == 0.5
    assert scaling(16, 8, use_rslora=True) == 2.0
    model = tiny()
    inject(model, ["layers.0.attention.to_q"], rank=16, alpha=8, seed=0, use_rslora=True)
    assert model.layers[0].attention.to_q.scaling["default"] == 2.0


def test_the_same_seed_starts_the_same_lora_and_the_global_generator_is_left_alone() -> None:
    started = []
    for noise in (1, 2):
        torch.manual_seed(noise)
        before = torch.get_rng_state()
        model = tiny()
        inject(model, target_modules(model, "std"), rank=4, alpha=4, seed=7)
        assert torch.equal(torch.get_rng_state(), before)
        started.append(weights(model))
    assert all(torch.equal(started[0][name], started[1][name]) for name in started[0])


def test_the_lora_turns_off_and_on_again() -> None:
    model = tiny()
    base = predict(model)
    trainable = inject(model, target_modules(model, "std"), rank=4, alpha=4, seed=0)
    for index, parameter in enumerate(trainable):
        torch.nn.init.normal_(parameter.data, std=0.05, generator=torch.Generator().manual_seed(index))
    tuned = predict(model)
    assert not torch.allclose(tuned, base, atol=1e-4)
    set_active(model, False)
    assert torch.allclose(predict(model), base, atol=1e-6)
    set_active(model, True)
    assert torch.equal(predict(model), tuned)
    assert all(parameter.requires_grad for parameter in trainable)


def test_weights_of_another_shape_or_set_are_refused() -> None:
    model = tiny()
    inject(model, target_modules(model, "std"), rank=4, alpha=4, seed=0)
    good = {name: value.clone() for name, value in weights(model).items()}
    first = next(iter(good))
    with pytest.raises(LoraError, match="shape"):
        load_weights(model, good | {first: good[first][:2]})
    with pytest.raises(LoraError, match="modules differ"):
        load_weights(model, {name: value for name, value in good.items() if name != first})
    load_weights(model, good)


# ---- the sign and time of Z-Image ------------------------------------------------------------------------------------


def test_the_velocity_is_the_negative_output_at_one_minus_sigma() -> None:
    """FACTS section 1: a model whose output is x0 - noise, asked at time 1 - sigma."""
    asked: dict[str, object] = {}

    class Oracle(torch.nn.Module):
        dtype = torch.float32

        def __init__(self) -> None:
            super().__init__()
            self.x_pad_token = torch.nn.Parameter(torch.zeros(1), requires_grad=False)

        def forward(self, x, t, captions, return_dict=True):
            asked.update(
                time=t.tolist(), shapes=[tuple(item.shape) for item in x], captions=[c.shape for c in captions]
            )
            return ([(x0 - noise).unsqueeze(1)],)

    x0, noise = torch.randn(16, 8, 8), torch.randn(16, 8, 8)
    predicted = velocity(Oracle(), (0.3 * noise + 0.7 * x0)[None], torch.tensor([0.3]), [torch.zeros(4, 64)])
    assert torch.equal(predicted[0], noise - x0)
    assert asked["time"] == pytest.approx([0.7])
    assert asked["shapes"] == [(16, 1, 8, 8)]
