"""Several sources with options, a regularisation set and masks, in real runs of the tiny model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import skimage.data
from exactly import all_equal, everything, poison_the_global_generators, trace, train
from PIL import Image

from acrf_engine.check import check, lines
from acrf_engine.config import ConfigError, RunConfig, absolute, build_config, dump, load_config
from acrf_engine.training.identity import MismatchError
from acrf_engine.training.saved_state import SavedState
from acrf_engine.training.trainer import Trainer

Make = Callable[..., Trainer]


@pytest.fixture
def two_sources(tmp_path: Path, photo_folder: Path) -> dict[str, Any]:
    """Four photographs with masks, at two sizes, three of five coffee cups as a regularisation set."""
    masks, cups = tmp_path / "masks", tmp_path / "cups"
    for folder in (masks, cups):
        folder.mkdir()
    for file in photo_folder.glob("*.png"):
        mask = Image.new("L", Image.open(file).size, 0)
        mask.paste(255, (20, 20, 70, 60))
        mask.save(masks / file.name)
    coffee = Image.fromarray(skimage.data.coffee()).convert("RGB")
    for number in range(5):
        coffee.rotate(9 * number + 1).resize((100, 90 + number)).save(cups / f"{number}.png")
    return {
        "dataset": [
            {
                "path": str(photo_folder),
                "repeats": 2,
                "masks": str(masks),
                "mask_min_weight": 0.1,
                "resolution": [48, 64],
            },
        ],
        "regularisation": {"path": str(cups), "ratio": 0.4, "weight": 0.5, "default_caption": "a cup"},
        "data": {"flip": True, "caption_dropout": 0.2},
        "batch_size": 2,
        "steps": 6,
    }  # fmt: skip


def ones(masks: Path, pictures: Path) -> Path:
    masks.mkdir()
    for file in pictures.glob("*.png"):
        Image.new("L", Image.open(file).size, 255).save(masks / file.name)
    return masks


def test_a_run_resumed_at_any_step_is_the_run_that_went_on(make_trainer: Make, two_sources: dict[str, Any]) -> None:
    two_sources = {**two_sources, "validation": {"holdout": 1}, "optimization": {"ema_decay": 0.9}}
    straight = make_trainer("straight", **two_sources)
    whole = trace(train(straight, 6))
    first = make_trainer("halves", **two_sources)
    begun = trace(train(first, 3))
    first.save_checkpoint()
    poison_the_global_generators()
    second = make_trainer("halves", **two_sources)
    assert second.step == 3
    assert begun + trace(train(second, 3)) == whole
    assert all_equal(everything(second), everything(straight))


def test_masks_of_ones_train_as_no_masks_to_the_last_bit(
    make_trainer: Make, photo_folder: Path, tmp_path: Path
) -> None:
    masks = ones(tmp_path / "ones", photo_folder)
    options = {"batch_size": 2, "data": {"flip": True}}
    plain = make_trainer("plain", dataset=[{"path": str(photo_folder)}], **options)
    masked = make_trainer("masked", dataset=[{"path": str(photo_folder), "masks": str(masks)}], **options)
    assert all(example.mask_HW is not None for example in masked.prepared.dataset.examples)
    assert trace(train(masked, 3)) == trace(train(plain, 3))
    assert all_equal(everything(masked), everything(plain))


def test_masks_and_weights_change_what_is_learned(make_trainer: Make, two_sources: dict[str, Any]) -> None:
    source = two_sources["dataset"][0]
    runs = {}
    for name, change in {"same": {}, "softer": {"mask_min_weight": 0.5}, "heavier": {"weight": 2.0}}.items():
        runs[name] = trace(train(make_trainer(name, **{**two_sources, "dataset": [{**source, **change}]}), 2))
    assert len({str(run) for run in runs.values()}) == 3


def test_a_mask_that_changed_since_the_checkpoint_is_refused_by_name(
    make_trainer: Make, two_sources: dict[str, Any]
) -> None:
    trainer = make_trainer("run", **two_sources)
    train(trainer, 1)
    trainer.save_checkpoint()
    file = next(Path(two_sources["dataset"][0]["masks"]).glob("*.png"))
    Image.open(file).transpose(Image.Transpose.ROTATE_180).save(file)
    with pytest.raises(MismatchError, match=r"^the masks changed since step-000001; a resumed run must see the same"):
        make_trainer("run", **two_sources)


def test_a_checkpoint_from_before_goes_on_and_still_refuses_other_data(
    make_trainer: Make, two_sources: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has the fingerprint of the whole, and no parts to name."""
    trainer = make_trainer("run", **two_sources)
    train(trainer, 1)
    state = trainer._state().as_dict()
    del state["dataset_parts"]
    monkeypatch.setattr(SavedState, "as_dict", lambda self: state)
    trainer.save_checkpoint()
    assert make_trainer("run", **two_sources).step == 1
    file = next(Path(two_sources["dataset"][0]["masks"]).glob("*.png"))
    Image.open(file).transpose(Image.Transpose.ROTATE_180).save(file)
    with pytest.raises(MismatchError, match=r"^the pictures, captions or options of the data set changed since"):
        make_trainer("run", **two_sources)


def test_a_regularisation_picture_that_came_since_is_refused(make_trainer: Make, two_sources: dict[str, Any]) -> None:
    trainer = make_trainer("run", **two_sources)
    train(trainer, 1)
    trainer.save_checkpoint()
    folder = Path(two_sources["regularisation"]["path"])
    Image.open(folder / "1.png").rotate(90).save(folder / "9.png")
    with pytest.raises(MismatchError, match=r"^the pictures changed since"):
        make_trainer("run", **two_sources)


def test_another_option_is_refused_by_its_key(make_trainer: Make, two_sources: dict[str, Any]) -> None:
    trainer = make_trainer("run", **two_sources)
    train(trainer, 1)
    trainer.save_checkpoint()
    for key, value in (
        ("regularisation", {**two_sources["regularisation"], "ratio": 0.6}),
        ("data", {"upscale": True}),
    ):
        with pytest.raises(MismatchError, match=rf"{key}\.\w+.* changed since step-000001"):
            make_trainer("run", **{**two_sources, key: value})


def test_pictures_are_counted_as_people_count_them(make_trainer: Make, two_sources: dict[str, Any]) -> None:
    """Each at two sizes, and still four; the trigger word is not for the regularisation set."""
    trainer = make_trainer("run", **{**two_sources, "trigger": "sks", "validation": {"holdout": 1}})
    assert trainer.prepared.dataset.pictures == 8
    assert trainer.prepared.held_out.pictures == 1
    assert all(not example.picture.regularisation for example in trainer.prepared.held_out.examples)
    captions = {
        example.picture.regularisation: example.picture.caption for example in trainer.prepared.dataset.examples
    }
    assert captions[False].startswith("sks, a photo of")
    assert captions[True] == "a cup"


def test_the_check_says_what_every_source_gives_and_counts_as_training_does(
    make_trainer: Make, make_config: Callable[..., RunConfig], two_sources: dict[str, Any], tmp_path: Path
) -> None:
    values = {**two_sources, "batch_size": 3}
    report = check(make_config(**values), "config.yaml", tmp_path)
    plan = make_trainer("run", **values).prepared.plan
    assert report.micro_batches_per_epoch == plan.batches_per_epoch
    first, second = report.sources
    assert first["pictures"] == first["masks"] == 4
    assert first["captions"] == {"text file": 4}
    assert first["resolutions"] == [48, 64]
    assert (second["pictures"], second["regularisation"], second["ratio"], second["weight"]) == (5, True, 0.4, 0.5)
    text = "\n".join(lines(report))
    assert "4 pictures; captions: 4 from text file; 2 times an epoch; 4 masks; at 48, 64" in text
    assert "5 pictures; regularisation, 0.4 for each training picture; captions: 5 from default; weight 0.5" in text
    assert "micro-batches an epoch are short" in text
    json.dumps(report.sources)


def test_the_check_names_pictures_that_do_not_fill_the_training_size(
    make_config: Callable[..., RunConfig], tmp_path: Path
) -> None:
    Image.effect_noise((50, 50), 40).save(tmp_path / "small.png")
    for upscale, says, bucket in (
        (False, "will train in smaller buckets", "48x48"),
        (True, "will be enlarged", "64x64"),
    ):
        report = check(make_config(dataset=str(tmp_path), data={"upscale": upscale}), "config.yaml", tmp_path)
        assert report.buckets == {bucket: 1}
        (note,) = [note for note in report.notes if "fill the training size" in note]
        assert says in note
        assert note.endswith("small.png")


def test_a_size_that_a_picture_does_not_fill_is_said(
    make_config: Callable[..., RunConfig], photo_folder: Path, tmp_path: Path
) -> None:
    config = make_config(dataset=[{"path": str(photo_folder), "resolution": [1024, 64]}])
    report = check(config, "config.yaml", tmp_path)
    assert "4 of 4 pictures do not fill 1024 and are not seen at it (data.upscale: true enlarges)" in report.notes
    assert sum(report.buckets.values()) == 4


def test_a_long_list_of_what_is_left_out_is_cut_for_people_and_whole_in_json(
    make_config: Callable[..., RunConfig], tmp_path: Path
) -> None:
    Image.effect_noise((70, 70), 40).save(tmp_path / "a.png")
    entries = [json.dumps({"file_name": f"{number}.png", "text": "gone"}) for number in range(130)]
    (tmp_path / "metadata.jsonl").write_text("\n".join(entries))
    report = check(make_config(dataset=str(tmp_path)), "config.yaml", tmp_path)
    assert len(report.left_out) == 130
    text = lines(report)
    assert sum("no such picture" in line for line in text) == 100
    assert any("30 more (--json names all)" in line for line in text)


# ---- the config ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"dataset": []}, "dataset: the list is empty"),
        ({"dataset": [{"path": "x", "mask_min_weight": 0.5}]}, "mask_min_weight has no effect without masks"),
        ({"dataset": [{"path": "x", "masks": "alpha", "mask_min_weight": 1.0}]}, "dataset.0.mask_min_weight: "),
        ({"dataset": [{"path": "x", "captions": "a.txt"}]}, "expected a .jsonl or .csv file"),
        ({"dataset": [{"path": "x", "resolution": [64, 64]}]}, "expected different sizes"),
        ({"dataset": [{"path": "x", "resolution": 70}]}, "dataset.0.resolution: should be a multiple of 16, got 70"),
        ({"dataset": [{"path": "x", "caption_extension": "txt"}]}, "dataset.0.caption_extension: "),
        ({"dataset": [{"path": "x", "weight": 0}]}, "dataset.0.weight: should be greater than 0"),
        ({"regularisation": {"weight": 0.5}}, "regularisation: weight without effect where path is empty"),
    ],
)
def test_options_without_effect_or_sense_are_refused(values: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build_config(values)
    assert says in str(caught.value)


def test_paths_of_options_become_absolute_and_missing_ones_are_named_with_their_line(
    tmp_path: Path, photo_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ones(tmp_path / "masks", photo_folder)
    (tmp_path / "c.jsonl").write_text("")
    file = tmp_path / "c.yaml"

    def resolved(text: str) -> RunConfig:
        file.write_text(text)
        return absolute(load_config(file), file)

    source = f"dataset:\n  - path: {photo_folder}\n"
    config = resolved(f"{source}    masks: masks\n    captions: c.jsonl\nregularisation:\n  path: masks\n")
    assert config.sources()[0].masks == str(tmp_path / "masks")
    assert config.sources()[0].captions == str(tmp_path / "c.jsonl")
    assert config.regularisation.path == str(tmp_path / "masks")
    assert resolved(f"{source}    masks: alpha\n").sources()[0].masks == "alpha"
    file.write_text(dump(config))
    assert load_config(file) == config
    for text, says in {
        f"{source}    masks: nowhere\n": f"{file}:3: dataset.0.masks: {tmp_path}/nowhere: there is no such folder",
        f"{source}    captions: no.csv\n": f"{file}:3: dataset.0.captions: {tmp_path}/no.csv: there is no such file",
        "regularisation:\n  path: nowhere\n": f"{file}:2: regularisation.path: {tmp_path}/nowhere: there is no such",
    }.items():
        with pytest.raises(ConfigError) as caught:
            resolved(text)
        assert str(caught.value).startswith(says)
