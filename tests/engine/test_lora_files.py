"""LoRA files: they load into diffusers at the strength that was trained, in every format, or they were not saved."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, ZImagePipeline, ZImageTransformer2DModel
from safetensors.torch import load_file, save_file

from acrf_engine.__main__ import main
from acrf_engine.model.export import export
from acrf_engine.model.layout import Checkpoint
from acrf_engine.model.lora import (
    LoraError,
    inject,
    metadata_for,
    read_lora,
    save_lora,
    target_modules,
    weights,
    write_verified,
)
from acrf_engine.model.zimage import load_transformer, velocity
from acrf_engine.preview.picture import draw
from acrf_engine.run.lora_files import metadata_of

RANK, ALPHA = 4, 10.0
CPU = torch.device("cpu")


def predict(model: torch.nn.Module) -> torch.Tensor:
    source = torch.Generator().manual_seed(1)
    x = torch.randn(2, 16, 8, 8, generator=source)
    captions = [torch.randn(6, 64, generator=source), torch.randn(40, 64, generator=source)]
    with torch.no_grad():
        return velocity(model, x, torch.tensor([0.7, 0.2]), captions)


@pytest.fixture(scope="module")
def fresh(tiny_model: Path) -> Callable[[], ZImageTransformer2DModel]:
    return lambda: load_transformer(Checkpoint(str(tiny_model)), torch.float32, CPU)


@pytest.fixture(scope="module")
def base_output(fresh: Callable[[], ZImageTransformer2DModel]) -> torch.Tensor:
    return predict(fresh())


@pytest.fixture(scope="module", params=["std", "ext"])
def trained(
    request: pytest.FixtureRequest, fresh: Callable[[], ZImageTransformer2DModel]
) -> Iterator[tuple[dict[str, torch.Tensor], torch.Tensor]]:
    """LoRA weights as after a training with alpha != rank, refiners included, and what the model then predicts."""
    model = fresh()
    parameters = inject(model, target_modules(model, request.param, refiners=True), RANK, ALPHA, seed=0)
    for index, parameter in enumerate(parameters):
        torch.nn.init.normal_(parameter.data, std=0.03, generator=torch.Generator().manual_seed(index))
    return weights(model), predict(model)


@pytest.fixture
def saved(tmp_path: Path, trained: tuple[dict[str, torch.Tensor], torch.Tensor]) -> Path:
    path = tmp_path / "my.safetensors"
    metadata = metadata_for(
        name="my", base_model="tiny", rank=RANK, alpha=ALPHA, targets="std", step=3, trigger="sks", config_hash="x"
    )
    assert save_lora(path, trained[0], ALPHA, metadata) == len(trained[0]) // 2
    return path


def through_diffusers(path: Path, transformer: ZImageTransformer2DModel) -> torch.Tensor:
    pipeline = ZImagePipeline(FlowMatchEulerDiscreteScheduler(shift=3.0), None, None, None, transformer)
    pipeline.load_lora_weights(str(path.parent), weight_name=path.name)
    assert pipeline.get_active_adapters()
    return predict(pipeline.transformer)


def test_a_file_with_alpha_unlike_rank_gives_in_diffusers_what_the_trained_model_gave(
    saved: Path,
    trained: tuple[dict[str, torch.Tensor], torch.Tensor],
    fresh: Callable[[], ZImageTransformer2DModel],
    base_output: torch.Tensor,
) -> None:
    loaded = through_diffusers(saved, fresh())
    assert (loaded - trained[1]).abs().max().item() < 1e-5
    assert (loaded - base_output).abs().max().item() > 1e-2


@pytest.mark.parametrize("kind", ["diffusers", "comfyui", "kohya"])
def test_every_export_gives_in_diffusers_what_the_trained_model_gave(
    kind: str,
    saved: Path,
    tmp_path: Path,
    trained: tuple[dict[str, torch.Tensor], torch.Tensor],
    fresh: Callable[[], ZImageTransformer2DModel],
) -> None:
    target = tmp_path / "out" / f"{kind}.safetensors"
    assert export(saved, kind, target) == len(trained[0]) // 2
    assert (through_diffusers(target, fresh()) - trained[1]).abs().max().item() < 1e-5
    assert read_lora(target)[1]["ss_network_dim"] == str(RANK)


def test_comfyui_names_every_module_by_its_path_at_the_trained_strength(
    saved: Path, tmp_path: Path, trained: tuple[dict[str, torch.Tensor], torch.Tensor]
) -> None:
    target = tmp_path / "c.safetensors"
    export(saved, "comfyui", target)
    tensors = load_file(target)
    assert set(tensors) == {f"diffusion_model.{name}" for name in trained[0]}
    assert_products(
        trained[0],
        lambda m: (tensors[f"diffusion_model.{m}.lora_A.weight"], tensors[f"diffusion_model.{m}.lora_B.weight"], 1.0),
    )


def test_kohya_names_every_module_with_its_alpha_at_the_trained_strength(
    saved: Path, tmp_path: Path, trained: tuple[dict[str, torch.Tensor], torch.Tensor]
) -> None:
    target = tmp_path / "k.safetensors"
    export(saved, "kohya", target)
    tensors = load_file(target)
    assert "lora_unet_layers_0_attention_to_q.lora_down.weight" in tensors
    assert "lora_unet_layers_0_attention_to_out_0.lora_up.weight" in tensors
    assert len(tensors) == len(trained[0]) // 2 * 3

    def parts(module: str) -> tuple[torch.Tensor, torch.Tensor, float]:
        key = f"lora_unet_{module.replace('.', '_')}"
        down = tensors[f"{key}.lora_down.weight"]
        return down, tensors[f"{key}.lora_up.weight"], tensors[f"{key}.alpha"].item() / down.shape[0]

    assert_products(trained[0], parts)


def assert_products(
    raw: dict[str, torch.Tensor], parts: Callable[[str], tuple[torch.Tensor, torch.Tensor, float]]
) -> None:
    """scale * up @ down of every module is alpha / rank * B @ A of the training."""
    for module in {name.rpartition(".lora_")[0] for name in raw}:
        down, up, scale = parts(module)
        wanted = ALPHA / RANK * raw[f"{module}.lora_B.weight"] @ raw[f"{module}.lora_A.weight"]
        assert torch.allclose(scale * up @ down, wanted, atol=1e-6)


def test_the_metadata_tells_other_tools_what_the_file_is(saved: Path) -> None:
    metadata = metadata_of(saved)
    assert metadata["ss_network_dim"] == metadata["ss_network_alpha"] == str(RANK)
    assert metadata["modelspec.trigger_phrase"] == "sks"
    assert metadata["ss_sd_model_name"] == "tiny"


# ---- what must fail --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_a_failed_save_and_leave_no_file(
    tmp_path: Path, trained: tuple[dict[str, torch.Tensor], torch.Tensor], bad: float
) -> None:
    spoiled = {name: value.clone() for name, value in trained[0].items()}
    name = list(spoiled)[3]
    spoiled[name][0, 0] = bad
    with pytest.raises(LoraError, match=f"not finite.*{name}"):
        save_lora(tmp_path / "bad.safetensors", spoiled, ALPHA, {})
    assert list(tmp_path.iterdir()) == []


def test_a_failed_save_leaves_the_file_that_was_there(
    saved: Path, trained: tuple[dict[str, torch.Tensor], torch.Tensor]
) -> None:
    before = saved.read_bytes()
    with pytest.raises(LoraError):
        save_lora(saved, {name: value * float("nan") for name, value in trained[0].items()}, ALPHA, {})
    assert saved.read_bytes() == before
    assert list(saved.parent.iterdir()) == [saved]


@pytest.mark.parametrize("keep", [0, 4, 8, 100, -1])
def test_a_truncated_file_gives_a_clear_error(saved: Path, keep: int) -> None:
    saved.write_bytes(saved.read_bytes()[:keep])
    with pytest.raises(LoraError, match=r"my\.safetensors: not a readable safetensors file"):
        read_lora(saved)
    with pytest.raises(LoraError, match=r"my\.safetensors"):
        export(saved, "kohya", saved.with_name("out.safetensors"))
    assert not saved.with_name("out.safetensors").exists()


def test_a_file_that_is_not_there_a_folder_and_another_kind_of_file_say_so(tmp_path: Path) -> None:
    with pytest.raises(LoraError, match="there is no such file"):
        read_lora(tmp_path / "none.safetensors")
    with pytest.raises(LoraError, match=str(tmp_path)):
        read_lora(tmp_path)
    other = tmp_path / "vae.safetensors"
    save_file({"encoder.weight": torch.zeros(2)}, other)
    with pytest.raises(LoraError, match=r"first strange key: encoder\.weight"):
        export(other, "comfyui", tmp_path / "x.safetensors")


def test_a_file_is_never_exported_onto_itself(saved: Path) -> None:
    before = saved.read_bytes()
    with pytest.raises(LoraError, match="is the file itself"):
        export(saved, "kohya", saved)
    saved.with_name("link.safetensors").symlink_to(saved)
    with pytest.raises(LoraError, match="is the file itself"):
        export(saved.with_name("link.safetensors"), "kohya", saved)
    assert saved.read_bytes() == before


def test_a_place_that_cannot_be_written_is_named(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(LoraError, match="cannot be written"):
        write_verified(saved / "below" / "x.safetensors", {"a.lora_A.weight": torch.zeros(1)}, {})


# ---- looking ---------------------------------------------------------------------------------------------------------


def test_a_preview_of_a_file_is_drawn_beside_and_put_in_place(saved: Path, tiny_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "p.png"
    draw(str(tiny_model), saved, "a cat", out, steps=1, seed=3, side=None)
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
