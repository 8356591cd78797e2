"""Train the tiny model from nothing and write it as a folder in diffusers layout.

    python -m acrf_engine.model.tiny.pretrain --out DIR [--work DIR] [--seed N] [--vae-steps N] [--flow-steps N]

Three stages, each resumable from `--work`: the VAE on varied pictures, the latents of drawn scenes, then transformer
and text encoder together by flow matching. With the defaults this takes one to two hours on one CPU core. The seed
fixes pictures, captions and noise; whether scikit-image is installed decides if the VAE sees photographs too.
"""

from __future__ import annotations

import argparse
import copy
import math
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.pipelines.z_image.pipeline_z_image import ZImagePipeline
from torch import Tensor, nn
from torch.nn import functional
from transformers.models.qwen2.tokenization_qwen2 import Qwen2Tokenizer
from transformers.models.qwen3.modeling_qwen3 import Qwen3Model

from . import architecture, pictures
from .muon import Muon

VAE_BATCH = 16
FLOW_BATCH = 32
SIZES: tuple[tuple[int, int, float], ...] = ((64, 64, 0.76), (80, 48, 0.12), (48, 80, 0.12))
"""Width, height and share of the scenes; every side is a multiple of 16."""

KL_WEIGHT = 1e-4
"""Of the KL divergence averaged over latent elements; keeps the latents near unit size, hardly costs sharpness."""

EDGE_WEIGHT = 0.5
COARSE_WEIGHT = 2.0
SIGMA_SHIFT = 3.0
REMARKS = 0.08
"""Share of the flow batches whose captions are long. Captions of unlike length in one batch cost half as much again."""

UNIFORM_SIGMAS = 0.3
"""Share of the training sigmas that are uniform; the rest are shifted as at inference."""

Report = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """What the command line chooses."""

    out: Path
    work: Path
    seed: int
    vae_steps: int
    flow_steps: int
    scenes: int
    device: torch.device


# ---------------------------------------------------------------------------------------------- shared machinery


Model = TypeVar("Model", bound=nn.Module)


class Fitting(Generic[Model]):
    """A model being trained: Muon and AdamW, warm-up then cosine, gradient clipping, an averaged copy, checkpoints.

    Parameters whose name `hidden` accepts, if they are matrices or kernels, go to Muon; the others to AdamW. `average`
    is the exponential moving average of the parameters with the given decay; it is what gets exported.
    """

    def __init__(self, model: Model, steps: int, checkpoint: Path, hidden: Callable[[str], bool], decay: float) -> None:
        self.model = model
        self.average = copy.deepcopy(model)
        self.model.train()
        self.average.eval().requires_grad_(False)
        self.steps, self.step, self.decay, self.checkpoint = steps, 0, decay, checkpoint
        named = list(model.named_parameters())
        inner = [parameter for name, parameter in named if parameter.ndim >= 2 and hidden(name)]
        outer = [parameter for name, parameter in named if parameter.ndim < 2 or not hidden(name)]
        self.optimizers: list[torch.optim.Optimizer] = [
            Muon(inner, lr=0.02),
            torch.optim.AdamW(outer, lr=2e-3, betas=(0.9, 0.99), weight_decay=0.01),
        ]
        self.schedules = [torch.optim.lr_scheduler.LambdaLR(each, self._rate) for each in self.optimizers]
        if checkpoint.exists():
            self._load()

    def _rate(self, step: int) -> float:
        """Multiplier of the learning rates: linear over 50 steps, then cosine down to 2 %."""
        progress = min(1.0, step / max(1, self.steps))
        return min(1.0, (step + 1) / 50) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress)))

    def update(self, loss: Tensor) -> None:
        """One optimizer step on `loss`, then the average follows."""
        self.model.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer, schedule in zip(self.optimizers, self.schedules, strict=True):
            optimizer.step()
            schedule.step()
        self.step += 1
        decay = min(self.decay, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(list(self.average.parameters()), list(self.model.parameters()), 1 - decay)

    def save(self) -> None:
        """Write the checkpoint beside its place and rename it, so that an interruption leaves the old one."""
        state = {
            "step": self.step,
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizers": [each.state_dict() for each in self.optimizers],
            "schedules": [each.state_dict() for each in self.schedules],
        }
        partial = self.checkpoint.with_suffix(".partial")
        torch.save(state, partial)
        os.replace(partial, self.checkpoint)

    def _load(self) -> None:
        state = torch.load(self.checkpoint, map_location="cpu", weights_only=True)
        self.step = state["step"]
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        for schedule, saved in zip(self.schedules, state["schedules"], strict=True):
            schedule.load_state_dict(saved)


class Progress:
    """Prints the mean of recent losses every `every` steps."""

    def __init__(self, name: str, total: int, every: int, report: Report) -> None:
        self.name, self.total, self.every, self.report = name, total, every, report
        self.recent: list[float] = []
        self.started = time.monotonic()

    def add(self, step: int, loss: float) -> None:
        """Count one step; `step` starts at 1."""
        self.recent.append(loss)
        if step % self.every == 0 or step == self.total:
            seconds = time.monotonic() - self.started
            mean = sum(self.recent) / len(self.recent)
            self.report(f"{self.name} step {step}/{self.total} loss {mean:.5f} time {seconds:.0f} s")
            self.recent.clear()


def _step_rng(seed: int, stage: int, step: int) -> np.random.Generator:
    """The randomness of one step: it depends on nothing before it, so a resumed stage goes on as if uninterrupted."""
    return np.random.default_rng([seed, stage, step])


def _torch_generator(rng: np.random.Generator) -> torch.Generator:
    return torch.Generator().manual_seed(int(rng.integers(2**62)))


def _to_tensor(drawn: Iterable[pictures.Picture], device: torch.device) -> Tensor:
    """Pictures of one size as float `[B, 3, height, width]` in [-1, 1]."""
    stacked = torch.from_numpy(np.stack(list(drawn)))
    return stacked.to(device).permute(0, 3, 1, 2).float() / 127.5 - 1.0


# --------------------------------------------------------------------------------------------------- stage 1: VAE


def train_vae(options: Options, report: Report) -> AutoencoderKL:
    """Fit the VAE to varied pictures, 64 x 64, and set its scaling and shift from the latents of scenes."""
    vae = architecture.build_vae().to(options.device)
    fitting = Fitting(vae, options.vae_steps, options.work / "vae.pt", _hidden_in_vae, decay=0.99)
    photographs = pictures.load_photographs()
    progress = Progress("vae", options.vae_steps, 50, report)
    while fitting.step < options.vae_steps:
        rng = _step_rng(options.seed, 1, fitting.step)
        target = _to_tensor((pictures.varied_picture(rng, photographs) for _ in range(VAE_BATCH)), options.device)
        loss = vae_loss(fitting.model, target, _torch_generator(rng))
        fitting.update(loss)
        progress.add(fitting.step, loss.item())
        if fitting.step % 250 == 0 or fitting.step == options.vae_steps:
            fitting.save()
    vae = fitting.average
    _measure_latents(vae, options)
    report(f"vae shift {vae.config.shift_factor:.4f} scale {vae.config.scaling_factor:.4f}")
    return vae


def _hidden_in_vae(name: str) -> bool:
    return "conv_in" not in name and not name.startswith("decoder.conv_out")


def vae_loss(vae: AutoencoderKL, target: Tensor, generator: torch.Generator) -> Tensor:
    """Charbonnier distance of pixels and of edges, squared distance of 4 x 4 means, and a small KL term.

    The means carry the colours, which the other terms alone teach late. `target`: `[B, 3, H, W]` in [-1, 1].
    """
    with torch.autocast(target.device.type, torch.bfloat16):
        posterior = vae.encode(target).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=generator).to(target.device)
        drawn = vae.decode(posterior.mean + posterior.std * noise).sample
    drawn = drawn.float()
    loss = _charbonnier(drawn - target)
    for axis in (2, 3):
        loss = loss + EDGE_WEIGHT * _charbonnier(drawn.diff(dim=axis) - target.diff(dim=axis))
    loss = loss + COARSE_WEIGHT * functional.avg_pool2d(drawn - target, 4).square().mean()
    mean, logvar = posterior.mean.float(), posterior.logvar.float()
    return loss + KL_WEIGHT * 0.5 * (mean.square() + logvar.exp() - 1.0 - logvar).mean()


def _charbonnier(difference: Tensor) -> Tensor:
    return (difference.square() + 1e-6).sqrt().mean()


@torch.no_grad()
def _measure_latents(vae: AutoencoderKL, options: Options) -> None:
    """Put into the VAE's config the shift and scale that give the latents of scenes mean 0 and variance 1."""
    rng = _step_rng(options.seed, 2, 0)
    drawn = [pictures.draw_scene(pictures.random_scene(rng), 64, 64, rng) for _ in range(512)]
    latents = vae.encode(_to_tensor(drawn, options.device)).latent_dist.mode()
    vae.register_to_config(shift_factor=latents.mean().item(), scaling_factor=1.0 / latents.std().item())


# ------------------------------------------------------------------------------------------------ stage 2: latents


@dataclass(frozen=True)
class SceneBatchSource:
    """Scenes of one picture size with their latents, float16 `[N, 16, height / 8, width / 8]`, normalised."""

    scenes: list[pictures.Scene]
    latents: Tensor


def encode_scenes(vae: AutoencoderKL, options: Options, report: Report) -> list[SceneBatchSource]:
    """Draw the scenes and encode them, one source for each of `SIZES`.

    Latents are kept in `--work` and used again: a changed VAE, seed or drawing needs a fresh folder.
    """
    sources = []
    for index, (width, height, share) in enumerate(SIZES):
        rng = _step_rng(options.seed, 3, index)
        count = int(options.scenes * share)
        scenes = [pictures.random_scene(rng, width / height) for _ in range(count)]
        kept = options.work / f"latents-{options.scenes}-{width}x{height}.pt"
        if kept.exists():
            latents = torch.load(kept, weights_only=True)
        else:
            drawn = (pictures.draw_scene(scene, width, height, rng) for scene in scenes)
            latents = torch.cat([encode(vae, batch, options.device) for batch in _batches(drawn, 64)])
            torch.save(latents, kept)
        report(f"latents {width}x{height}: {count}, mean {latents.float().mean():.3f} std {latents.float().std():.3f}")
        sources.append(SceneBatchSource(scenes, latents))
    return sources


@torch.no_grad()
def encode(vae: AutoencoderKL, drawn: list[pictures.Picture], device: torch.device) -> Tensor:
    """Normalised latents of pictures of one size, float16 on the CPU."""
    mode = vae.encode(_to_tensor(drawn, device)).latent_dist.mode()
    return ((mode - vae.config.shift_factor) * vae.config.scaling_factor).half().cpu()


def _batches(items: Iterable[pictures.Picture], size: int) -> Iterable[list[pictures.Picture]]:
    batch: list[pictures.Picture] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


# --------------------------------------------------------------------------------------- stage 3: flow matching


def train_flow(
    options: Options, sources: list[SceneBatchSource], report: Report
) -> tuple[nn.ModuleDict, Qwen2Tokenizer]:
    """Fit transformer and text encoder together; gives their averages and the tokenizer."""
    tokenizer = architecture.build_tokenizer(_captions_for_tokenizer(options.seed))
    model = nn.ModuleDict(
        {
            "transformer": architecture.build_transformer(),
            "text_encoder": architecture.build_text_encoder(len(tokenizer)),
        }
    ).to(options.device)
    fitting = Fitting(model, options.flow_steps, options.work / "flow.pt", _hidden_in_flow, decay=0.998)
    progress = Progress("flow", options.flow_steps, 100, report)
    while fitting.step < options.flow_steps:
        rng = _step_rng(options.seed, 4, fitting.step)
        clean, captions = draw_batch(sources, rng, FLOW_BATCH)
        loss = flow_loss(fitting.model, tokenizer, clean.to(options.device), captions, _torch_generator(rng))
        fitting.update(loss)
        progress.add(fitting.step, loss.item())
        if fitting.step % 250 == 0 or fitting.step == options.flow_steps:
            fitting.save()
    return fitting.average, tokenizer


def _hidden_in_flow(name: str) -> bool:
    return any(part in name for part in (".attention.", ".feed_forward.", ".self_attn.", ".mlp."))


def draw_batch(sources: list[SceneBatchSource], rng: np.random.Generator, size: int) -> tuple[Tensor, list[str]]:
    """Latents `[size, 16, H, W]` of one picture size, float32, and a freshly worded caption for each."""
    shares = np.array([share for _, _, share in SIZES])
    source = sources[int(rng.choice(len(sources), p=shares / shares.sum()))]
    rows = rng.integers(len(source.scenes), size=size)
    remarks = bool(rng.random() < REMARKS)
    captions = [pictures.random_caption(source.scenes[row], rng, remarks) for row in rows]
    return source.latents[torch.from_numpy(rows)].float(), captions


def flow_loss(
    model: nn.ModuleDict, tokenizer: Qwen2Tokenizer, clean: Tensor, captions: list[str], generator: torch.Generator
) -> Tensor:
    """Mean squared error of the velocity `noise - clean` at random sigmas.

    The transformer is asked as the pipeline asks it: time is `1 - sigma`, latents and captions come as lists, and its
    output is the negative velocity.
    """
    device = clean.device
    noise = torch.randn(clean.shape, generator=generator).to(device)
    sigma = random_sigmas(clean.shape[0], generator).to(device)
    mixed = torch.lerp(clean, noise, sigma[:, None, None, None])
    embeddings = embed_captions(model["text_encoder"], tokenizer, captions)
    output = model["transformer"](list(mixed.unsqueeze(2)), 1.0 - sigma, embeddings, return_dict=False)[0]
    velocity = -torch.stack(output).squeeze(2)
    return functional.mse_loss(velocity, noise - clean)


def random_sigmas(count: int, generator: torch.Generator) -> Tensor:
    """Noise levels `[count]` in (0, 1): mostly shifted towards noise as at inference, some uniform."""
    uniform = torch.rand(count, generator=generator)
    shifted = SIGMA_SHIFT * uniform / (1.0 + (SIGMA_SHIFT - 1.0) * uniform)
    return torch.where(torch.rand(count, generator=generator) < UNIFORM_SIGMAS, uniform, shifted)


def embed_captions(encoder: Qwen3Model, tokenizer: Qwen2Tokenizer, captions: list[str]) -> list[Tensor]:
    """Caption embeddings as the pipeline makes them: a list of `[tokens, 64]`, padding dropped."""
    turns = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True, enable_thinking=True
        )
        for text in captions
    ]
    tokens = tokenizer(turns, padding=True, truncation=True, max_length=512, return_tensors="pt").to(encoder.device)
    mask = tokens.attention_mask.bool()
    hidden = encoder(input_ids=tokens.input_ids, attention_mask=mask, output_hidden_states=True).hidden_states[-2]
    return [row[keep] for row, keep in zip(hidden, mask, strict=True)]


def _captions_for_tokenizer(seed: int) -> list[str]:
    rng = _step_rng(seed, 5, 0)
    return [pictures.random_caption(pictures.random_scene(rng), rng, remarks=n % 10 == 0) for n in range(4000)]


# --------------------------------------------------------------------------------------------------------- export


def export(pipeline: ZImagePipeline, out: Path) -> None:
    """Write the pipeline in bfloat16, file by file, so that a reader never meets half a file."""
    pipeline.tokenizer.backend_tokenizer.no_padding()  # else the settings of its last call are saved with it
    pipeline.tokenizer.backend_tokenizer.no_truncation()
    out.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=".tiny-", dir=out.parent))
    try:
        pipeline.to(torch.bfloat16).save_pretrained(fresh, safe_serialization=True)
        for path in sorted(fresh.rglob("*")):
            if path.is_file():
                place = out / path.relative_to(fresh)
                place.parent.mkdir(parents=True, exist_ok=True)
                os.replace(path, place)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def sheet_prompts() -> list[str]:
    """Forty-eight prompts: every shape in every colour, backgrounds in turn."""
    backgrounds = list(pictures.BACKGROUNDS)
    scenes = [
        pictures.Scene(shape, colour, backgrounds[(row + column) % len(backgrounds)])
        for row, shape in enumerate(pictures.SHAPES)
        for column, colour in enumerate(pictures.COLOURS)
    ]
    return [pictures.caption(scene) for scene in scenes]


def draw_prompts(folder: Path, prompts: list[str], seed: int, steps: int = 8) -> list[pictures.Picture]:
    """What the exported folder draws at 64 x 64 without guidance; prompt number n uses the noise of `seed + n`."""
    pipeline = ZImagePipeline.from_pretrained(folder, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    drawn: list[pictures.Picture] = []
    for index, prompt in enumerate(prompts):
        generator = torch.Generator().manual_seed(seed + index)
        result = pipeline(
            prompt, height=64, width=64, num_inference_steps=steps, guidance_scale=0.0, generator=generator
        )
        drawn.append(np.asarray(result.images[0]))
    return drawn


# --------------------------------------------------------------------------------------------------- command line


def main(arguments: list[str] | None = None) -> None:
    """Command line: all three stages, the export and a contact sheet."""
    options = _parse(arguments)
    options.work.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(options.seed)

    def report(line: str) -> None:
        print(line, flush=True)

    vae = train_vae(options, report)
    sources = encode_scenes(vae, options, report)
    model, tokenizer = train_flow(options, sources, report)
    export(architecture.assemble(model["transformer"], vae, model["text_encoder"], tokenizer), options.out)
    sheet = pictures.contact_sheet(draw_prompts(options.out, sheet_prompts(), options.seed), len(pictures.COLOURS))
    sheet.save(options.work / "contact.png")
    size = sum(path.stat().st_size for path in options.out.rglob("*") if path.is_file())
    report(f"written {options.out}, {size / 1e6:.2f} MB; contact sheet {options.work / 'contact.png'}")


def _parse(arguments: list[str] | None) -> Options:
    parser = argparse.ArgumentParser(description="Train the tiny model and write it in diffusers layout.")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write the model to")
    parser.add_argument("--work", type=Path, default=Path("tiny-work"), metavar="DIR", help="checkpoints and latents")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--vae-steps", type=int, default=2000)
    parser.add_argument("--flow-steps", type=int, default=10000)
    parser.add_argument("--scenes", type=int, default=20000, help="drawn pictures for flow matching")
    parser.add_argument("--device", default="cpu")
    return Options(
        **{**vars(parser.parse_args(arguments)), "device": torch.device(parser.parse_args(arguments).device)}
    )


if __name__ == "__main__":
    main()
