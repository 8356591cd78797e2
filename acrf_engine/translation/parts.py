"""What more than one trainer's config has: optimizers, schedules, precisions, and why keys are left out."""

from __future__ import annotations

from pathlib import PurePath

from acrf_engine.translation.ledger import Z_IMAGE, Ledger

OPTIMIZERS = {
    "adamw": "AdamW",
    "adamw8bit": "AdamW8bit",
    "pagedadamw8bit": "PagedAdamW8bit",
    "lion8bit": "Lion8bit",
    "adafactor": "Adafactor",
    "prodigy": "Prodigy",
}
TRACKERS = ("tensorboard", "wandb", "trackio")
ADAPTIVE = ("prodigy", "dadapt", "automagic")
"""Optimizers that scale the rate themselves: theirs, often 1.0, would wreck a LoRA with any other."""
SCHEDULES = {
    "constant": "constant",
    "constantwithwarmup": "constant",
    "linear": "linear",
    "cosine": "cosine",
    "cosinewithrestarts": "cosine_with_restarts",
    "cosinewithhardrestarts": "cosine_with_restarts",
    "polynomial": "polynomial",
}
PRECISIONS = {"bf16": "bf16", "bfloat16": "bf16", "fp32": "fp32", "float32": "fp32", "no": "fp32", "float": "fp32"}

METHOD = "AC-RF draws its training times from anchors (turbo_steps, anchors, jitter_scale)"
LOSS = "the loss here is AC-RF's own (group `loss`)"
TEXT_ENCODER = "the text encoder is never trained here"
CACHED = "latents and captions are always cached here"
BUCKETS = "pictures always go into buckets here, by the model's own rules"
CAPTIONS = "captions are used as they are written, after trigger and prefix"
AUGMENTATION = "of augmentations only flips (data.flip) are here"
LOGGING = "every run is logged in its own folder (logging.trackers feeds other programs)"
PREVIEW = "previews are drawn at the training size with CFG off"
COMMON_REASONS = (
    (r"(min_|max_)?timestep.*|noise_?.*|.*noise_offset.*|.*flow_shift|shift|sigmoid_scale|.*noising.*", METHOD),
    (r"weighting_scheme|logit_(mean|std)|mode_scale|content_or_style|.*timestep_shift(ing)?", METHOD),
    (r"loss_(type|weight.*|scaler)|huber.*|masked_loss|(mse|mae|log_cosh|vb_loss)_.*", LOSS),
    (r"(train_)?text_encoder.*|network_train_unet_only|train_unet|te_lr|clip_skip|max_token_length", TEXT_ENCODER),
    (r"cache_.*|vae_batch_size|skip_cache_check|.*_caching|clear_cache.*|caching_threads", CACHED),
    (r".*bucket.*", BUCKETS),
    (r"shuffle_(caption|tokens)|keep_tokens.*|caption_(tag|separator|suffix).*|.*tag.*|.*caps_.*", CAPTIONS),
    (r"color_aug|random_crop|face_crop.*|enable_(random|fixed)_.*|enable_crop_jitter|flip_y|scale", AUGMENTATION),
    (r"log.*|wandb.*|tensorboard.*|use_ui_logger|performance_log_every", LOGGING),
    (r"output_(dir|name|.*)|training_folder|workspace_dir|.*_dir|name|version", "a run has its own folder (--name)"),
    (r"save_(precision|dtype|model_as|format|state.*)|dtype|no_metadata|hash_latents.*", "LoRA files are in fp32"),
    (r"xformers|sdpa|mem_eff_attn|attention_(mechanism|backend)|compile.*|torch_compile|.*quant.*|qtype(_te)?|low_vram|"
     r"fp8.*|blocks_to_swap|.*offload.*|highvram|lowram|full_(bf16|fp16)|weight_dtype|.*_weight_dtype",
     "see group `memory` for what this trainer can do"),
    (r"guidance_scale|neg(ative)?(_prompt)?|sampler|sample_sampler|walk_seed|width|height|.*cfg.*", PREVIEW),
)  # fmt: skip


def model(ledger: Ledger, key: str) -> None:
    """A folder or hub id of Z-Image, or one .safetensors file of its transformer; another model is listed."""
    name = str(ledger.peek(key) or "")
    kind = PurePath(name).suffix
    if not name:
        ledger.leave(key, "empty")
    elif kind in (".ckpt", ".pt", ".pth", ".bin", ".gguf", ".sft"):
        ledger.leave(key, f"{kind} files are not read; this trainer takes a folder in diffusers layout, or a hub id")
    elif "z-image" not in name.lower().replace("_", "-").replace("zimage", "z-image"):
        ledger.leave(key, f"not Z-Image by its name; this trainer trains Z-Image ({Z_IMAGE} is put in)")
    elif kind == ".safetensors":
        if ledger.put("base.transformer", name, key):
            ledger.notes.append(
                "base.transformer has the transformer alone: `model` gives VAE, text encoder and the rest"
            )
    else:
        ledger.put("model", name, key)


def optimizer(ledger: Ledger, key: str, rate: str, default: str = "") -> None:
    """Their optimizer where it is here too, and the learning rate where it has a meaning for ours."""
    name = str(ledger.peek(key, "") or default)
    plain = name.lower().replace("_", "").replace("-", "").rpartition(".")[2]
    if not ledger.has(key):
        if default:
            ledger.default("optimizer", default)
        taken = True
    elif plain in OPTIMIZERS:
        ledger.move(rate, "learning_rate")  # first, since Prodigy is refused at the default rate
        taken = ledger.put("optimizer", OPTIMIZERS[plain], key)
    else:
        taken = False
        ledger.leave(key, "not among the optimizers here")
    if not taken and plain.startswith(ADAPTIVE):
        ledger.leave(rate, f"a rate for {name}, which scales it itself; 1e-4 is the default here")
    else:
        ledger.move(rate, "learning_rate")


def schedule(ledger: Ledger, key: str, cycles: str, warmup: str, default: str) -> None:
    """Shape, restarts and warm-up. `warmup` below 1 is a share of the run."""
    name = str(ledger.peek(key, default))
    ours = SCHEDULES.get(name.lower().replace("_", "").replace(" ", ""))
    if ours is None:
        ledger.leave(key, f"not among the schedules here ({default} is put in)")
        ledger.default("scheduler", default)
    elif ledger.has(key):
        if not ledger.put("scheduler", ours, key):
            ledger.default("scheduler", default)
    else:
        ledger.default("scheduler", ours)
    if ledger.ours.get("scheduler") == "cosine_with_restarts":
        origin = "" if ledger.has(cycles) else f"{ledger.trainer}'s default"
        ledger.put("schedule.cycles", max(1, int(ledger.peek(cycles, 1) or 1)), cycles, why=origin)
    else:
        ledger.leave(cycles, "only cosine_with_restarts has cycles")
    steps = ledger.peek(warmup)
    if isinstance(steps, float) and 0 < steps < 1:
        ledger.put("schedule.warmup_ratio", steps, warmup)
    else:
        ledger.move(warmup, "schedule.warmup_steps")


def trackers(ledger: Ledger, key: str, *names: str) -> None:
    """The trackers that `key` asks for by these names, where they are here too."""
    if found := [name for name in names if name in TRACKERS]:
        ledger.put("logging.trackers", found, key)
    else:
        ledger.leave(key, f"of trackers, {', '.join(TRACKERS)} are here (logging.trackers)")


def precision(ledger: Ledger, key: str) -> None:
    value = str(ledger.peek(key, "")).lower().replace("_", "")
    if value in PRECISIONS:
        ledger.put("memory.dtype", PRECISIONS[value], key)
    else:
        ledger.leave(key, "Z-Image overflows in fp16; here it is bf16 or fp32 (memory.dtype)")


def checkpointing(ledger: Ledger, key: str) -> None:
    value = ledger.peek(key)
    if isinstance(value, bool):
        ledger.put("memory.gradient_checkpointing", "on" if value else "off", key)


def same_everywhere(ledger: Ledger, keys: list[str], ours: str) -> None:
    """A setting that they have by folder and we for all: taken where all folders agree."""
    keys = [key for key in keys if ledger.has(key)]
    values = {str(ledger.peek(key)) for key in keys}
    if len(values) == 1:
        ledger.put(ours, ledger.peek(keys[0]), *keys)
    for key in keys:
        ledger.leave(key, f"one value for all folders here ({ours})")
