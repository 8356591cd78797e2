"""Section 5: what is trained, what must not be, and how many parameters that are."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import ZImageTransformer2DModel

from acrf_engine.check import check
from acrf_engine.config import build_config
from acrf_engine.model.layout import Checkpoint
from acrf_engine.model.lora import (
    LoraError,
    inject,
    load_weights,
    refuse_forbidden,
    set_active,
    target_modules,
    weights,
)
from acrf_engine.model.zimage import load_transformer, velocity

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


@pytest.mark.parametrize(("targets", "refiners"), [("std", False), ("ext", False), ("std", True), ("ext", True)])
def test_check_announces_the_number_that_is_then_trained(
    tiny_model: Path, photo_folder: Path, tmp_path: Path, targets: str, refiners: bool
) -> None:
    lora = {"targets": targets, "refiners": refiners}
    config = build_config({"model": str(tiny_model), "dataset": str(photo_folder), "lora": lora})
    announced = check(config, "my.yaml", tmp_path).trainable_parameters
    transformer = load_transformer(Checkpoint(str(tiny_model)), torch.float32, CPU)
    modules = target_modules(transformer, targets, refiners)
    assert announced == sum(p.numel() for p in inject(transformer, modules, 16, 16, seed=0))


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


def test_a_new_lora_changes_nothing_yet() -> None:
    model = tiny()
    before = predict(model)
    inject(model, target_modules(model, "ext"), rank=4, alpha=4, seed=0)
    assert torch.allclose(predict(model), before, atol=1e-6)


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
            self.frozen = torch.nn.Parameter(torch.zeros(1), requires_grad=False)

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
