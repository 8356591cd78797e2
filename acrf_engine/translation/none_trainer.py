"""None trainer (TOML), the public implementation of AC-RF: its names are mostly the paper's."""

from __future__ import annotations

import re
from pathlib import Path, PurePath, PureWindowsPath
from typing import Any

from acrf_engine.translation import parts, pictures
from acrf_engine.translation.ledger import Ledger, flat

NAME = "None trainer"
PLAIN = {
    "acrf.turbo_steps": "turbo_steps",
    "acrf.jitter_scale": "jitter_scale",
    "lora.network_dim": "network_dim",
    "lora.network_alpha": "network_alpha",
    "training.weight_decay": "optimization.weight_decay",
    "training.lambda_l1": "loss.lambda_char",
    "training.lambda_cosine": "loss.lambda_cos",
    "training.lambda_fft": "loss.lambda_fft",
    "training.num_train_epochs": "epochs",
    "training.gradient_accumulation_steps": "gradient_accumulation",
    "training.seed": "seed",
    "advanced.seed": "seed",
    "advanced.max_grad_norm": "optimization.max_grad_norm",
    "dataset.batch_size": "batch_size",
    "dataset.num_workers": "data.num_workers",
}
OTHER_LOSSES = "its frequency and style losses are not the paper's (group `loss` has Charbonnier, cosine and FFT)"
REASONS = (
    (r"alpha_hf|beta_lf|lambda_(freq|style|struct|light|color|tex|mse)|enable_(freq|style)|loss_mode", OTHER_LOSSES),
    (r"raft_mode|free_stream_ratio|latent_jitter_scale", "not in the paper: training stays on the anchors"),
    (r"snr_floor", "the floor of the weights is 0.1, as in the paper (section 3.4)"),
    (r"auto_optimize|gpu_tier|gpu_memory_gb", "see group `memory`"),
    (r"shuffle|max_sequence_length|cache_arch", "always so here, as the pipeline does it"),
    *parts.COMMON_REASONS,
)


def translate(values: dict[str, Any], path: Path) -> Ledger:
    """Their config, taken over."""
    ledger = Ledger(NAME, {key: value for key, value in flat(values).items() if value not in ("", None)})
    for key, ours in PLAIN.items():
        ledger.move(key, ours)
    if "loss.lambda_char" in ledger.ours:
        ledger.notes.append("training.lambda_l1: the paper's Charbonnier loss stands for their L1")
    for key in ("training.snr_gamma", "acrf.snr_gamma"):
        ledger.move(key, "snr_gamma")
    if ledger.peek("acrf.shift") == 3:
        ledger.take("acrf.shift")  # what every Z-Image checkpoint says itself
    ledger.leave("acrf.shift", "the shift is read from the checkpoint's own scheduler")
    parts.optimizer(ledger, "training.optimizer_type", "training.learning_rate", "AdamW8bit")
    parts.schedule(ledger, "training.lr_scheduler", "training.lr_num_cycles", "training.lr_warmup_steps", "constant")
    for section in ("training", "advanced"):
        if ledger.has(f"{section}.mixed_precision"):
            parts.precision(ledger, f"{section}.mixed_precision")
        parts.checkpointing(ledger, f"{section}.gradient_checkpointing")
    for key in [key for key in ledger.theirs if key.rpartition(".")[2] == "save_every_n_epochs"]:
        ledger.move(key, "checkpoint.every_epochs")
    _model(ledger)
    _data(ledger)
    ledger.default("gradient_accumulation", 1)
    ledger.close(REASONS)
    return ledger


def _model(ledger: Ledger) -> None:
    """They name the transformer's folder; ours is the one that it lies in."""
    given = str(ledger.peek("model.dit", ""))
    pure: PurePath = PureWindowsPath(given) if re.match(r"[A-Za-z]:[\\/]", given) else PurePath(given)
    if pure.name == "transformer":
        ledger.put("model", pure.parent.as_posix(), "model.dit")
    else:
        parts.model(ledger, "model.dit")


def _data(ledger: Ledger) -> None:
    folders = []
    for key in list(ledger.theirs):
        match = re.fullmatch(r"dataset\.(sources|datasets)\.(\d+)\.(cache_directory|image_directory|path)", key)
        if match is None:
            continue
        source = key.rpartition(".")[0]
        folder = pictures.Folder.at(ledger, key)
        folder.repeats(ledger, f"{source}.num_repeats")
        folder.sized(ledger, f"{source}.resolution_limit", several=False)
        folders.append(folder)
    pictures.place(ledger, folders)
    if folders:
        ledger.notes.append("their cache files are not read: pictures and captions have to lie in that folder")
