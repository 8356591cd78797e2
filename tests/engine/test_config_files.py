"""The config as a user writes it: what is read, what is refused, and what the message says."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from acrf_engine.config import RunConfig, absolute, build_config, dump, load_config
from acrf_engine.yaml_source import ConfigError

PAPER_BLOCK = """\
epochs: 10
batch_size: 1
gradient_accumulation: 4
learning_rate: 1e-4
optimizer: AdamW8bit
scheduler: cosine_with_restarts
network_dim: 16        # LoRA rank
network_alpha: 16      # LoRA alpha
snr_gamma: 5.0         # Min-SNR 加权，0=禁用
turbo_steps: 10        # 锚点数（从调度器自动获取）
jitter_scale: 0.02     # 锚点抖动幅度
"""


@pytest.fixture
def write(tmp_path: Path):
    def writer(text: str | bytes) -> Path:
        path = tmp_path / "my.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return writer


def refusal(path: Path, overrides: list[str] | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides)
    return str(caught.value)


# ---- what is read ----------------------------------------------------------------------------------------------------


def test_the_papers_block_loads_as_pasted(write) -> None:
    config = load_config(write("model: tiny\ndataset: ./photos\n" + PAPER_BLOCK))
    assert config.learning_rate == 0.0001
    assert isinstance(config.learning_rate, float)
    assert (config.network_dim, config.network_alpha) == (16, 16.0)
    assert (config.snr_gamma, config.turbo_steps, config.jitter_scale) == (5.0, 10, 0.02)
    assert (config.epochs, config.batch_size, config.gradient_accumulation) == (10, 1, 4)
    assert (config.optimizer, config.scheduler) == ("AdamW8bit", "cosine_with_restarts")


def test_the_defaults_are_the_papers(write) -> None:
    assert load_config(write(PAPER_BLOCK)) == RunConfig()


def test_an_empty_file_is_the_defaults(write) -> None:
    assert load_config(write("# nothing yet\n")) == RunConfig()


@pytest.mark.parametrize(
    ("written", "value"),
    [("1e-4", 1e-4), ("1E-4", 1e-4), ("1.e-4", 1e-4), (".0001", 1e-4), ("0.0001", 1e-4), ("1", 1.0)],
)
def test_numbers_as_people_write_them(write, written: str, value: float) -> None:
    assert load_config(write(f"learning_rate: {written}")).learning_rate == value


def test_no_is_a_word_and_a_leading_zero_is_decimal(write) -> None:
    config = load_config(write("trigger: no\nepochs: 010\n"))
    assert config.trigger == "no"
    assert config.epochs == 10


def test_a_file_with_a_byte_order_mark_and_windows_line_ends_loads(write) -> None:
    assert load_config(write(b"\xef\xbb\xbfepochs: 3\r\nseed: 7\r\n")).epochs == 3


def test_a_list_of_folders_with_options(write) -> None:
    text = "dataset:\n  - path: a\n    repeats: 3\n  - path: b\n    default_caption: a cat\n"
    first, second = load_config(write(text)).sources()
    assert (first.path, first.repeats) == ("a", 3)
    assert (second.path, second.default_caption) == ("b", "a cat")


# ---- what is refused, and how ----------------------------------------------------------------------------------------


def test_an_unknown_key_names_file_line_key_and_what_was_meant(write) -> None:
    path = write("epochs: 3\nlearnig_rate: 1e-4\n")
    assert refusal(path) == f"{path}:2: learnig_rate: unknown key (did you mean learning_rate?)"


@pytest.mark.parametrize("key", ["learning-rate", "batch-size", "int", "str", "a[b]", "constrained"])
def test_any_unknown_key_is_named(write, key: str) -> None:
    path = write(f"epochs: 3\n\n'{key}': 2\n")
    message = refusal(path)
    assert message.startswith(f"{path}:3: {key}: unknown key")


def test_a_dash_for_an_underscore_is_understood_as_a_slip(write) -> None:
    assert "did you mean learning_rate?" in refusal(write("learning-rate: 1e-4\n"))


def test_an_unknown_key_inside_a_group_is_found_there(write) -> None:
    path = write("seed: 1\nloss:\n  lambda_char: 1.0\n  lambda_cosine: 0.1\n")
    message = refusal(path)
    assert message.startswith(f"{path}:4: loss.lambda_cosine: unknown key")
    assert "lambda_cos" in message.partition("did you mean")[2]


def test_an_unknown_key_of_a_folder_is_found_there(write) -> None:
    path = write("dataset:\n  - path: a\n  - path: b\n    repeat: 2\n")
    message = refusal(path)
    assert message.startswith(f"{path}:4: dataset.1.repeat: unknown key")
    assert "repeats" in message


def test_every_mistake_of_a_file_is_reported_at_once(write) -> None:
    path = write("epochs: 0\nbatch_sice: 2\nseed: -1\n")
    lines = refusal(path).splitlines()
    assert [line.removeprefix(f"{path}:").partition(":")[0] for line in lines] == ["1", "2", "3"]


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ("epochs: ten", "epochs"),
        ("epochs: 2.5", "epochs"),
        ("epochs: true", "epochs"),
        ("learning_rate: fast", "learning_rate"),
        ("optimizer: Adam", "optimizer"),
        ("loss: 3", "loss"),
        ("preview: {prompts: one}", "preview.prompts"),
        ("trigger: [a]", "trigger"),
        ("learning_rate: 0", "learning_rate"),
        ("learning_rate: .nan", "learning_rate"),
        ("learning_rate: .inf", "learning_rate"),
        ("epochs: 0", "epochs"),
        ("batch_size: -1", "batch_size"),
        ("network_dim: 0", "network_dim"),
        ("snr_gamma: -0.1", "snr_gamma"),
        ("jitter_scale: 0.6", "jitter_scale"),
        ("resolution: 100", "resolution"),
        ("resolution: big", "resolution"),
        ("seed: 9223372036854775808", "seed"),
        ("steps: 0", "steps"),
        ("checkpoint: {keep: 1}", "checkpoint.keep"),
        ("lora: {targets: all}", "lora.targets"),
    ],
)
def test_wrong_types_and_values_out_of_range_name_line_and_key(write, line: str, key: str) -> None:
    path = write(f"# a comment\n{line}\n")
    assert refusal(path).startswith(f"{path}:2: {key}: ")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("scheduler: cosine\nschedule: {cycles: 5}", "schedule.cycles has no effect"),
        ("scheduler: constant\nschedule: {min_lr: 1e-5}", "schedule.min_lr has no effect"),
        ("scheduler: linear\nschedule: {power: 3}", "schedule.power has no effect"),
        ("schedule: {warmup_steps: 5, warmup_ratio: 0.1}", "both given"),
        ("snr_gamma: 0\nloss: {weighting: min_snr_plus_one}", "loss.weighting has no effect"),
        ("jitter_scale: 0\nanchors: {jitter: normal}", "anchors.jitter has no effect"),
        ("validation: {every: 10}", "validation.every has no effect with validation.holdout 0"),
        ("loss: {lambda_char: 0, lambda_cos: 0, lambda_fft: 0}", "nothing to minimise"),
        ("learning_rate: 1e-7", "above learning_rate"),
    ],
)
def test_a_setting_that_would_do_nothing_is_refused(write, text: str, named: str) -> None:
    assert named in refusal(write(text))


def test_a_key_given_twice_names_both_lines(write) -> None:
    path = write("epochs: 1\nseed: 2\nepochs: 3\n")
    assert refusal(path) == f"{path}:3: epochs: given twice, first in line 1 (remove one)"


def test_a_key_given_twice_in_a_group_is_seen_too(write) -> None:
    assert "loss.lambda_cos: given twice" in refusal(write("loss:\n  lambda_cos: 1\n  lambda_cos: 2\n"))


def test_anchors_and_aliases_of_yaml_are_refused_with_their_line(write) -> None:
    path = write("seed: 1\nloss: &a {lambda_cos: 0.1}\nanchors: *a\n")
    assert refusal(path).startswith(f"{path}:2: anchors and aliases")


def test_an_alias_bomb_is_refused_before_it_can_explode(write) -> None:
    bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n"
    for before, after in zip("abcdefg", "bcdefgh", strict=True):
        bomb += f"{after}: &{after} [{', '.join([f'*{before}'] * 9)}]\n"
    assert len(refusal(write(bomb))) < 1000


@pytest.mark.parametrize(
    "text",
    [
        "epochs: [1\n",
        "epochs: 1\n  seed: 2\n",
        "a: b: c\n",
        "\tepochs: 1\n",
        "epochs: 'x\n",
        "just words\n",
        "- a\n- b\n",
        "--- {}\n--- {}\n",
        "seed: !!python/object/apply:os.getcwd []\n",
        "? [a, b]\n: 1\n",
        "? {a: b}\n: 1\n",
        "seed: \x01\n",
        "1: 2\n",
        "seed: !!int abc\n",
        "loss: !!bool maybe\n",
        "learning_rate: !!float x\n",
        pytest.param(f"seed: {'9' * 5000}", id="a number of 5000 digits"),
        pytest.param(f"seed: {'[' * 1000}", id="nested a thousand deep"),
    ],
)
def test_what_is_not_a_config_is_a_config_error_naming_the_file(write, text: str) -> None:
    path = write(text)
    message = refusal(path)
    assert str(path) in message
    assert len(message) < 1000


def test_bytes_that_are_no_text_say_so(write) -> None:
    assert "not UTF-8" in refusal(write("trigger: é".encode("latin-1")))


def test_a_file_too_large_for_a_config_is_not_read(write) -> None:
    assert "too long for a config" in refusal(write("# " + "x" * 300_000))


def test_a_file_that_is_not_there_and_a_folder_say_so(tmp_path: Path) -> None:
    assert "there is no such file" in refusal(tmp_path / "none.yaml")
    assert str(tmp_path) in refusal(tmp_path)


def test_a_long_wrong_value_does_not_flood_the_message(write) -> None:
    assert len(refusal(write("epochs: " + "x" * 10_000))) < 500


@settings(deadline=None, max_examples=150)
@given(text=st.text(alphabet=st.characters(codec="utf-8"), max_size=60))
def test_any_text_is_a_config_or_a_config_error(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_text(text, encoding="utf-8")
    message = ""
    try:
        load_config(path)
    except ConfigError as error:
        message = str(error)
    assert not message or str(path) in message


# ---- overrides -------------------------------------------------------------------------------------------------------


def test_overrides_win_over_the_file_and_reach_into_groups(write) -> None:
    path = write("learning_rate: 1e-3\nloss:\n  lambda_cos: 0.5\n")
    config = load_config(path, ["learning_rate=5e-5", "loss.lambda_fft=0.2", "checkpoint.every=7", "trigger=a=b"])
    assert config.learning_rate == 5e-5
    assert (config.loss.lambda_cos, config.loss.lambda_fft) == (0.5, 0.2)
    assert config.checkpoint.every == 7
    assert config.trigger == "a=b"


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("learning_rate", "expected KEY=VALUE"),
        ("=3", "expected KEY=VALUE"),
        ("learnig_rate=1e-4", "did you mean learning_rate?"),
        ("learning_rate=fast", "learning_rate: expected a number"),
        ("loss.lambda_foo=1", "loss.lambda_foo: unknown key"),
        ("seed.x=1", "seed is a single value"),
        ("epochs=0", "epochs"),
        ("epochs=[", "--set"),
        ("epochs=*a", "--set"),
        ("epochs=1\nseed: 3", "--set"),
    ],
)
def test_a_bad_override_is_named_as_one(write, override: str, named: str) -> None:
    message = refusal(write("seed: 1\n"), [override])
    assert "--set" in message
    assert named in message


def test_an_override_of_a_broken_line_mends_it(write) -> None:
    assert load_config(write("epochs: 0\n"), ["epochs=2"]).epochs == 2


# ---- there and back --------------------------------------------------------------------------------------------------

configs = st.builds(
    dict,
    trigger=st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), max_size=30),
    learning_rate=st.floats(1e-6, 1.0),
    seed=st.integers(0, 2**63 - 1),
    steps=st.none() | st.integers(1, 10**7),
    network_alpha=st.floats(0.01, 4096),
    jitter_scale=st.floats(0, 0.5),
    resolution=st.just("auto") | st.integers(2, 256).map(lambda n: 16 * n),
    dataset=st.text("abc/ .~é-'\":#", min_size=1, max_size=20)
    | st.lists(
        st.fixed_dictionaries({"path": st.text("ab/ ", min_size=1), "repeats": st.integers(1, 9)}),
        min_size=1,
        max_size=3,
    ),
    preview=st.fixed_dictionaries({"prompts": st.lists(st.text("ab #:-\n'", min_size=1), max_size=3)}),
)


@settings(deadline=None, max_examples=80)
@given(values=configs)
def test_what_is_dumped_loads_as_the_same_config(tmp_path_factory: pytest.TempPathFactory, values: dict) -> None:
    config = build_config(values)
    path = tmp_path_factory.getbasetemp() / "dumped.yaml"
    path.write_text(dump(config), encoding="utf-8")
    assert load_config(path) == config


@pytest.mark.parametrize(
    "text", ["1e-4", "1e5", "08", "010", "no", "null", "~", "true", "1:30", "2024-01-01", "=", "<<", "0x1f"]
)
def test_text_that_looks_like_something_else_stays_text(tmp_path: Path, text: str) -> None:
    """PyYAML writes by the rules of YAML 1.1 and a config is read by those of 1.2."""
    path = tmp_path / "dumped.yaml"
    path.write_text(dump(build_config({"trigger": text})), encoding="utf-8")
    assert load_config(path).trigger == text


def test_the_dumped_config_spells_out_every_key() -> None:
    assert list(yaml.safe_load(dump(RunConfig()))) == list(RunConfig.model_fields)


def test_every_key_is_explained() -> None:
    groups = [
        RunConfig,
        *(f.annotation for f in RunConfig.model_fields.values() if hasattr(f.annotation, "model_fields")),
    ]
    silent = [
        f"{group.__name__}.{name}"
        for group in groups
        for name, field in group.model_fields.items()
        if not field.description and not hasattr(field.annotation, "model_fields")
    ]
    assert silent == []


# ---- paths -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "a.PNG").write_bytes(b"the scan looks inside, not the config")
    return folder


def missing(**values: object) -> str:
    with pytest.raises(ConfigError) as caught:
        absolute(build_config(dict(values)))
    return str(caught.value)


def test_relative_paths_resolve_against_the_current_folder(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(photos.parent)
    assert absolute(build_config({"dataset": "./photos"})).dataset == str(photos)
    several = absolute(build_config({"dataset": [{"path": "photos", "repeats": 2}]}))
    assert [source.path for source in several.sources()] == [str(photos)]


def test_a_dataset_that_is_not_there_is_named_with_its_whole_path(tmp_path: Path) -> None:
    message = missing(dataset=str(tmp_path / "none"))
    assert f"dataset: {tmp_path / 'none'}: there is no such folder" in message


def test_what_is_missing_is_named_with_the_line_that_names_it(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(f"epochs: 2\ndataset: {tmp_path / 'none'}\n", encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        absolute(load_config(path), path)
    assert str(caught.value).startswith(f"{path}:2: dataset: {tmp_path / 'none'}: there is no such folder")


def test_an_empty_dataset_says_so(tmp_path: Path) -> None:
    assert "it is empty" in missing(dataset=str(tmp_path))


def test_a_folder_without_pictures_says_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "film.mp4").write_bytes(b"")
    message = missing(dataset=str(tmp_path))
    assert "2 other files: .mp4, .txt" in message


def test_a_picture_given_instead_of_its_folder_is_explained(photos: Path) -> None:
    assert "this is a file, not a folder" in missing(dataset=str(photos / "a.PNG"))


def test_a_model_folder_without_index_says_what_is_expected(photos: Path, tmp_path: Path) -> None:
    message = missing(model=str(tmp_path), dataset=str(photos))
    assert f"model: {tmp_path}: no model_index.json" in message
    assert "transformer/" in message


@pytest.mark.parametrize("model", ["./nowhere", "/nowhere/at/all", "Z-Image"])
def test_a_model_that_is_not_there_says_so(photos: Path, model: str) -> None:
    message = missing(model=model, dataset=str(photos))
    assert message.startswith("model: ")
    assert "there is no such folder" in message


def test_a_hub_id_is_left_alone(photos: Path) -> None:
    config = absolute(build_config({"model": "Tongyi-MAI/Z-Image-Turbo", "dataset": str(photos)}))
    assert config.model == "Tongyi-MAI/Z-Image-Turbo"
