"""`acrf-tui import`: the configs of other trainers, as their users have them; nothing is dropped without a word."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from acrf_engine.__main__ import main
from acrf_engine.config import RunConfig, load_config
from acrf_engine.translation.ledger import Ledger, flat
from acrf_engine.translation.source import read_values, translate
from acrf_engine.translation.writing import config_text
from acrf_engine.yaml_source import ConfigError

KOHYA = """
[model_arguments]
pretrained_model_name_or_path = "Tongyi-MAI/Z-Image-Turbo"
ae = "/models/ae.safetensors"

[network_arguments]
network_module = "networks.lora_lumina"
network_dim = 32
network_alpha = 16
network_dropout = 0.1
network_args = ["algo=lora", "dora_wd=True"]
network_train_unet_only = true

[optimizer_arguments]
optimizer_type = "AdamW8bit"
optimizer_args = ["weight_decay=0.05", "betas=0.9,0.99"]
learning_rate = 1e-4
unet_lr = 2e-4
lr_scheduler = "cosine_with_restarts"
lr_scheduler_num_cycles = 2
lr_warmup_steps = 0.1
max_grad_norm = 1.0

[training_arguments]
max_train_steps = 2000
gradient_accumulation_steps = 2
gradient_checkpointing = true
mixed_precision = "bf16"
min_snr_gamma = 5
prior_loss_weight = 0.7
seed = 42
max_data_loader_n_workers = 4
save_every_n_epochs = 1
save_every_n_steps = 250
save_model_as = "safetensors"
output_dir = "out"
output_name = "cat"
sample_every_n_steps = 250
sample_prompts = "prompts.txt"
timestep_sampling = "shift"
discrete_flow_shift = 3.0
xformers = true
my_own_option = 7

[dataset_arguments]
dataset_config = "data.toml"
"""
KOHYA_DATA = """
[general]
caption_extension = ".txt"
shuffle_caption = false
flip_aug = true

[[datasets]]
resolution = [1024, 1024]
batch_size = 2
enable_bucket = true

  [[datasets.subsets]]
  image_dir = "/data/cat"
  num_repeats = 10
  class_tokens = "sks cat"
  caption_prefix = "best,"
  alpha_mask = true

  [[datasets.subsets]]
  image_dir = "/data/more"
  caption_extension = ".caption"

  [[datasets.subsets]]
  image_dir = "/data/reg"
  is_reg = true
  class_tokens = "cat"
  num_repeats = 2
"""
AI_TOOLKIT = """
job: extension
config:
  name: my_lora_v1
  process:
    - type: sd_trainer
      training_folder: output
      device: cuda:0
      trigger_word: p3r5on
      network: {type: lora, linear: 16, linear_alpha: 8}
      save: {dtype: float16, save_every: 250, max_step_saves_to_keep: 4, push_to_hub: false}
      datasets:
        - folder_path: /path/to/images
          caption_ext: txt
          caption_dropout_rate: 0.05
          shuffle_tokens: false
          cache_latents_to_disk: true
          num_repeats: 3
          resolution: [512, 768, 1024]
          flip_x: true
          mask_path: /path/to/masks
          mask_min_value: 0.1
          loss_multiplier: 0.5
        - folder_path: /path/to/people
          is_reg: true
          default_caption: a person
          resolution: [512, 768, 1024]
      train:
        batch_size: 1
        steps: 3000
        gradient_accumulation: 4
        train_unet: true
        reg_weight: 0.8
        train_text_encoder: false
        gradient_checkpointing: true
        noise_scheduler: flowmatch
        timestep_type: weighted
        optimizer: adamw8bit
        lr: 1e-4
        optimizer_params: {weight_decay: 0.0001}
        ema_config: {use_ema: true, ema_decay: 0.99}
        dtype: bf16
      model:
        name_or_path: Tongyi-MAI/Z-Image-Turbo
        arch: zimage
        assistant_lora_path: ostris/zimage_turbo_training_adapter
        quantize: true
        low_vram: true
      sample:
        sampler: flowmatch
        sample_every: 250
        width: 1024
        height: 1024
        samples:
          - prompt: "[trigger] holding a coffee cup, in a beanie, sitting at a cafe"
          - prompt: "a bear building a log cabin"
        neg: ""
        seed: 42
        walk_seed: true
        guidance_scale: 1
        sample_steps: 8
meta: {name: "[name]", version: "1.0"}
"""
ONETRAINER: dict[str, Any] = {
    "__version": 9,
    "training_method": "LORA",
    "model_type": "Z_IMAGE",
    "base_model_name": "Tongyi-MAI/Z-Image-Turbo",
    "workspace_dir": "workspace/run",
    "learning_rate_scheduler": "COSINE",
    "learning_rate": 0.0003,
    "learning_rate_warmup_steps": 200.0,
    "learning_rate_cycles": 1.0,
    "learning_rate_min_factor": 0.01,
    "epochs": 100,
    "batch_size": 2,
    "gradient_accumulation_steps": 1,
    "ema": "OFF",
    "ema_decay": 0.999,
    "train_dtype": "BFLOAT_16",
    "gradient_checkpointing": "CPU_OFFLOADED",
    "dataloader_threads": 2,
    "resolution": "512,768",
    "timestep_distribution": "LOGIT_NORMAL",
    "clip_grad_norm": 1.0,
    "loss_weight_fn": "CONSTANT",
    "loss_weight_strength": 5.0,
    "offset_noise_weight": 0.0,
    "masked_training": True,
    "layer_filter": "^(?=.*attention)(?!.*refiner).*,^(?=.*feed_forward)(?!.*refiner).*",
    "layer_filter_preset": "attn-mlp",
    "layer_filter_regex": True,
    "lora_rank": 16,
    "lora_alpha": 1.0,
    "lora_decompose": True,
    "lora_decompose_output_axis": True,
    "dropout_probability": 0.05,
    "transformer": {"train": True, "weight_dtype": "INT_W8A8", "model_name": ""},
    "text_encoder": {"train": False, "weight_dtype": "FLOAT_8"},
    "optimizer": {"__version": 0, "optimizer": "ADAMW", "weight_decay": 0.01, "beta1": 0.9, "fused": False},
    "optimizer_defaults": {"ADAMW": {"optimizer": "ADAMW", "weight_decay": 0.5}},
    "concept_file_name": "concepts.json",
    "samples": [{"enabled": True, "prompt": "a cat", "seed": 7, "diffusion_steps": 8, "width": 512, "height": 512}],
    "sample_after": 10,
    "sample_after_unit": "MINUTE",
    "save_every": 500,
    "save_every_unit": "STEP",
}
CONCEPTS: list[dict[str, Any]] = [
    {
        "name": "cat", "path": "/data/cat", "enabled": True, "balancing": 4.0, "balancing_strategy": "REPEATS",
        "include_subdirectories": False, "loss_weight": 0.5,
        "image": {"enable_random_flip": True, "enable_crop_jitter": True},
        "text": {"prompt_source": "sample", "enable_tag_shuffling": False},
    },
    {"name": "old", "path": "/data/old", "enabled": False},
]  # fmt: skip
NONE_TRAINER = """
[model]
dit = "/srv/zimage_models/transformer"
output_dir = "output/acrf"

[acrf]
turbo_steps = 8
shift = 3.0
jitter_scale = 0.03
raft_mode = false
latent_jitter_scale = 0.0

[lora]
network_dim = 8
network_alpha = 4

[training]
optimizer_type = "AdamW8bit"
learning_rate = 5e-5
weight_decay = 0
lr_scheduler = "cosine_with_restarts"
lr_warmup_steps = 100
lr_num_cycles = 1
lambda_l1 = 1.0
lambda_cosine = 0.1
lambda_fft = 0
enable_freq = false
lambda_freq = 0.3
snr_gamma = 5.0
num_train_epochs = 10
save_every_n_epochs = 1
gradient_accumulation_steps = 4
seed = 42

[optimization]
auto_optimize = true

[advanced]
max_grad_norm = 1.0
gradient_checkpointing = true
mixed_precision = "bf16"

[dataset]
batch_size = 1
shuffle = true
num_workers = 4

[[dataset.sources]]
cache_directory = "/srv/datasets/one"
num_repeats = 10
resolution_limit = 1024
"""


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    written = {
        "kohya": ("kohya.toml", KOHYA),
        "data": ("data.toml", KOHYA_DATA),
        "prompts": ("prompts.txt", "# mine\na sks cat --w 1024 --s 8\n\na dog\n"),
        "ai-toolkit": ("ai.yaml", AI_TOOLKIT),
        "OneTrainer": ("one.json", json.dumps(ONETRAINER)),
        "concepts": ("concepts.json", json.dumps(CONCEPTS)),
        "None trainer": ("none.toml", NONE_TRAINER),
    }
    for name, text in written.values():
        (tmp_path / name).write_text(text, encoding="utf-8")
    return {key: tmp_path / name for key, (name, _) in written.items()}


def read_back(ledger: Ledger, path: Path) -> RunConfig:
    """The config as a user loads it, from the file that was written."""
    out = path.with_name("ours.yaml")
    out.write_text(config_text(ledger, path), encoding="utf-8")
    return load_config(out)


def why_not(ledger: Ledger) -> dict[str, str]:
    return {item.key: item.why for item in ledger.left_out}


def test_kohya_with_its_dataset_config(files: dict[str, Path]) -> None:
    ledger = translate(files["kohya"])
    config = read_back(ledger, files["kohya"])
    assert config.model == "Tongyi-MAI/Z-Image-Turbo"
    assert (config.network_dim, config.network_alpha, config.lora.dropout, config.lora.use_dora) == (32, 16, 0.1, True)
    assert (config.learning_rate, config.optimizer, config.optimization.weight_decay) == (2e-4, "AdamW8bit", 0.05)
    assert (config.scheduler, config.schedule.cycles, config.schedule.warmup_ratio) == ("cosine_with_restarts", 2, 0.1)
    assert (config.checkpoint.every, config.checkpoint.every_epochs) == (250, 1)
    assert (config.steps, config.gradient_accumulation, config.batch_size, config.resolution) == (2000, 2, 2, 1024)
    assert (config.memory.dtype, config.memory.gradient_checkpointing, config.seed) == ("bf16", "on", 42)
    assert (config.checkpoint.every, config.preview.every) == (250, 250)
    assert config.preview.prompts == ["a sks cat", "a dog"]
    assert config.data.flip
    cat, more = config.sources()
    assert (cat.path, cat.repeats, cat.default_caption, cat.prefix) == ("/data/cat", 10, "sks cat", "best,")
    assert (cat.masks, cat.caption_extension) == ("alpha", ".txt")
    assert (more.path, more.repeats, more.caption_extension, more.masks) == ("/data/more", 1, ".caption", "")
    regularisation = config.regularisation
    assert (regularisation.path, regularisation.default_caption) == ("/data/reg", "cat")
    assert (regularisation.weight, regularisation.ratio, config.data.upscale) == (0.7, 1, True)
    why = why_not(ledger)
    assert "unet_lr goes before it" in why["learning_rate"]
    assert "anchors" in why["timestep_sampling"]
    assert "as many as training pictures" in why["datasets.0.subsets.2.num_repeats"]
    assert why["my_own_option"] == "no counterpart here"
    assert "general.caption_extension" in ledger.as_here


def test_ai_toolkit(files: dict[str, Path]) -> None:
    ledger = translate(files["ai-toolkit"])
    config = read_back(ledger, files["ai-toolkit"])
    assert (config.network_dim, config.network_alpha, config.learning_rate) == (16, 8, 1e-4)
    assert (config.steps, config.batch_size, config.gradient_accumulation) == (3000, 1, 4)
    assert (config.scheduler, config.optimizer, config.optimization.weight_decay) == ("constant", "AdamW8bit", 1e-4)
    assert (config.optimization.ema_decay, config.trigger) == (0.99, "p3r5on")
    assert (config.checkpoint.every, config.checkpoint.keep, config.preview.every) == (250, 4, 250)
    assert (config.preview.steps, config.preview.seed) == (8, 42)
    assert config.preview.prompts[0] == "p3r5on holding a coffee cup, in a beanie, sitting at a cafe"
    assert (config.data.caption_dropout, config.data.flip, config.resolution) == (0.05, True, "auto")
    (source,) = config.sources()
    assert (source.path, source.repeats, source.weight) == ("/path/to/images", 3, 0.5)
    assert (source.masks, source.mask_min_weight, source.resolution) == ("/path/to/masks", 0.1, [512, 768, 1024])
    regularisation = config.regularisation
    assert (regularisation.path, regularisation.default_caption) == ("/path/to/people", "a person")
    assert regularisation.weight == 0.8
    why = why_not(ledger)
    assert "base.training_adapter" in why["model.assistant_lora_path"]
    assert config.memory.quantization == "fp8"  # their qtype where none is given
    assert "config.name" in why


def test_onetrainer_with_its_concepts(files: dict[str, Path]) -> None:
    ledger = translate(files["OneTrainer"])
    config = read_back(ledger, files["OneTrainer"])
    assert (config.network_dim, config.network_alpha, config.lora.use_dora) == (16, 1, True)
    assert (config.lora.targets, config.lora.dropout) == ("ext", 0.05)
    assert (config.scheduler, config.learning_rate, config.schedule.warmup_steps) == ("cosine", 3e-4, 200)
    assert config.schedule.min_lr == pytest.approx(3e-6)
    assert (config.optimizer, config.optimization.weight_decay, config.epochs) == ("AdamW", 0.01, 100)
    assert (config.batch_size, config.gradient_accumulation) == (2, 1)
    assert (config.checkpoint.every, config.preview.prompts, config.preview.seed) == (500, ["a cat"], 7)
    assert [(source.path, source.repeats, source.weight, source.resolution) for source in config.sources()] == [
        ("/data/cat", 4, 0.5, [512, 768])
    ]
    assert config.data.flip
    assert any("-masklabel.png" in note for note in ledger.notes)
    why = why_not(ledger)
    assert "off in their config" in why["loss_weight_strength"]
    assert "by minute there" in why["sample_after"]
    assert "off in their config" in why["concepts.1.path"]
    assert config.snr_gamma == RunConfig().snr_gamma


def test_none_trainer(files: dict[str, Path]) -> None:
    ledger = translate(files["None trainer"])
    config = read_back(ledger, files["None trainer"])
    assert config.model == "/srv/zimage_models"
    assert (config.turbo_steps, config.jitter_scale, config.snr_gamma) == (8, 0.03, 5)
    assert (config.network_dim, config.network_alpha, config.learning_rate) == (8, 4, 5e-5)
    assert (config.loss.lambda_char, config.loss.lambda_cos, config.loss.lambda_fft) == (1, 0.1, 0)
    assert (config.epochs, config.gradient_accumulation, config.optimization.weight_decay) == (10, 4, 0)
    assert (config.scheduler, config.schedule.cycles, config.schedule.warmup_steps) == ("cosine_with_restarts", 1, 100)
    assert [(source.path, source.repeats) for source in config.sources()] == [("/srv/datasets/one", 10)]
    assert config.resolution == 1024
    assert "acrf.shift" in ledger.as_here
    assert "training stays on the anchors" in why_not(ledger)["acrf.raft_mode"]


@pytest.mark.parametrize("name", ["ai-toolkit", "OneTrainer", "None trainer"])
def test_every_key_is_taken_over_or_listed(files: dict[str, Path], name: str) -> None:
    ledger = translate(files[name])
    text = config_text(ledger, files[name])
    values = read_values(files[name])
    keys = {key.rpartition(".")[2] for key, value in flat(values).items() if value not in ("", None)}
    keys -= {"weight_decay", "optimizer", "concept_file_name"}  # of optimizer_defaults, listed as a whole
    told = {part for key in [*why_not(ledger), *ledger.as_here] for part in key.split(".")}
    told |= {part for origin in ledger.origin.values() for key in origin.split(", ") for part in key.split(".")}
    assert keys <= told
    assert ledger.theirs == {}
    for item in ledger.left_out:
        assert f"#   {item.key} = " in text


@pytest.mark.parametrize("name", ["kohya", "ai-toolkit", "OneTrainer", "None trainer"])
def test_the_command_writes_a_file_that_loads_and_lists_the_rest(
    files: dict[str, Path], name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = files[name].parent / "new" / "ours.yaml"
    assert main(["import", str(files[name]), "--out", str(out)]) == 0
    load_config(out)
    said = capsys.readouterr().out
    assert f"settings of {name} taken over" in said
    assert "no counterpart here" in said or ":" in said
    before = out.read_text()
    assert main(["import", str(files[name]), "--out", str(out)]) == 2
    assert "is there already" in capsys.readouterr().err
    assert out.read_text() == before
    assert main(["import", str(files[name])]) == 0
    assert yaml.safe_load(capsys.readouterr().out)


def test_a_rate_for_an_optimizer_that_scales_it_itself_is_not_given_to_another(tmp_path: Path) -> None:
    text = AI_TOOLKIT.replace("optimizer: adamw8bit", "optimizer: dadaptadam").replace("lr: 1e-4", "lr: 1.0")
    path = tmp_path / "a.yaml"
    path.write_text(text)
    ledger = translate(path)
    assert read_back(ledger, path).learning_rate == RunConfig().learning_rate
    assert "scales it itself" in why_not(ledger)["train.lr"]
    assert "not among the optimizers" in why_not(ledger)["train.optimizer"]


def test_a_value_that_is_out_of_range_here_is_listed_with_the_reason(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text('network_dim = 5000\nlearning_rate = 1e-4\npretrained_model_name_or_path = "sdxl.safetensors"\n')
    ledger = translate(path)
    config = read_back(ledger, path)
    assert "less than or equal to 1024" in why_not(ledger)["network_dim"]
    assert "not Z-Image by its name" in why_not(ledger)["pretrained_model_name_or_path"]
    assert config.model == "Tongyi-MAI/Z-Image-Turbo"


@pytest.mark.parametrize("key", ["pretrained_model_name_or_path", "dit"])
def test_one_file_of_the_transformer_takes_the_place_of_the_folders(tmp_path: Path, key: str) -> None:
    path = tmp_path / "a.toml"
    path.write_text(f'network_dim = 8\nlearning_rate = 1e-4\n{key} = "/models/z_image_turbo_bf16.safetensors"\n')
    ledger = translate(path)
    config = read_back(ledger, path)
    assert config.base.transformer == "/models/z_image_turbo_bf16.safetensors"
    assert config.model == "Tongyi-MAI/Z-Image-Turbo"
    assert any("VAE, text encoder" in note for note in ledger.notes)
    path.write_text(f'network_dim = 8\nlearning_rate = 1e-4\n{key} = "z_image.gguf"\n')
    assert ".gguf files are not read" in why_not(translate(path))[key]


def test_folders_named_by_repeats_become_sources(tmp_path: Path) -> None:
    for name in ("10_sks cat", "2_photo"):
        (tmp_path / "train" / name).mkdir(parents=True)
    path = tmp_path / "a.toml"
    path.write_text('train_data_dir = "train"\nnetwork_dim = 8\nresolution = "768,1024"\n')
    ledger = translate(path)
    config = read_back(ledger, path)
    folder = tmp_path / "train"
    assert [(source.path, source.repeats, source.default_caption) for source in config.sources()] == [
        (str(folder / "10_sks cat"), 10, "sks cat"), (str(folder / "2_photo"), 2, "photo"),
    ]  # fmt: skip
    assert config.resolution == 880
    assert {source.caption_extension for source in config.sources()} == {".caption"}
    assert any("kohya's default" in note for note in ledger.notes)


def test_folders_of_regularisation_pictures_are_one_set(tmp_path: Path) -> None:
    (tmp_path / "reg" / "1_person").mkdir(parents=True)
    path = tmp_path / "a.toml"
    path.write_text('train_data_dir = "train"\nreg_data_dir = "reg"\ncaption_extension = ".txt"\nnetwork_dim = 8\n')
    config = read_back(translate(path), path)
    assert (config.regularisation.path, config.regularisation.default_caption) == ("reg", "person")
    assert config.sources()[0].caption_extension == ".txt"


TWO_SIZES = """
[[datasets]]
resolution = 512
[[datasets.subsets]]
image_dir = "/data/cat"
num_repeats = 2
caption_extension = ".txt"

[[datasets]]
resolution = 768
[[datasets.subsets]]
image_dir = "/data/cat"
num_repeats = 2
caption_extension = ".txt"
"""


def test_a_folder_given_again_for_another_size_is_one_source_with_both(tmp_path: Path) -> None:
    path = tmp_path / "data.toml"
    path.write_text(TWO_SIZES)
    config = read_back(translate(path), path)
    assert [(s.path, s.repeats, s.resolution) for s in config.sources()] == [("/data/cat", 2, [512, 768])]


def test_a_folder_given_again_with_other_options_is_listed(tmp_path: Path) -> None:
    path = tmp_path / "data.toml"
    path.write_text(TWO_SIZES.replace("num_repeats = 2", "num_repeats = 3", 1))
    ledger = translate(path)
    assert [(s.repeats, s.resolution) for s in read_back(ledger, path).sources()] == [(3, None)]
    assert "this folder is given above" in why_not(ledger)["datasets.1.subsets.0.image_dir"]


def test_masks_that_are_inverted_are_not_taken(tmp_path: Path) -> None:
    path = tmp_path / "ai.yaml"
    path.write_text(AI_TOOLKIT.replace("mask_min_value: 0.1", "invert_mask: true"))
    ledger = translate(path)
    assert read_back(ledger, path).sources()[0].masks == ""
    assert "white where the loss counts" in why_not(ledger)["datasets.0.mask_path"]


def test_an_option_that_is_out_of_range_does_not_cost_the_folder(tmp_path: Path) -> None:
    path = tmp_path / "ai.yaml"
    path.write_text(AI_TOOLKIT.replace("loss_multiplier: 0.5", "loss_multiplier: 0"))
    ledger = translate(path)
    assert read_back(ledger, path).sources()[0].path == "/path/to/images"
    assert "greater than 0" in why_not(ledger)["datasets.0.loss_multiplier"]


def test_what_they_do_without_being_told_is_written_out(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text("network_dim = 8\nlearning_rate = 1e-4\n")
    config = read_back(translate(path), path)
    assert (config.scheduler, config.optimizer, config.network_alpha) == ("constant", "AdamW", 1)
    assert config.gradient_accumulation == 1


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.toml", "x = [", "not valid TOML"),
        ("a.yaml", "a: [", "not valid YAML"),
        ("a.json", "{", "not valid JSON"),
        ("a.json", "[1]", "expected a mapping"),
        ("a.yaml", "model: tiny", "not a config of kohya"),
        ("a.ini", "x = 1", "expected a file that ends in"),
        ("a.yaml", "config: {process: [1]}", "is not what this trainer writes"),
        ("a.yaml", "a: !!python/object/apply:os.system [ls]", "not valid YAML"),
    ],
)
def test_files_of_another_kind_are_refused_by_name(tmp_path: Path, name: str, text: str, said: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(ConfigError, match=said) as caught:
        translate(path)
    assert str(path) in str(caught.value)
    with pytest.raises(ConfigError, match="no such file"):
        translate(tmp_path / "none.toml")


PLAIN = st.none() | st.booleans() | st.integers(-5, 5000) | st.floats(allow_nan=False) | st.text(max_size=8)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.sampled_from([key for key in ONETRAINER if key != "concept_file_name"]), PLAIN, min_size=1))
def test_no_value_makes_it_crash_or_write_what_does_not_load(
    tmp_path_factory: pytest.TempPathFactory, changes: dict[str, Any]
) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "one.json"
    path.write_text(json.dumps({**ONETRAINER, **changes, "lora_rank": 4}))
    try:
        ledger = translate(path)
    except ConfigError:
        return
    read_back(ledger, path)


def test_optimizers_schedules_trackers_and_epochs_are_taken_over(tmp_path: Path) -> None:
    kohya = tmp_path / "kohya.toml"
    text = KOHYA.replace('"AdamW8bit"', '"Prodigy"').replace("unet_lr = 2e-4", "unet_lr = 1.0")
    text = text.replace('"cosine_with_restarts"', '"polynomial"\nlr_scheduler_power = 2.5\nlog_with = "all"')
    kohya.write_text(text, encoding="utf-8")
    ledger = translate(kohya)
    assert (ledger.ours["optimizer"], ledger.ours["learning_rate"]) == ("Prodigy", 1.0)
    assert (ledger.ours["scheduler"], ledger.ours["schedule.power"]) == ("polynomial", 2.5)
    assert ledger.ours["logging.trackers"] == ["tensorboard", "wandb"]
    toolkit = tmp_path / "toolkit.yaml"
    logging = "logging: {use_wandb: true, project_name: mine, log_every: 10}\n      model:"
    toolkit.write_text(AI_TOOLKIT.replace("model:", logging, 1), encoding="utf-8")
    ledger = translate(toolkit)
    assert ledger.ours["logging.trackers"] == ["wandb"]
    assert (ledger.ours["logging.project"], ledger.ours["logging.every"]) == ("mine", 10)
