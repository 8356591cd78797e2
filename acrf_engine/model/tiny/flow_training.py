"""Stage 3 of pretraining: transformer and text encoder together, by flow matching."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.models.qwen2.tokenization_qwen2 import Qwen2Tokenizer
from transformers.models.qwen3.modeling_qwen3 import Qwen3Model

from . import architecture
from .fitting import Fitting, Options, Progress, Report, step_rng, torch_generator
from .scene_latents import SceneBatchSource, draw_batch
from .scenes import random_caption, random_scene

BATCH = 32
SIGMA_SHIFT = 3.0
UNIFORM_SIGMAS = 0.3
"""Share of the training sigmas that are uniform; the rest are shifted as at inference."""


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
        rng = step_rng(options.seed, 4, fitting.step)
        clean, captions = draw_batch(sources, rng, BATCH)
        loss = flow_loss(fitting.model, tokenizer, clean.to(options.device), captions, torch_generator(rng))
        fitting.update(loss)
        progress.add(fitting.step, loss.item())
        if fitting.step % 250 == 0 or fitting.step == options.flow_steps:
            fitting.save()
    return fitting.average, tokenizer


def _hidden_in_flow(name: str) -> bool:
    return any(part in name for part in (".attention.", ".feed_forward.", ".self_attn.", ".mlp."))


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
    rng = step_rng(seed, 5, 0)
    return [random_caption(random_scene(rng), rng, remarks=n % 10 == 0) for n in range(4000)]
