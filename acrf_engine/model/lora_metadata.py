"""What a LoRA file says of itself: modelspec and the `ss_` keys that users' tools read."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime

from acrf_engine.config import RunConfig
from acrf_engine.model.adapter import Lora, is_dora
from acrf_engine.optimizer_config import KINDS, warmup_steps

SPEC_VERSION = "1.0.1"
ARCHITECTURE = "z-image-turbo/lora"


def of_training(
    config: RunConfig, *, name: str, step: int, total_steps: int, epoch: float, resolution: int, started: float
) -> dict[str, str]:
    """Metadata of a LoRA that a run has trained.

    `started`, the run's birth in Unix seconds, is its date: saved again, the same weights give the same bytes. Alpha is
    folded into the weights, so the file's alpha is its rank; the trained one is in `ss_network_args`.
    """
    decay = config.optimization.ema_decay
    adapter = config.lora
    arguments = {
        "targets": adapter.targets,
        "blocks": adapter.blocks,
        "refiners": adapter.refiners,
        "trained_alpha": config.network_alpha,
        "use_rslora": adapter.use_rslora,
        "use_dora": adapter.use_dora,
    }
    side = f"{resolution}x{resolution}"
    metadata = {
        "modelspec.sai_model_spec": SPEC_VERSION,
        "modelspec.architecture": ARCHITECTURE,
        "modelspec.implementation": "diffusers",
        "modelspec.title": name,
        "modelspec.date": datetime.fromtimestamp(int(started), UTC).isoformat(),
        "modelspec.resolution": side,
        "modelspec.prediction_type": "velocity",
        "ss_base_model_version": "z-image-turbo",
        "ss_sd_model_name": config.model,
        "ss_network_module": "peft",
        "ss_network_dim": str(config.network_dim),
        "ss_network_alpha": str(config.network_dim),
        "ss_network_dropout": str(adapter.dropout),
        "ss_network_args": json.dumps(arguments),
        "ss_steps": str(step),
        "ss_max_train_steps": str(total_steps),
        "ss_epoch": f"{epoch:g}",
        "ss_num_epochs": str(config.epochs),
        "ss_learning_rate": str(config.learning_rate),
        "ss_unet_lr": str(config.learning_rate),
        "ss_optimizer": _optimizer(config),
        "ss_lr_scheduler": str(config.scheduler),
        "ss_lr_warmup_steps": str(warmup_steps(config.schedule, total_steps)),
        "ss_batch_size_per_device": str(config.batch_size),
        "ss_gradient_accumulation_steps": str(config.gradient_accumulation),
        "ss_max_grad_norm": str(config.optimization.max_grad_norm),
        "ss_min_snr_gamma": str(config.snr_gamma),
        "ss_caption_dropout_rate": str(config.data.caption_dropout),
        "ss_resolution": f"({resolution}, {resolution})",
        "ss_seed": str(config.seed),
        "ss_training_started_at": str(started),
        "ss_output_name": name,
        "acrf_config_hash": hashlib.sha256(config.model_dump_json().encode()).hexdigest(),
        "acrf_weights": f"moving average (decay {decay:g})" if decay else "as trained",
        "acrf_ema_decay": f"{decay:g}",
    }
    if config.trigger:
        metadata["modelspec.trigger_phrase"] = config.trigger
    return metadata


def _optimizer(config: RunConfig) -> str:
    """Class and arguments, as other trainers write them."""
    path = KINDS[config.optimizer].path if config.optimizer in KINDS else config.optimizer
    arguments = config.optimization.optimizer_args
    return path + (f"({','.join(f'{name}={value}' for name, value in arguments.items())})" if arguments else "")


def of_weights(lora: Lora, former: Mapping[str, str]) -> dict[str, str]:
    """`former` with what the weights themselves say now: rank, alpha, DoRA; without hashes of other tensors."""
    rank = Counter(factors.rank for factors in lora.values()).most_common(1)[0][0]
    left_out = ("sshs_", "modelspec.hash_", "lora_adapter_metadata", "format", "acrf_dora_norm")
    kept = {key: value for key, value in former.items() if not key.startswith(left_out)}
    said = {"ss_network_dim": str(rank), "ss_network_alpha": str(rank)}
    return kept | said | ({"acrf_dora": "true"} if is_dora(lora) else {})
