"""The real classes of Z-Image at a tiny size: transformer, VAE, text encoder, tokenizer and scheduler.

Every part is of the class that the full model uses, so code that runs on one runs on the other; only the sizes differ.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import chain

import torch
from diffusers.models.attention_processor import Attention
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_z_image import ZImageTransformer2DModel
from diffusers.pipelines.z_image.pipeline_z_image import ZImagePipeline
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import nn
from transformers.models.qwen2.tokenization_qwen2 import Qwen2Tokenizer
from transformers.models.qwen3.configuration_qwen3 import Qwen3Config
from transformers.models.qwen3.modeling_qwen3 import Qwen3Model

CAPTION_WIDTH = 64
"""Width of the caption embeddings that the transformer reads."""

LATENT_CHANNELS = 16

VOCABULARY = 768
"""At most this many tokens: 256 bytes, the special tokens, and merges learned from captions."""

END_OF_TEXT, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"

CHAT_TEMPLATE = (
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}"
    "{{- '<|im_start|>assistant\\n' }}"
    "{%- if enable_thinking is defined and enable_thinking is false %}"
    "{{- '<think>\\n\\n</think>\\n\\n' }}"
    "{%- endif %}"
    "{%- endif %}"
)
"""What Qwen3's template does with plain turns: thinking is on unless it is switched off."""


def build_transformer() -> ZImageTransformer2DModel:
    """A Z-Image transformer of about 2 million parameters, with every parameter initialised.

    Rotary tables are as long as in the full model: shorter ones fail on long captions and large pictures.
    """
    transformer = ZImageTransformer2DModel(
        in_channels=LATENT_CHANNELS,
        dim=128,
        n_layers=4,
        n_refiner_layers=1,
        n_heads=4,
        n_kv_heads=4,
        cap_feat_dim=CAPTION_WIDTH,
        axes_dims=[16, 8, 8],
        axes_lens=[1024, 512, 512],
    )
    with torch.no_grad():
        for token in (transformer.x_pad_token, transformer.cap_pad_token):
            token.normal_(0.0, 0.02)  # some releases of diffusers leave these two uninitialised
        for final in transformer.all_final_layer.values():
            final.linear.weight.mul_(0.1)
            final.linear.bias.zero_()
    return transformer


def build_vae() -> AutoencoderKL:
    """A VAE of about 1.3 million parameters: 16 channels, 8 pixels a cell, no quantisation convolutions.

    `scaling_factor` and `shift_factor` are set once its latents are known (see `pretrain`).
    """
    blocks = 4
    vae = AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * blocks,
        up_block_types=("UpDecoderBlock2D",) * blocks,
        block_out_channels=(16, 32, 64, 80),
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=2,
        sample_size=64,
        scaling_factor=1.0,
        shift_factor=0.0,
        use_quant_conv=False,
        use_post_quant_conv=False,
        force_upcast=False,
    )
    _start_as_shortcuts(vae)
    return vae


def _start_as_shortcuts(vae: AutoencoderKL) -> None:
    """Zero the last layer of every residual branch: at first only the shortcuts act, and colours are learned early."""
    for module in vae.modules():
        if isinstance(module, ResnetBlock2D):
            nn.init.zeros_(module.conv2.weight)
        elif isinstance(module, Attention):
            nn.init.zeros_(module.to_out[0].weight)


def build_tokenizer(texts: Iterable[str]) -> Qwen2Tokenizer:
    """A byte-level BPE tokenizer with merges from `texts`; any other text falls back to bytes.

    Text is split and padded (on the right) as by the full model's tokenizer, and the chat template is the same.
    """
    splitting = Qwen2Tokenizer().backend_tokenizer
    core = Tokenizer(models.BPE())
    core.normalizer, core.pre_tokenizer = splitting.normalizer, splitting.pre_tokenizer
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        min_frequency=2,
        special_tokens=[END_OF_TEXT, TURN_START, TURN_END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(chain(["user", "assistant"] * 2, texts), trainer)
    learned = json.loads(core.to_str())["model"]
    return Qwen2Tokenizer(
        vocab=learned["vocab"],
        merges=[tuple(merge) for merge in learned["merges"]],
        eos_token=TURN_END,
        pad_token=END_OF_TEXT,
        extra_special_tokens=[TURN_START, TURN_END],
        padding_side="right",
        model_max_length=1024,
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def build_text_encoder(vocabulary: int) -> Qwen3Model:
    """A Qwen3 of three layers. The pipeline reads `hidden_states[-2]`: the output of the second layer."""
    return Qwen3Model(
        Qwen3Config(
            vocab_size=vocabulary,
            hidden_size=CAPTION_WIDTH,
            intermediate_size=192,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=32,
            max_position_embeddings=1024,
            rope_theta=10000.0,
            tie_word_embeddings=True,
            use_cache=False,
        )
    )


def build_scheduler() -> FlowMatchEulerDiscreteScheduler:
    """The schedule of the full Turbo model: 1000 steps, shift 3, no dynamic shifting."""
    return FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=3.0, use_dynamic_shifting=False)


def assemble(
    transformer: ZImageTransformer2DModel,
    vae: AutoencoderKL,
    text_encoder: Qwen3Model,
    tokenizer: Qwen2Tokenizer,
) -> ZImagePipeline:
    """The parts as a pipeline, ready to draw or to be saved in diffusers layout."""
    return ZImagePipeline(
        scheduler=build_scheduler(),
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        transformer=transformer,
    )
