"""ai-toolkit (YAML, or JSON): one job whose process holds everything."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from acrf_engine.translation import fitting, optimizer_arguments, parts, pictures
from acrf_engine.translation.ledger import Ledger, flat

NAME = "ai-toolkit"
PLAIN = {
    "network.linear": "network_dim",
    "network.rank": "network_dim",
    "network.linear_alpha": "network_alpha",
    "network.alpha": "network_alpha",
    "network.dropout": "lora.dropout",
    "network.pretrained_lora_path": "lora.init_from",
    "train.batch_size": "batch_size",
    "train.steps": "steps",
    "train.gradient_accumulation": "gradient_accumulation",
    "train.gradient_accumulation_steps": "gradient_accumulation",
    "train.max_grad_norm": "optimization.max_grad_norm",
    "train.min_snr_gamma": "snr_gamma",
    "train.snr_gamma": "snr_gamma",
    "train.seed": "seed",
    "train.optimizer_params.weight_decay": "optimization.weight_decay",
    "save.save_every": "checkpoint.every",
    "sample.sample_every": "preview.every",
    "sample.sample_steps": "preview.steps",
    "sample.seed": "preview.seed",
}
REASONS = (
    (r"assistant_.*", fitting.ADAPTER),
    (r"diff_output_preservation.*|blank_prompt_.*|do_.*guidance.*", parts.LOSS),
    (r"mask_path|mask_min_value|invert_mask|alpha_mask", "a mask is white where the loss counts here (masks)"),
    (r"control_path.*|clip_image_.*", "no controls here"),
    (r"push_to_hub|hf_.*", "a run uploads nothing by itself (on_finish can)"),
    (r"arch|is_flux|is_.*|model_kwargs.*", "the model says itself what it is"),
    (r"conv|conv_alpha|conv_.*", "Z-Image has no convolutions to train"),
    (r"skip_first_sample|disable_sampling|force_first_sample", "previews are by steps here (preview.every)"),
    *parts.COMMON_REASONS,
)  # fmt: skip


def translate(values: dict[str, Any], path: Path) -> Ledger:
    """Their config, taken over; of several processes the first."""
    config = values.get("config") or {}
    processes = config.get("process") or [{}]
    theirs = flat(processes[0])
    rest = {"job": values.get("job"), "config.name": config.get("name"), **flat({"meta": values.get("meta") or {}})}
    theirs.update({key: value for key, value in rest.items() if value is not None})
    for number_, other in enumerate(processes[1:], 1):
        theirs.update(flat({f"process.{number_}": other}))
    ledger = Ledger(NAME, {key: value for key, value in theirs.items() if value not in ("", None)})
    ledger.leave_all(r"process\.\d+\..*", "one job is one run here")
    ledger.leave_all(r"job|type|config\.name|meta\..*", "a run has a name of its own (--name)")
    if ledger.peek("network.type", "lora") != "lora":
        ledger.leave("network.type", "a LoRA is trained here")
    ledger.take("network.type")
    trigger = str(ledger.theirs.get("trigger_word", ""))
    if trigger:
        ledger.put("trigger", trigger, "trigger_word")
    for key, ours in PLAIN.items():
        ledger.move(key, ours)
    if ledger.has("network.network_kwargs.only_if_contains"):
        ledger.leave(
            "network.network_kwargs.only_if_contains", "see lora.targets and lora.blocks for a choice of modules"
        )
    _keep(ledger)
    _average(ledger)
    parts.model(ledger, "model.name_or_path")
    parts.optimizer(ledger, "train.optimizer", "train.lr", "AdamW8bit")
    optimizer_arguments.take(ledger, "train.optimizer_params")
    parts.schedule(
        ledger,
        "train.lr_scheduler",
        "train.lr_scheduler_params.num_cycles",
        "train.lr_scheduler_params.num_warmup_steps",
        "constant",
    )
    if ledger.peek("logging.use_wandb") is True:
        parts.trackers(ledger, "logging.use_wandb", "wandb")
        ledger.move("logging.project_name", "logging.project")
        ledger.move("logging.run_name", "logging.run_name")
        ledger.move("logging.log_every", "logging.every")
    parts.checkpointing(ledger, "train.gradient_checkpointing")
    if ledger.has("train.dtype"):
        parts.precision(ledger, "train.dtype")
    _device(ledger)
    _fitting(ledger, path.parent)
    _prompts(ledger, trigger)
    _data(ledger, trigger)
    ledger.default("gradient_accumulation", 1)
    ledger.close(REASONS)
    return ledger


def _keep(ledger: Ledger) -> None:
    if (keep := ledger.peek("save.max_step_saves_to_keep")) is not None:
        ledger.put("checkpoint.keep", max(2, int(keep)), "save.max_step_saves_to_keep")
        ledger.notes.append("checkpoint.keep is about checkpoints; LoRA files of all saved steps are kept")


def _average(ledger: Ledger) -> None:
    if ledger.peek("train.ema_config.use_ema"):
        ledger.put("optimization.ema_decay", ledger.peek("train.ema_config.ema_decay", 0.999),
                   "train.ema_config.use_ema", "train.ema_config.ema_decay")  # fmt: skip
    else:
        ledger.take("train.ema_config.use_ema")
        ledger.leave("train.ema_config.ema_decay", "the moving average is off in their config")


def _device(ledger: Ledger) -> None:
    if ledger.has("device"):
        ledger.put("memory.device", str(ledger.peek("device")), "device")


def _fitting(ledger: Ledger, folder: Path) -> None:
    for switch, kind, ours in (
        ("model.quantize", "model.qtype", "memory.quantization"),
        ("model.quantize_te", "model.qtype_te", "memory.text_encoder"),
    ):
        if ledger.peek(switch) is True:
            fitting.stored(ledger, ours, str(ledger.peek(kind, "qfloat8")), switch, kind)
        else:
            ledger.leave(kind, "not quantised in their config")
    fitting.compiled(ledger, "model.compile")
    fitting.adapter(ledger, "model.assistant_lora_path", folder)


def _prompts(ledger: Ledger, trigger: str) -> None:
    keys = [key for key in ledger.theirs if re.fullmatch(r"sample\.samples\.\d+\.prompt", key)]
    prompts = [str(ledger.peek(key)) for key in keys]
    if isinstance(listed := ledger.peek("sample.prompts"), list):
        keys, prompts = [*keys, "sample.prompts"], [*prompts, *map(str, listed)]
    prompts = [prompt.replace("[trigger]", trigger).strip() for prompt in prompts]
    if prompts:
        if len(prompts) > 16:
            ledger.notes.append(f"of {len(prompts)} prompts the first 16 are taken")
        ledger.put("preview.prompts", [prompt for prompt in prompts if prompt][:16], *keys)


def _data(ledger: Ledger, trigger: str) -> None:
    folders = []
    dropouts, flips = [], []
    for key in list(ledger.theirs):
        match = re.fullmatch(r"(datasets\.\d+)\.(folder_path|dataset_path)", key)
        if match is None:
            continue
        place = match[1]
        caption = str(ledger.peek(f"{place}.default_caption", "") or "").replace("[trigger]", trigger)
        if ledger.peek(f"{place}.is_reg"):
            if pictures.regularisation(ledger, key, "", caption, f"{place}.default_caption"):
                ledger.take(f"{place}.is_reg")
                ledger.leave(f"{place}.resolution", pictures.RUNS_SIZE)
            else:
                ledger.leave_all(re.escape(place) + r"\..*", pictures.ONE_SET)
            continue
        folder = pictures.Folder.at(ledger, key)
        folder.repeats(ledger, f"{place}.num_repeats")
        folder.option(ledger, f"{place}.loss_multiplier", "weight")
        if caption:
            folder.option(ledger, f"{place}.default_caption", "default_caption", caption)
        folder.suffix(ledger, f"{place}.caption_ext")
        _masks(ledger, folder, place)
        folder.sized(ledger, f"{place}.resolution")
        folders.append(folder)
        dropouts.append(f"{place}.caption_dropout_rate")
        flips.append(f"{place}.flip_x")
    pictures.place(ledger, folders)
    pictures.regularisation_weight(ledger, "train.reg_weight")
    parts.same_everywhere(ledger, dropouts, "data.caption_dropout")
    parts.same_everywhere(ledger, flips, "data.flip")


def _masks(ledger: Ledger, folder: pictures.Folder, place: str) -> None:
    if ledger.peek(f"{place}.invert_mask"):
        return  # listed with the reason, and the masks with it
    if ledger.peek(f"{place}.alpha_mask"):
        folder.option(ledger, f"{place}.alpha_mask", "masks", "alpha")
    elif ledger.peek(f"{place}.mask_path"):
        folder.option(ledger, f"{place}.mask_path", "masks")
    if "masks" in folder.entry:
        folder.option(ledger, f"{place}.mask_min_value", "mask_min_weight")
