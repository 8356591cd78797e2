"""OneTrainer (JSON), with the concepts and samples that it keeps in files of their own."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from acrf_engine.translation import fitting, optimizer_arguments, parts, pictures
from acrf_engine.translation.ledger import Ledger, flat, number

NAME = "OneTrainer"
PLAIN = {
    "batch_size": "batch_size",
    "gradient_accumulation_steps": "gradient_accumulation",
    "epochs": "epochs",
    "lora_rank": "network_dim",
    "lora_alpha": "network_alpha",
    "lora_model_name": "lora.init_from",
    "dropout_probability": "lora.dropout",
    "clip_grad_norm": "optimization.max_grad_norm",
    "optimizer.weight_decay": "optimization.weight_decay",
    "seed": "seed",
    "loss_weight_strength": "snr_gamma",
}
TARGETS = {"attn-only": "std", "attn-mlp": "ext"}
REASONS = (
    (r"optimizer_defaults|uuid|__version|.*_default_.*", "what their program remembers for its own forms"),
    (r"cloud|secrets|embedding.*|additional_embeddings|bundle_.*", "not a part of LoRA training here"),
    (r"oft_.*|lokr_.*|dora_oft|lora_(decompose_.*|weight_dtype)", "a LoRA is trained here (group `lora` says which)"),
    (r"layer_filter.*", "see lora.targets: `std`, `ext`, or patterns of module names"),
    (r"backup.*|rolling_.*|save_.*|prevent_overwrites|continue_last_backup", "see group `checkpoint`"),
    (r"sample.*|samples.*|non_ema_sampling", "see group `preview`"),
    (r"masked_training|unmasked_.*|normalize_masked.*", "see `masks` of a source"),
    (r"enable_resolution_override|resolution_override", "off in their config"),
    (r"validat.*", "no validation by concept here"),
    (r"(train|temp)_device|multi_gpu|device_indexes|.*gradient_reduce.*", "see memory.device"),
    *parts.COMMON_REASONS,
)


def translate(values: dict[str, Any], path: Path) -> Ledger:
    """Their config, taken over."""
    from acrf_engine.translation.source import read_list

    values = dict(values)
    remembered = values.pop("optimizer_defaults", None)
    for key, name in (("concepts", "concept_file_name"), ("samples", "sample_definition_file_name")):
        file = values.get(name)
        if not values.get(key) and isinstance(file, str) and (path.parent / file).is_file():
            values[key] = read_list(path.parent / file)
            values.pop(name)
    theirs = flat(values)
    if remembered:
        theirs["optimizer_defaults"] = "..."
    ledger = Ledger(NAME, {key: value for key, value in theirs.items() if value not in ("", None, [])})
    if not str(ledger.peek("loss_weight_fn", "")).upper().startswith("MIN_SNR"):
        ledger.leave("loss_weight_strength", "the gamma of a weighting that is off in their config")
    ledger.leave("loss_weight_fn", "min-SNR is the weighting here (snr_gamma; 0 turns it off)")
    if ledger.peek("training_method", "LORA") != "LORA" or ledger.peek("peft_type", "LORA") != "LORA":
        ledger.notes.append("their config does not train a LoRA; this one does")
    for key in ("training_method", "peft_type"):
        if ledger.peek(key) == "LORA":
            ledger.take(key)
    for key, ours in PLAIN.items():
        ledger.move(key, ours)
    if ledger.peek("lora_decompose"):
        ledger.put("lora.use_dora", True, "lora_decompose")
        if ledger.take("lora_decompose_output_axis") is not True:
            ledger.notes.append("lora_decompose: here DoRA learns the length of each output's row, not of each input's")
    ledger.take("lora_decompose")
    _targets(ledger)
    parts.model(ledger, "base_model_name")
    if ledger.has("transformer.model_name"):
        parts.model(ledger, "transformer.model_name")
    parts.optimizer(ledger, "optimizer.optimizer", "learning_rate", "AdamW")
    optimizer_arguments.take(ledger, "optimizer")
    parts.schedule(ledger, "learning_rate_scheduler", "learning_rate_cycles", "learning_rate_warmup_steps", "constant")
    if (factor := ledger.peek("learning_rate_min_factor")) is not None:
        rate = ledger.ours.get("learning_rate", 1e-4)
        ledger.put("schedule.min_lr", float(factor) * rate, "learning_rate_min_factor")
    parts.precision(ledger, "train_dtype") if ledger.has("train_dtype") else None
    if (workers := ledger.peek("dataloader_threads")) is not None:
        ledger.put("data.num_workers", min(16, int(workers)), "dataloader_threads")
    _checkpointing(ledger)
    for part, ours in (("transformer", "memory.quantization"), ("text_encoder", "memory.text_encoder")):
        if ledger.has(key := f"{part}.weight_dtype"):
            fitting.stored(ledger, ours, str(ledger.peek(key)), key)
    fitting.compiled(ledger, "compile")
    _average(ledger)
    if ledger.peek("tensorboard") is True:
        parts.trackers(ledger, "tensorboard", "tensorboard")
    _by_steps(ledger, "save_every", "checkpoint.every")
    _by_steps(ledger, "sample_after", "preview.every")
    if ledger.peek("rolling_backup"):
        ledger.put("checkpoint.keep", max(2, int(ledger.peek("rolling_backup_count", 3))), "rolling_backup_count")
    _prompts(ledger)
    _data(ledger)
    for key, value in (("network_dim", 16), ("network_alpha", 1), ("gradient_accumulation", 1)):
        ledger.default(key, value)
    ledger.close(REASONS)
    return ledger


def _targets(ledger: Ledger) -> None:
    preset = ledger.peek("layer_filter_preset")
    if preset in TARGETS:
        ledger.put("lora.targets", TARGETS[str(preset)], "layer_filter_preset", "layer_filter", "layer_filter_regex")


def _checkpointing(ledger: Ledger) -> None:
    value = ledger.peek("gradient_checkpointing")
    if value is None:
        parts.checkpointing(ledger, "transformer.gradient_checkpointing")
    else:  # ON, OFF, CPU_OFFLOADED
        state = "off" if str(value).upper() in ("OFF", "FALSE") else "on"
        ledger.put("memory.gradient_checkpointing", state, "gradient_checkpointing")


def _average(ledger: Ledger) -> None:
    if str(ledger.peek("ema", "OFF")).upper() == "OFF":
        ledger.take("ema")
        ledger.leave("ema_decay", "the moving average is off in their config")
    else:
        ledger.put("optimization.ema_decay", ledger.peek("ema_decay", 0.999), "ema", "ema_decay")


def _by_steps(ledger: Ledger, key: str, ours: str) -> None:
    unit = str(ledger.peek(f"{key}_unit", "NEVER")).upper()
    if unit == "EPOCH" and ours == "checkpoint.every":
        ledger.put("checkpoint.every_epochs", ledger.peek(key), key, f"{key}_unit")
    elif unit == "STEP":
        ledger.put(ours, ledger.peek(key), key, f"{key}_unit")
    elif unit == "NEVER":
        ledger.take(f"{key}_unit")
        ledger.leave(key, "off in their config")
    else:
        ledger.leave(key, f"by {unit.lower()} there, by steps here ({ours})")
        ledger.leave(f"{key}_unit", f"by steps here ({ours})")


def _prompts(ledger: Ledger) -> None:
    keys = [key for key in ledger.theirs if re.fullmatch(r"samples\.\d+\.prompt", key)]
    prompts = [str(ledger.peek(key)) for key in keys if ledger.peek(f"{key.rpartition('.')[0]}.enabled", True)]
    if prompts:
        ledger.put("preview.prompts", prompts[:16], *keys)
    for name, ours in (("diffusion_steps", "preview.steps"), ("seed", "preview.seed")):
        ledger.move(f"samples.0.{name}", ours)


def _data(ledger: Ledger) -> None:
    folders, flips = [], []
    for key in list(ledger.theirs):
        match = re.fullmatch(r"(concepts\.\d+)\.path", key)
        if match is None:
            continue
        place = match[1]
        why = ""
        kind = str(ledger.peek(f"{place}.type", "STANDARD")).upper()
        if ledger.peek(f"{place}.enabled", True) is False:
            why = "this concept is off in their config"
        elif ledger.peek(f"{place}.validation_concept") or kind == "VALIDATION":
            why = "no validation by concept here (validation.holdout holds pictures out)"
        elif kind == "PRIOR_PREDICTION":
            why = "its pictures hold the base's own prediction, which is no target here (see group `regularisation`)"
        if why:
            ledger.leave_all(re.escape(place) + r"\..*", why)
            continue
        folder = pictures.Folder.at(ledger, key)
        folder.keys += [f"{place}.enabled", f"{place}.type"]
        strategy = str(ledger.peek(f"{place}.balancing_strategy", "REPEATS")).upper()
        if strategy == "REPEATS":
            folder.repeats(ledger, f"{place}.balancing")
            folder.repeats(ledger, f"{place}.repeats")
            folder.keys.append(f"{place}.balancing_strategy")
        folder.option(ledger, f"{place}.loss_weight", "weight")
        if ledger.peek(f"{place}.text.prompt_source") == "sample":  # a .txt beside each picture
            folder.keys.append(f"{place}.text.prompt_source")
        else:
            ledger.leave(f"{place}.text.prompt_source", "captions are .txt files beside the pictures, or `captions`")
        own = ledger.peek(f"{place}.image.enable_resolution_override")
        if own:
            folder.keys.append(f"{place}.image.enable_resolution_override")
        _sized(ledger, folder, f"{place}.image.resolution_override" if own else "resolution")
        folders.append(folder)
        flips.append(f"{place}.image.enable_random_flip")
    pictures.place(ledger, folders)
    if not folders and (sizes := pictures.sides(ledger, "resolution", several=False)):
        ledger.put("resolution", sizes[0], "resolution")
    _masks(ledger)
    parts.same_everywhere(ledger, flips, "data.flip")


def _sized(ledger: Ledger, folder: pictures.Folder, key: str) -> None:
    """`512`, `512x768`, or several by commas."""
    text = ledger.peek(key)
    if isinstance(text, str) and "," in text:  # the concept before has split the run's own already
        ledger.theirs[key] = [number(part.strip()) for part in text.split(",")]
    folder.sized(ledger, key)


def _masks(ledger: Ledger) -> None:
    if ledger.peek("masked_training"):
        ledger.leave("masked_training", "masks are in a folder of their own here, under the pictures' names (masks)")
        ledger.notes.append("their masks (NAME-masklabel.png) would be read as pictures: move them to another folder")
