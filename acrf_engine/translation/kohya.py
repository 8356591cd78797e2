"""kohya's sd-scripts (TOML, with its dataset config) and the JSON that its graphical front end saves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from acrf_engine.translation import fitting, kohya_data, optimizer_arguments, parts
from acrf_engine.translation.ledger import Ledger, flat, number

NAME = "kohya"
GUI_NAMES = {"epoch": "max_train_epochs", "optimizer": "optimizer_type", "LoRA_type": "network_type"}
"""What the front end calls otherwise."""
PLAIN = {
    "network_dim": "network_dim",
    "network_alpha": "network_alpha",
    "network_dropout": "lora.dropout",
    "network_weights": "lora.init_from",
    "gradient_accumulation_steps": "gradient_accumulation",
    "max_grad_norm": "optimization.max_grad_norm",
    "min_snr_gamma": "snr_gamma",
    "max_train_epochs": "epochs",
    "seed": "seed",
    "save_every_n_steps": "checkpoint.every",
    "save_every_n_epochs": "checkpoint.every_epochs",
    "sample_every_n_steps": "preview.every",
}
REASONS = (
    (r"save_n_epoch_ratio|save_last_.*", "see checkpoint.every, every_epochs and keep"),
    (r"sample_.*", "previews are by steps here (preview.every, preview.prompts)"),
    (r"network_module|network_type", "a LoRA is trained here (group `lora` says which)"),
    (r"algo|conv_(dim|alpha)|rank_dropout|module_dropout|factor|preset", "a LoRA of two factors is trained here"),
    (r"validat.*", "pictures are held out by number here (validation.holdout, every)"),
    (r"unet_lr", "one rate here, and learning_rate is given too"),
    (r"ae|vae|qwen3|clip_[lg]|t5xxl|gemma2", "a model is one folder in diffusers layout here"),
    *parts.COMMON_REASONS,
)


def translate(values: dict[str, Any], path: Path) -> Ledger:
    """Raises ConfigError never for their content: what cannot be read is listed."""
    from acrf_engine.translation.source import read_values

    theirs = _sections_left_out(values)
    datasets = theirs.get("dataset_config")
    if isinstance(datasets, str) and (path.parent / datasets).is_file():
        theirs.update(flat(read_values(path.parent / datasets)))
        theirs.pop("dataset_config")
    ledger = Ledger(NAME, {key: value for key, value in theirs.items() if value not in ("", None)})
    _rate(ledger)
    for key, ours in PLAIN.items():
        ledger.move(key, ours)
    if "epochs" in ledger.ours:
        ledger.leave("max_train_steps", "max_train_epochs goes before it, as in kohya's trainer")
    ledger.move("max_train_steps", "steps")
    for key in ("pretrained_model_name_or_path", "dit"):
        if ledger.has(key) and "base.transformer" not in ledger.ours:
            parts.model(ledger, key)
    parts.schedule(ledger, "lr_scheduler", "lr_scheduler_num_cycles", "lr_warmup_steps", "constant")
    if (ratio := ledger.peek("lr_scheduler_min_lr_ratio")) is not None:
        rate = ledger.ours.get("learning_rate", 1e-4)
        ledger.put("schedule.min_lr", float(ratio) * rate, "lr_scheduler_min_lr_ratio")
    if ledger.ours.get("scheduler") == "polynomial":
        ledger.put("schedule.power", ledger.peek("lr_scheduler_power", 1), "lr_scheduler_power")
    if asked := str(ledger.peek("log_with", "")).lower():
        parts.trackers(ledger, "log_with", *(("tensorboard", "wandb") if asked == "all" else (asked,)))
    parts.precision(ledger, "mixed_precision")
    parts.checkpointing(ledger, "gradient_checkpointing")
    if (workers := ledger.peek("max_data_loader_n_workers")) is not None:
        ledger.put("data.num_workers", min(16, int(workers)), "max_data_loader_n_workers")
    _arguments(ledger)
    optimizer_arguments.take(ledger, "optimizer_args")
    if ledger.peek("fp8_base") is True:
        fitting.stored(ledger, "memory.quantization", "fp8", "fp8_base")
    fitting.compiled(ledger, "torch_compile")
    _prompts(ledger, path)
    kohya_data.translate(ledger, path)
    for key, value in (("network_dim", 4), ("network_alpha", 1), ("gradient_accumulation", 1)):
        if "network_dim" in ledger.ours or "learning_rate" in ledger.ours:  # else it is a dataset config alone
            ledger.default(key, value)
    ledger.close(REASONS)
    return ledger


def _sections_left_out(values: dict[str, Any]) -> dict[str, Any]:
    """kohya reads a config without regard to its sections; those of a dataset config have a meaning."""
    theirs: dict[str, Any] = {}
    for key, value in values.items():
        if key in ("general", "datasets") and "datasets" in values:
            theirs.update(flat({key: value}))
        elif isinstance(value, dict):
            theirs.update(value)
        else:
            theirs[key] = value
    return {GUI_NAMES.get(key, key): value for key, value in theirs.items()}


def _rate(ledger: Ledger) -> None:
    rate = "unet_lr" if ledger.peek("unet_lr") else "learning_rate"
    parts.optimizer(ledger, "optimizer_type", rate, "AdamW")
    if rate == "unet_lr":
        ledger.leave("learning_rate", "unet_lr goes before it")


def _arguments(ledger: Ledger) -> None:
    """`name=value` texts: of the optimizer's the weight decay, of the network's DoRA and the kind."""
    for key, known in (
        ("optimizer_args", {"weight_decay": "optimization.weight_decay"}),
        ("network_args", {"dora_wd": "lora.use_dora", "rank_dropout": "", "algo": ""}),
    ):
        given = ledger.theirs.pop(key, [])
        for text in given.split() if isinstance(given, str) else given:
            name, _, value = str(text).partition("=")
            ledger.theirs[f"{key}.{name}"] = number(value.strip("\"' "))
            if known.get(name) == "lora.use_dora":
                ledger.put("lora.use_dora", value.lower() == "true", f"{key}.{name}")
            elif known.get(name):
                ledger.move(f"{key}.{name}", known[name])


def _prompts(ledger: Ledger, path: Path) -> None:
    name = ledger.peek("sample_prompts")
    if not isinstance(name, str):
        return
    file = path.parent / name
    if file.suffix != ".txt" or not file.is_file():
        ledger.leave("sample_prompts", "no text file that is here")
        return
    lines = [line.strip() for line in file.read_text(encoding="utf-8", errors="replace").splitlines()]
    prompts = [line.partition(" --")[0].strip() for line in lines if line and not line.startswith("#")]
    ledger.put("preview.prompts", prompts[:16], "sample_prompts")
    if any(" --" in line for line in lines):
        ledger.notes.append("sample_prompts: options of a line (--w, --s, --d ...) are left out; see group `preview`")
