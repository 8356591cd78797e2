"""LoRA files: they load into diffusers at the strength that was trained, in every format, or they were not saved."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, ZImagePipeline, ZImageTransformer2DModel
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file, save_file

from acrf_engine.__main__ import main
from acrf_engine.config import build_config
from acrf_engine.model import export as exporting
from acrf_engine.model import lora_metadata, tensor_file
from acrf_engine.model.adapter import Factors, Lora, effect_difference, from_training, require_same_effect
from acrf_engine.model.base_weights import BaseWeights
from acrf_engine.model.errors import LoraError
from acrf_engine.model.export import export, read, save
from acrf_engine.model.formats import FORMATS
from acrf_engine.model.layout import Checkpoint
from acrf_engine.model.lora import inject, scaling, target_modules, weights
from acrf_engine.model.zimage import load_transformer, velocity
from acrf_engine.preview.picture import draw

RANK, ALPHA = 4, 10.0
CPU = torch.device("cpu")
KINDS: dict[str, dict[str, Any]] = {
    "alpha unlike rank": {"targets": "std"},
    "ext": {"targets": "ext"},
    "rsLoRA": {"targets": "std", "use_rslora": True},
    "DoRA": {"targets": "ext", "use_dora": True},
    "DoRA with rsLoRA": {"targets": "std", "use_dora": True, "use_rslora": True},
}


def predict(model: torch.nn.Module) -> torch.Tensor:
    source = torch.Generator().manual_seed(1)
    x = torch.randn(2, 16, 8, 8, generator=source)
    captions = [torch.randn(6, 64, generator=source), torch.randn(40, 64, generator=source)]
    with torch.no_grad():
        return velocity(model, x, torch.tensor([0.7, 0.2]), captions)


@dataclass(frozen=True)
class Trained:
    """A LoRA as after a training, refiners included, and what the model then predicts."""

    lora: Lora
    output: torch.Tensor
    metadata: dict[str, str]
    is_dora: bool


Fresh = Callable[[], ZImageTransformer2DModel]


@pytest.fixture(scope="module")
def fresh(tiny_model: Path) -> Fresh:
    return lambda: load_transformer(Checkpoint(str(tiny_model)), torch.float32, CPU)


@pytest.fixture(scope="module")
def base_output(fresh: Fresh) -> torch.Tensor:
    return predict(fresh())


def train(model: ZImageTransformer2DModel, kind: dict[str, Any], base_model: str) -> Trained:
    use_rslora, use_dora = kind.get("use_rslora", False), kind.get("use_dora", False)
    names = target_modules(model, kind["targets"], refiners=True)
    parameters = inject(model, names, RANK, ALPHA, 0, use_rslora=use_rslora, use_dora=use_dora)
    for index, parameter in enumerate(parameters):
        noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(index))
        parameter.data = parameter.data * (1 + 0.05 * noise) if parameter.dim() == 1 else 0.03 * noise
    config = build_config({"model": base_model, "network_dim": RANK, "network_alpha": ALPHA, "trigger": "sks"})
    metadata = lora_metadata.of_training(
        config, name="my", step=3, total_steps=9, epoch=0.5, resolution=64, started=1_700_000_000.5
    )
    lora = from_training(weights(model), scaling(RANK, ALPHA, use_rslora))
    return Trained(lora, predict(model), metadata, use_dora)


@pytest.fixture(scope="module", params=list(KINDS))
def trained(request: pytest.FixtureRequest, fresh: Fresh, tiny_model: Path) -> Trained:
    return train(fresh(), KINDS[request.param], str(tiny_model))


@pytest.fixture(scope="module")
def plain(fresh: Fresh, tiny_model: Path) -> Trained:
    return train(fresh(), KINDS["alpha unlike rank"], str(tiny_model))


@pytest.fixture
def saved(tmp_path: Path, plain: Trained) -> Path:
    path = tmp_path / "my.safetensors"
    assert save(path, plain.lora, plain.metadata) == len(plain.lora)
    return path


def through_diffusers(path: Path, transformer: ZImageTransformer2DModel) -> torch.Tensor:
    pipeline = ZImagePipeline(FlowMatchEulerDiscreteScheduler(shift=3.0), None, None, None, transformer)
    pipeline.load_lora_weights(str(path.parent), weight_name=path.name)
    assert pipeline.get_active_adapters()
    return predict(pipeline.transformer)


def as_comfyui_applies(path: Path, transformer: ZImageTransformer2DModel) -> torch.Tensor:
    """Its rule, by formula: W + up @ down, rows times dora_scale over the length of the row of W."""
    tensors = load_file(path)
    for name in [name for name in tensors if name.endswith(".lora_A.weight")]:
        module = name.removeprefix("diffusion_model.").removesuffix(".lora_A.weight")
        weight = transformer.get_submodule(module).weight.data
        changed = weight + tensors[name.replace("lora_A", "lora_B")] @ tensors[name]
        scale = tensors.get(f"diffusion_model.{module}.dora_scale")
        if scale is not None:
            assert scale.shape == (weight.shape[0], 1)
            changed = changed * (scale / (weight.norm(dim=1, keepdim=True) + torch.finfo(torch.float32).eps))
        weight.copy_(changed)
    return predict(transformer)


# ---- strength --------------------------------------------------------------------------------------------------------


def test_a_saved_file_gives_in_diffusers_what_the_trained_model_gave(
    trained: Trained, fresh: Fresh, base_output: torch.Tensor, tmp_path: Path
) -> None:
    path = tmp_path / "my.safetensors"
    save(path, trained.lora, trained.metadata)
    loaded = through_diffusers(path, fresh())
    assert (loaded - trained.output).abs().max().item() < 1e-5
    assert (loaded - base_output).abs().max().item() > 1e-2


@pytest.mark.parametrize("kind", FORMATS)
def test_every_export_gives_what_the_trained_model_gave(
    kind: Any, trained: Trained, fresh: Fresh, tmp_path: Path
) -> None:
    source, target = tmp_path / "my.safetensors", tmp_path / "out" / f"{kind}.safetensors"
    save(source, trained.lora, trained.metadata)
    if trained.is_dora and kind == "kohya":
        with pytest.raises(LoraError, match="kohya format cannot hold this DoRA"):
            export(source, kind, target)
        assert not target.exists()
        return
    assert export(source, kind, target) == len(trained.lora)
    reader = as_comfyui_applies if trained.is_dora and kind == "comfyui" else through_diffusers
    assert (reader(target, fresh()) - trained.output).abs().max().item() < 1e-5
    assert tensor_file.read(target)[1]["ss_network_dim"] == str(RANK)


@pytest.mark.parametrize("first", FORMATS)
@pytest.mark.parametrize("then", FORMATS)
def test_from_any_format_into_any_other_the_effect_stays(saved: Path, plain: Trained, first: Any, then: Any) -> None:
    between, target = saved.with_name("between.safetensors"), saved.with_name("last.safetensors")
    export(saved, first, between)
    export(between, then, target)
    require_same_effect(read(target)[0], plain.lora)


def test_a_comfyui_dora_needs_its_base_and_comes_back_with_it(fresh: Fresh, tiny_model: Path, tmp_path: Path) -> None:
    trained = train(fresh(), KINDS["DoRA"], "somewhere/else")
    source, target = tmp_path / "d.safetensors", tmp_path / "c.safetensors"
    save(source, trained.lora, trained.metadata)
    export(source, "comfyui", target, model=str(tiny_model))
    with pytest.raises(LoraError, match="says nothing without the base model"):
        read(target)
    back, _ = read(target, BaseWeights(Checkpoint(str(tiny_model))))
    require_same_effect(back, trained.lora)


def test_comfyui_names_every_module_by_its_path(saved: Path, plain: Trained) -> None:
    target = saved.with_name("c.safetensors")
    export(saved, "comfyui", target)
    assert set(load_file(target)) == {
        f"diffusion_model.{module}.lora_{m}.weight" for module in plain.lora for m in "AB"
    }


def test_kohya_names_every_module_with_its_alpha(saved: Path, plain: Trained) -> None:
    target = saved.with_name("k.safetensors")
    export(saved, "kohya", target)
    tensors = load_file(target)
    assert "lora_unet_layers_0_attention_to_q.lora_down.weight" in tensors
    assert "lora_unet_noise_refiner_0_attention_to_out_0.lora_up.weight" in tensors
    assert {value.item() for name, value in tensors.items() if name.endswith(".alpha")} == {RANK}
    assert len(tensors) == len(plain.lora) * 3


def test_files_of_others_are_read_with_their_alpha_their_peft_settings_and_their_fused_modules(tmp_path: Path) -> None:
    down, up = torch.randn(4, 8), torch.randn(24, 4)
    block = "layers.0.attention"
    files = {
        "kohya": ({f"lora_unet_{block.replace('.', '_')}_qkv.lora_down.weight": down,
                   f"lora_unet_{block.replace('.', '_')}_qkv.lora_up.weight": up,
                   f"lora_unet_{block.replace('.', '_')}_qkv.alpha": torch.tensor(2.0)}, {}, 0.5),
        "peft": ({f"transformer.{block}.qkv.lora_A.weight": down, f"transformer.{block}.qkv.lora_B.weight": up},
                 {"lora_adapter_metadata": '{"transformer.r": 4, "transformer.lora_alpha": 8,'
                                           ' "transformer.use_rslora": true}'}, 4.0),
        "bare": ({f"{block}.qkv.lora_A.default.weight": down, f"{block}.qkv.lora_B.default.weight": up}, {}, 1.0),
    }  # fmt: skip
    for name, (tensors, metadata, scale) in files.items():
        path = tmp_path / f"{name}.safetensors"
        save_file(tensors, path, metadata)
        lora, _ = read(path)
        assert list(lora) == [f"{block}.to_{letter}" for letter in "qkv"]
        whole = torch.cat([factors.delta() for factors in lora.values()])
        torch.testing.assert_close(whole, scale * up @ down)


@pytest.mark.parametrize("with_settings", [True, False])
@pytest.mark.parametrize("kind", ["alpha unlike rank", "rsLoRA", "DoRA"])
def test_what_diffusers_itself_saves_is_read_at_the_strength_at_which_it_loads(
    kind: str, with_settings: bool, fresh: Fresh, tmp_path: Path
) -> None:
    """With peft's settings in the metadata it loads at the trained strength, without at alpha = rank."""
    model = fresh()
    train(model, KINDS[kind], "tiny")
    settings = {"transformer_lora_adapter_metadata": model.peft_config["default"].to_dict()} if with_settings else {}
    ZImagePipeline.save_lora_weights(str(tmp_path), get_peft_model_state_dict(model), **settings)
    path = tmp_path / "pytorch_lora_weights.safetensors"
    expected = through_diffusers(path, fresh())
    save(tmp_path / "ours.safetensors", read(path)[0], {})
    assert (through_diffusers(tmp_path / "ours.safetensors", fresh()) - expected).abs().max() < 1e-5


def test_raw_peft_weights_are_read_with_the_config_beside_them_and_refused_without(tmp_path: Path) -> None:
    down, up = torch.randn(4, 8), torch.randn(24, 4)
    name = "base_model.model.layers.0.attention.to_q"
    path = tmp_path / "adapter_model.safetensors"
    save_file({f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up}, path)
    with pytest.raises(LoraError, match="nothing in the file says how strong"):
        read(path)
    (tmp_path / "adapter_config.json").write_text('{"r": 4, "lora_alpha": 6, "use_rslora": false, "alpha_pattern": {}}')
    lora, _ = read(path)
    torch.testing.assert_close(lora["layers.0.attention.to_q"].delta(), 1.5 * up @ down)


def test_the_difference_of_effects_is_that_of_the_full_matrices() -> None:
    source = torch.Generator().manual_seed(0)
    down, up = torch.randn(4, 30, generator=source), torch.randn(20, 4, generator=source)
    mixed = torch.randn(4, 4, generator=source)
    same = Factors(torch.linalg.solve(mixed, down), up @ mixed)
    assert effect_difference(same, Factors(down, up)) < 1e-5
    other = Factors(down + 1e-3 * torch.randn(4, 30, generator=source), up)
    full = (other.delta() - up @ down).norm() / (up @ down).norm()
    assert effect_difference(other, Factors(down, up)) == pytest.approx(full.item(), rel=1e-3)


# ---- metadata and bytes ----------------------------------------------------------------------------------------------


def test_the_metadata_tells_other_tools_what_the_file_is(saved: Path) -> None:
    metadata = tensor_file.read(saved)[1]
    assert metadata["ss_network_dim"] == metadata["ss_network_alpha"] == str(RANK)
    assert metadata["modelspec.trigger_phrase"] == "sks"
    assert metadata["modelspec.date"] == "2023-11-14T22:13:20+00:00"
    assert metadata["modelspec.resolution"] == "64x64"
    for key in ("sai_model_spec", "architecture", "implementation", "title"):  # what the specification demands
        assert metadata[f"modelspec.{key}"]
    assert metadata["ss_steps"] == "3"
    assert metadata["ss_learning_rate"] == "0.0001"


def test_the_hash_of_a_file_is_that_of_its_tensors(saved: Path) -> None:
    """As kohya's trainer and the model specification define it: all bytes after the header."""
    raw = saved.read_bytes()
    data = raw[8 + int.from_bytes(raw[:8], "little") :]
    metadata = tensor_file.read(saved)[1]
    assert metadata["sshs_model_hash"] == hashlib.sha256(data).hexdigest()
    assert metadata["modelspec.hash_sha256"] == "0x" + metadata["sshs_model_hash"]


@pytest.mark.parametrize("floats", [4, 262_100, 262_144, 400_000])
def test_the_legacy_hash_is_of_the_bytes_after_the_first_mebibyte(floats: int) -> None:
    tensors = {"a": torch.arange(floats, dtype=torch.float32)}
    ours = {"ss_steps": "3", "ss_output_name": "x", "other": "left out"}
    plain = tensor_file.to_bytes(tensors, {key: value for key, value in ours.items() if key.startswith("ss_")})
    expected = hashlib.sha256(plain[0x100000:0x110000]).hexdigest()[:8]
    assert tensor_file.with_hashes(tensors, ours)["sshs_legacy_hash"] == expected


def test_the_same_weights_are_the_same_bytes(saved: Path, plain: Trained) -> None:
    again = saved.with_name("again.safetensors")
    save(again, plain.lora, dict(reversed(plain.metadata.items())))
    assert again.read_bytes() == saved.read_bytes()
    assert tensor_file.read(again)[0].keys() == load_file(saved).keys()


# ---- what must fail --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_a_failed_save_and_leave_no_file(
    tmp_path: Path, plain: Trained, bad: float
) -> None:
    name = list(plain.lora)[3]
    spoiled = Factors(plain.lora[name].down_RI, plain.lora[name].up_OR * bad)
    with pytest.raises(LoraError, match=f"not finite.*{name}"):
        save(tmp_path / "bad.safetensors", {**plain.lora, name: spoiled}, {})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", FORMATS)
def test_a_file_of_another_effect_is_a_failed_save_and_leaves_the_file_that_was_there(
    saved: Path, plain: Trained, kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A writer that doubles one module, or loses one."""
    before = saved.read_bytes()
    writer = getattr(exporting, f"to_{kind}")
    name = next(iter(plain.lora))
    doubled = {**plain.lora, name: Factors(plain.lora[name].down_RI, plain.lora[name].up_OR * 2)}
    lost = {module: factors for module, factors in plain.lora.items() if module != name}
    for wrong in (doubled, lost):
        monkeypatch.setattr(exporting, f"to_{kind}", lambda lora, *base, wrong=wrong: writer(wrong, *base))
        with pytest.raises(LoraError, match=r"a failed save: .*" + name.replace(".", r"\.")):
            save(saved, plain.lora, plain.metadata, kind)
        assert saved.read_bytes() == before
        assert list(saved.parent.iterdir()) == [saved]


def test_what_diffusers_would_read_otherwise_is_a_failed_export(saved: Path) -> None:
    """Were a wrong name both written and read by us, the other reader would still tell."""
    target = saved.with_name("k.safetensors")
    export(saved, "kohya", target)
    tensors, metadata = tensor_file.read(target)
    wrong = {name.replace("to_out_0", "to_out_0_0"): value for name, value in tensors.items()}
    target.write_bytes(tensor_file.to_bytes(wrong, metadata))
    with pytest.raises(LoraError, match="diffusers does not load it as it is"):
        exporting.require_diffusers_reads(target, read(saved)[0])
    assert not target.exists()


@pytest.mark.parametrize("keep", [0, 4, 8, 100, -1])
def test_a_truncated_file_gives_a_clear_error(saved: Path, keep: int) -> None:
    saved.write_bytes(saved.read_bytes()[:keep])
    with pytest.raises(LoraError, match=r"my\.safetensors: not a readable safetensors file"):
        read(saved)
    with pytest.raises(LoraError, match=r"my\.safetensors"):
        export(saved, "kohya", saved.with_name("out.safetensors"))
    assert not saved.with_name("out.safetensors").exists()


def test_a_file_that_is_not_there_a_folder_and_another_kind_of_file_say_so(tmp_path: Path) -> None:
    with pytest.raises(LoraError, match="there is no such file"):
        read(tmp_path / "none.safetensors")
    with pytest.raises(LoraError, match=str(tmp_path)):
        read(tmp_path)
    other = tmp_path / "vae.safetensors"
    save_file({"encoder.weight": torch.zeros(2)}, other)
    with pytest.raises(LoraError, match=r"first strange key: encoder\.weight"):
        export(other, "comfyui", tmp_path / "x.safetensors")
    save_file({"transformer.layers.0.attention.to_q.lokr_w1": torch.zeros(2)}, other)
    with pytest.raises(LoraError, match="this is LoKr, not a LoRA"):
        read(other)
    save_file({"transformer.layers.0.attention.to_q.lora_A.weight": torch.zeros(2, 2)}, other)
    with pytest.raises(LoraError, match="both factors are needed"):
        read(other)


def test_a_file_is_never_exported_onto_itself(saved: Path) -> None:
    before = saved.read_bytes()
    with pytest.raises(LoraError, match="is the file itself"):
        export(saved, "kohya", saved)
    saved.with_name("link.safetensors").symlink_to(saved)
    with pytest.raises(LoraError, match="is the file itself"):
        export(saved.with_name("link.safetensors"), "kohya", saved)
    assert saved.read_bytes() == before


def test_a_place_that_cannot_be_written_is_named(saved: Path, plain: Trained) -> None:
    with pytest.raises(LoraError, match="cannot be written"):
        save(saved / "below" / "x.safetensors", plain.lora, {})


# ---- looking ---------------------------------------------------------------------------------------------------------


def test_a_preview_of_a_file_is_drawn_beside_and_put_in_place(saved: Path, tiny_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "p.png"
    draw(Checkpoint(str(tiny_model)), saved, "a cat", out, steps=1, seed=3, side=None)
    assert [path.name for path in out.parent.iterdir()] == ["p.png"]
    assert out.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(("steps", "size"), [(1, 100), (0, 64)])
def test_a_preview_that_cannot_be_drawn_says_what_is_wrong(
    saved: Path, tiny_model: Path, tmp_path: Path, steps: int, size: int
) -> None:
    """Sides are multiples of 16, and no picture takes less than one step: status 2, not a traceback."""
    command = ["preview", str(saved), "--model", str(tiny_model), "--prompt", "x", "--out", str(tmp_path / "p.png")]
    command += ["--steps", str(steps), "--size", str(size)]
    try:
        status = main(command)
    except SystemExit as left:  # argparse refuses it
        status = left.code
    assert status == 2
    assert not (tmp_path / "p.png").exists()
