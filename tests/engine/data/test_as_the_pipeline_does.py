"""What training feeds the model is what the pipeline feeds it, bit for bit in float32."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import skimage.data
import torch
from diffusers.pipelines.z_image.pipeline_z_image import ZImagePipeline
from PIL import Image
from torch import Tensor

from acrf_engine.config import DatasetSource
from acrf_engine.data.batches import BatchPlan
from acrf_engine.data.cache import Cache, CachedDataset, fill
from acrf_engine.data.loader import MicroBatches
from acrf_engine.data.scan import scan
from acrf_engine.method.anchors import scheduler_anchors
from acrf_engine.method.step import Method, MicroStep, acrf_micro_step
from acrf_engine.model.layout import Checkpoint
from acrf_engine.model.zimage import Encoders, load_transformer, velocity

SHORT = "a cat"
LONG = "a photo of a ginger cat that looks into the camera from very near, " * 6
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def pipeline(tiny_model: Path) -> Any:
    """The whole pipeline, loaded as a user of diffusers loads it."""
    return ZImagePipeline.from_pretrained(str(tiny_model), dtype=torch.float32)


@pytest.fixture(scope="module")
def cached(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> CachedDataset:
    """Two squares of the training size and of twice it, one wide picture, with captions of very different length."""
    folder = tmp_path_factory.mktemp("pictures")
    photograph = Image.fromarray(skimage.data.chelsea()).convert("RGB")
    photograph.crop((100, 50, 164, 114)).save(folder / "a.png")
    photograph.crop((100, 50, 228, 178)).save(folder / "b.png")
    photograph.crop((50, 50, 370, 242)).save(folder / "c.png")
    for name, caption in (("a", SHORT), ("b", LONG), ("c", "")):
        (folder / f"{name}.txt").write_text(caption)
    checkpoint = Checkpoint(str(tiny_model))
    return fill(
        scan([DatasetSource(path=str(folder))]),
        64,
        lambda: Encoders(checkpoint, CPU, torch.float32),
        checkpoint.encoders_fingerprint(),
        Cache(tmp_path_factory.mktemp("cache")),
        flip=True,
    )


@pytest.mark.parametrize("index", [0, 1, 2])
def test_latents_are_those_of_the_pipelines_own_preprocessing(pipeline: Any, cached: CachedDataset, index: int) -> None:
    """Both ways: a mirrored picture is encoded as one, for the VAE's latents of it are no mirror image."""
    example = cached.examples[index]
    width, height = example.bucket
    config = pipeline.vae.config
    with torch.no_grad(), Image.open(example.picture.path) as image:
        pixels = pipeline.image_processor.preprocess(image, height=height, width=width)
        for way, ours_CHW in ((pixels, example.latent_CHW), (pixels.flip(-1), example.mirrored().latent_CHW)):
            # The processor's tensor lies in memory channel by channel last, for which convolutions round otherwise.
            latent = pipeline.vae.encode(way.contiguous()).latent_dist.mode()
            assert torch.equal(ours_CHW, ((latent - config.shift_factor) * config.scaling_factor)[0])
    assert not torch.allclose(example.mirrored().latent_CHW, example.latent_CHW.flip(-1), atol=1e-3)


@pytest.mark.parametrize("text", [SHORT, LONG, ""])
def test_embeddings_are_those_of_the_pipelines_encode_prompt(pipeline: Any, cached: CachedDataset, text: str) -> None:
    text = " ".join(text.split())  # as the scan does
    with torch.no_grad():
        embeddings, _ = pipeline.encode_prompt(text, device=CPU, do_classifier_free_guidance=False)
    assert torch.equal(cached.captions[text], embeddings[0])
    assert cached.captions[text].any()


def test_a_dropped_caption_is_the_empty_prompt_of_the_pipeline(pipeline: Any, cached: CachedDataset) -> None:
    plan = BatchPlan([example.bucket for example in cached.examples], [1, 1, 1], 1, 0)
    with torch.no_grad():
        (empty_LD,), _ = pipeline.encode_prompt("", device=CPU, do_classifier_free_guidance=False)
    batches = MicroBatches(cached, plan, seed=0, caption_dropout=1.0)
    for micro_step in range(3):
        (caption_LD,) = batches.at(micro_step).captions
        assert torch.equal(caption_LD, empty_LD)


@pytest.fixture(scope="module")
def step(tiny_model: Path, cached: CachedDataset) -> Callable[[list[int], list[Tensor] | None], MicroStep]:
    """A micro-step on some of the pictures, each always at its own anchor and with its own noise."""
    transformer = load_transformer(Checkpoint(str(tiny_model)), torch.float32, CPU)
    method = Method(scheduler_anchors(10), snr_gamma=0.0, jitter_scale=0.0)

    class OwnAnchors:
        def __init__(self, indices: list[int]) -> None:
            self.indices = indices

        def at(self, draw: int) -> Tensor:
            return torch.tensor([2 + 3 * index for index in self.indices])

    def take(indices: list[int], captions: list[Tensor] | None = None) -> MicroStep:
        examples = [cached.examples[index] for index in indices]
        method.deck = OwnAnchors(indices)  # type: ignore[assignment]
        noise = {index: torch.randn(16, 8, 8, generator=torch.Generator().manual_seed(index)) for index in indices}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch, "randn", lambda shape, generator: torch.stack([noise[i] for i in indices]))
            return acrf_micro_step(
                lambda x, sigma, c: velocity(transformer, x, sigma, c),
                torch.stack([example.latent_CHW for example in examples]),
                captions or [example.caption_LD for example in examples],
                method,
                draw=0,
            )

    return take


def test_a_batch_of_two_gives_the_loss_of_the_two_alone(step: Callable[..., MicroStep], cached: CachedDataset) -> None:
    """Captions of 11 and of more than 90 tokens, padded by the transformer as in the pipeline."""
    lengths = [len(example.caption_LD) for example in cached.examples[:2]]
    assert max(lengths) > 6 * min(lengths)
    both, first, second = step([0, 1]), step([0]), step([1])
    alone_B = torch.cat([first.composite_B, second.composite_B])
    torch.testing.assert_close(both.composite_B, alone_B, rtol=1e-6, atol=0)
    torch.testing.assert_close(both.loss, (first.loss + second.loss) / 2, rtol=1e-6, atol=0)


def test_captions_padded_with_zeros_would_give_another_loss(
    step: Callable[..., MicroStep], cached: CachedDataset
) -> None:
    """So the promise above is one that can be broken."""
    short_LD, long_LD = (example.caption_LD for example in cached.examples[:2])
    padded_LD = torch.cat([short_LD, torch.zeros(len(long_LD) - len(short_LD), short_LD.shape[1])])
    ours, theirs = step([0, 1]).composite_B, step([0, 1], [padded_LD, long_LD]).composite_B
    assert (ours[0] / theirs[0] - 1).abs() > 1e-4
    torch.testing.assert_close(ours[1], theirs[1], rtol=1e-6, atol=0)
