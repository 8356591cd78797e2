"""What fits on the card: blocks recomputed, weights in fewer bits, offloaded, compiled; each on the tiny model.

Only that a card holds less needs CUDA. That the numbers are right, that a LoRA learns on such a base, that its file
loads and that a resumed run goes on exactly, is seen here.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from exactly import all_equal, everything, trace, train, weights_of
from torch import Tensor

from acrf_engine.check import check
from acrf_engine.config import RunConfig
from acrf_engine.memory_config import MemoryConfig
from acrf_engine.model import lora
from acrf_engine.model.adapter import from_training
from acrf_engine.model.attention import backend_names, require_backend, try_backend
from acrf_engine.model.export import read
from acrf_engine.model.layout import Checkpoint, ModelError
from acrf_engine.model.quantise import base_settings, text_encoder_settings
from acrf_engine.model.zimage import Encoders, load_transformer
from acrf_engine.protocol import Command, WarningEvent
from acrf_engine.training.previews import draw_previews
from acrf_engine.training.recovery import Recovery
from acrf_engine.training.trainer import Trainer
from acrf_engine.yaml_source import ConfigError

Make = Callable[..., Trainer]
MakeConfig = Callable[..., RunConfig]
CPU = torch.device("cpu")
FEW: dict[str, Any] = {"gradient_accumulation": 1, "steps": 6}


class Kept:
    """The bytes that autograd keeps for backward, weights aside, each storage once."""

    def __init__(self, model: torch.nn.Module) -> None:
        self._own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
        self._seen: dict[int, torch.UntypedStorage] = {}

    def pack(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self._own:
            self._seen[storage.data_ptr()] = storage
        return tensor

    def bytes(self) -> int:
        return sum(storage.nbytes() for storage in self._seen.values())


def kept_in_a_forward(trainer: Trainer) -> int:
    """Backward is not run: what a recomputed block keeps then is not in it."""
    kept = Kept(trainer.transformer)
    batch = trainer._load_batch(0)
    with torch.autograd.graph.saved_tensors_hooks(kept.pack, lambda tensor: tensor):
        trainer._velocity(batch.latents_BCHW, torch.full((len(batch.indices),), 0.5), batch.captions)
    return kept.bytes()


def test_recomputed_blocks_change_the_memory_and_not_one_bit_of_the_numbers(make_trainer: Make) -> None:
    found = {}
    for choice in ("off", "every other", "1-3", "on"):
        trainer = make_trainer(choice[:3], **FEW, memory={"gradient_checkpointing": choice}, lora={"dropout": 0.1})
        found[choice] = (kept_in_a_forward(trainer), trace(train(trainer, 3)), weights_of(trainer))
    for _, steps, weights in found.values():
        assert steps == found["off"][1]
        assert all_equal(weights, found["off"][2])
    sizes = [found[choice][0] for choice in ("off", "every other", "1-3", "on")]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[1] < 0.6 * sizes[0]
    assert sizes[3] < 0.1 * sizes[0]


def test_a_choice_of_blocks_is_a_word_a_range_or_yes_and_no(make_config: MakeConfig, make_trainer: Make) -> None:
    for given, wanted in ((True, "on"), (False, "off"), (3, "3"), ("0-1, 3", "0-1, 3"), ("every other", "every other")):
        assert make_config(memory={"gradient_checkpointing": given}).memory.gradient_checkpointing == wanted
    with pytest.raises(ConfigError, match=r"memory\.gradient_checkpointing"):
        make_config(memory={"gradient_checkpointing": "3-1"})
    with pytest.raises(ModelError, match=r"gradient_checkpointing: 2-9: this model has blocks 0-3, no 4"):
        make_trainer(**FEW, memory={"gradient_checkpointing": "2-9"})


@pytest.mark.parametrize("quantization", ["int8", "nf4", "fp8"])
def test_a_lora_learns_on_a_quantised_base_is_saved_and_goes_on_exactly_whatever_was_drawn(
    quantization: str, make_trainer: Make, tmp_path: Path
) -> None:
    values: dict[str, Any] = {**FEW, "memory": {"quantization": quantization}}
    plain = train(make_trainer("plain", **FEW), 1)
    straight = make_trainer("straight", **values)
    steps = train(straight, 3)
    assert steps[0].loss == pytest.approx(plain[0].loss, rel=0.05)
    assert steps[0].loss != plain[0].loss
    straight.save_checkpoint()
    draw_previews(straight)
    steps += train(straight, 3)

    path = tmp_path / "lora.safetensors"
    straight.save_lora(path)
    config = straight.config
    scale = lora.scaling(config.network_dim, config.network_alpha, False)
    trained = from_training(lora.weights(straight.prepared.transformer), scale)
    loaded, _ = read(path)
    assert all(torch.equal(factors.down_RI, trained[name].down_RI) for name, factors in loaded.items())
    assert any(factors.up_OR.abs().max() > 0 for factors in loaded.values())

    resumed = make_trainer("straight", **values)
    assert trace(train(resumed, 3)) == trace(steps[3:])
    assert all_equal(everything(resumed), everything(straight))


@pytest.mark.parametrize(("quantization", "share"), [("int8", 0.32), ("nf4", 0.2), ("fp8", 0.32)])
def test_quantised_weights_take_the_room_that_their_bits_say(quantization: str, share: float, tiny_model: Path) -> None:
    memory = MemoryConfig.model_validate({"quantization": quantization})
    checkpoint = Checkpoint(str(tiny_model))
    model = load_transformer(checkpoint, torch.float32, CPU, memory)
    names = ("attention.to_q", "attention.to_out.0", "feed_forward.w1", "feed_forward.w2")
    stored = [model.get_submodule(f"layers.0.{name}").weight for name in names]
    full = [checkpoint.transformer_shapes()[f"layers.0.{name}.weight"] for name in names]
    taken = sum(weight.numel() * weight.element_size() for weight in stored if isinstance(weight, Tensor))
    assert taken <= share * sum(4 * rows * columns for rows, columns in full)
    assert all(
        model.get_submodule(name).weight.dtype == torch.float32 for name in ("cap_embedder.1", "t_embedder.mlp.0")
    )


def test_what_a_card_would_be_asked_for_is_diffusers_and_transformers_own_config() -> None:
    nf4, int8 = base_settings("nf4", torch.bfloat16), base_settings("int8", torch.bfloat16)
    assert (nf4.bnb_4bit_quant_type, nf4.bnb_4bit_use_double_quant, nf4.bnb_4bit_compute_dtype) == (
        "nf4", True, torch.bfloat16,
    )  # fmt: skip
    assert int8.load_in_8bit
    assert "adaLN_modulation" in nf4.llm_int8_skip_modules
    assert base_settings("fp8", torch.bfloat16) is base_settings("none", torch.bfloat16) is None
    assert text_encoder_settings("nf4", torch.bfloat16).load_in_4bit
    assert {type(nf4).__module__.split(".")[0], type(text_encoder_settings("int8", torch.float32)).__module__[:12]} == {
        "diffusers", "transformers",
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["int8", "nf4"])
def test_captions_are_nearly_the_same_from_a_quantised_text_encoder_and_cached_apart(
    kind: str, tiny_model: Path
) -> None:
    checkpoint = Checkpoint(str(tiny_model))
    whole, small = Encoders(checkpoint, CPU, torch.float32), Encoders(checkpoint, CPU, torch.float32, kind)
    a, b = whole.encode_caption("a red circle"), small.encode_caption("a red circle")
    assert a.shape == b.shape
    assert 0.9 < torch.nn.functional.cosine_similarity(a.flatten(), b.flatten(), dim=0) < 1
    assert whole.fingerprint != small.fingerprint


def test_offloaded_weights_are_never_read_where_they_wait(make_trainer: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A card is played: what is offloaded becomes NaN until it is brought back."""
    from diffusers.hooks.group_offloading import ModuleGroup

    plain = make_trainer("plain", **FEW, memory={"gradient_checkpointing": "on"})
    wanted = trace(train(plain, 2))
    waiting: dict[Tensor, Tensor] = {}

    def values(group: Any) -> list[Tensor]:
        return [value for module in group.modules for value in module.parameters()] + list(group.parameters)

    def offload(group: Any) -> None:
        for value in values(group):
            waiting.setdefault(value, value.data)
            value.data = torch.full_like(value.data, torch.nan)

    def onload(group: Any) -> None:
        for value in values(group):
            value.data = waiting.pop(value, value.data)

    monkeypatch.setattr(ModuleGroup, "_offload_to_memory", offload)
    monkeypatch.setattr(ModuleGroup, "_onload_from_memory", onload)
    trainer = make_trainer("offloaded", **FEW, memory={"offload": True})
    assert trace(train(trainer, 2)) == wanted
    assert len(waiting) > 40
    names = {id(value): name for name, value in trainer.prepared.transformer.named_parameters()}
    assert not any("lora_" in names.get(id(value), "") for value in waiting)


def test_vram_of_an_offloaded_run_is_not_given_back_twice(make_trainer: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    from acrf_engine.training.session import Session

    said: list[Any] = []
    trainer = make_trainer(**FEW, memory={"offload": True})
    monkeypatch.setattr(trainer.prepared, "device", torch.device("cuda"))
    session = Session(trainer, said.append, None, lambda: None, [])  # type: ignore[arg-type]  # no command is read
    session.paused = True
    session._free_vram(Command("free-vram", "1"))
    assert not said[-1].ok
    assert "memory.offload" in said[-1].message


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"memory": {"offload": True, "quantization": "nf4"}}, "not quantised"),
        ({"memory": {"offload": True, "gradient_checkpointing": "off"}}, "gradient_checkpointing: on"),
        ({"memory": {"quantization": "fp8", "gradient_checkpointing": "every other"}}, "gradient_checkpointing: on"),
        ({"memory": {"compile": True, "quantization": "int8"}}, "compile takes a base"),
        ({"memory": {"quantization": "int8"}, "lora": {"use_dora": True}}, "use nf4 or none"),
        ({"memory": {"attention": "sage"}}, "no backward"),
        ({"memory": {"vram": 12, "device": "cpu"}}, "vram has no effect"),
    ],
)
def test_what_does_not_go_together_is_refused_with_what_to_do(
    values: dict[str, Any], said: str, make_config: MakeConfig
) -> None:
    with pytest.raises(ConfigError, match=said):
        make_config(**values)


def test_backends_of_attention_are_diffusers_own_and_an_unknown_one_is_refused_with_the_list() -> None:
    from diffusers.models.attention_dispatch import AttentionBackendName

    assert backend_names() == tuple(name.value for name in AttentionBackendName)
    with pytest.raises(ModelError, match=r"'flesh' is none of diffusers' backends \(flash, .*native"):
        require_backend("flesh")


def test_a_backend_that_cannot_train_on_a_cpu_is_refused_by_check_as_at_start() -> None:
    for batch_size in (1, 2):
        found: dict[str, list[str]] = {"check": [], "start": []}
        for name in backend_names():
            with contextlib.suppress(ModelError):
                require_backend(name, on_gpu=False, batch_size=batch_size)
                found["check"].append(name)
            with contextlib.suppress(ModelError):
                try_backend(name, CPU, torch.float32, batch_size)
                found["start"].append(name)
        assert found["check"] == found["start"]
        assert "native" in found["start"]
    with pytest.raises(ModelError, match=r"_native_flash takes no mask.*batch_size 1"):
        require_backend("_native_flash", batch_size=2)
    with pytest.raises(ModelError, match=r"xformers needs the package xformers, which is not installed"):
        require_backend("xformers")


def test_what_only_a_card_can_do_is_refused_without_one(make_trainer: Make, make_config: MakeConfig) -> None:
    with pytest.raises(ModelError, match=r"memory\.vram: a run on cpu cannot be held to it"):
        make_trainer(**FEW, memory={"vram": 12})
    if sys.platform != "darwin":
        with pytest.raises(ModelError, match=r"memory\.device: mps .*Metal"):
            check(make_config(memory={"device": "mps"}), "mps", Path())


def test_another_backend_gives_the_same_numbers_nearly_and_one_that_is_not_installed_is_refused(
    make_trainer: Make,
) -> None:
    native = train(make_trainer("native", **FEW), 2)
    math = train(make_trainer("math", **FEW, memory={"attention": "_native_math"}), 2)
    assert [step.loss for step in math] == pytest.approx([step.loss for step in native], rel=1e-4)
    again = train(make_trainer("again", **FEW), 2)
    assert [step.loss for step in again] == [step.loss for step in native], "the backend of another model is not kept"
    with pytest.raises(ModelError, match=r"memory\.attention: xformers cannot train on a CPU"):
        make_trainer("xformers", **FEW, memory={"attention": "xformers"})


@pytest.mark.full_only
def test_where_blocks_cannot_be_compiled_the_run_goes_on_and_says_so(
    make_trainer: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch._inductor.config

    wanted = trace(train(make_trainer("plain", **FEW), 2))
    monkeypatch.setattr(torch._inductor.config.cpp, "cxx", ("no-such-compiler",))
    monkeypatch.setattr(torch._inductor.config, "force_disable_caches", True)
    said: list[Any] = []
    trainer = make_trainer("compiled", **FEW, memory={"compile": True})
    recovery = Recovery(trainer, trainer.config.safety, said.append)
    steps = [recovery.step(), recovery.step()]
    assert trace([step for step in steps if step is not None]) == wanted
    assert [type(event) for event in said] == [WarningEvent]
    assert "cannot be compiled" in said[0].message
