"""A data set with everything at once: photographs in three shapes, two sources, masks, a regularisation set, mirroring,
captions from a few words to hundreds, held-out pictures, a moving average; stopped in the middle and resumed.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import skimage.data
from PIL import Image
from safetensors.torch import load_file

CONFIG = """\
model: tiny
dataset:
  - path: {home}/train
    masks: {home}/masks
    mask_min_weight: 0.1
    repeats: 2
    resolution: [48, 64]
  - path: {home}/more
    weight: 0.5
    prefix: a picture of
trigger: sks
regularisation:
  path: {home}/class
  ratio: 0.5
  default_caption: a thing
data: {{flip: true, caption_dropout: 0.2, num_workers: 1}}
validation: {{holdout: 1, every: 4}}
optimization: {{ema_decay: 0.9}}
checkpoint: {{every: 2}}
batch_size: 2
gradient_accumulation: 2
optimizer: AdamW
steps: 6
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """The config of a data set in the layout of Hugging Face's imagefolder, with a second source of text files."""
    home = tmp_path / "data"
    for name in ("train", "masks", "more", "class"):
        (home / name).mkdir(parents=True)
    entries = []
    words = {"astronaut": 3, "chelsea": 40, "coffee": 150, "rocket": 1}
    for name, count in words.items():
        picture = Image.fromarray(getattr(skimage.data, name)()).convert("RGB")
        picture.save(home / "train" / f"{name}.jpg")
        entries.append(json.dumps({"file_name": f"{name}.jpg", "text": " ".join([name] * count)}))
        mask = Image.new("L", picture.size, 0)
        mask.paste(255, (picture.width // 4, picture.height // 4, picture.width * 3 // 4, picture.height * 3 // 4))
        mask.save(home / "masks" / f"{name}.png")
    (home / "train" / "metadata.jsonl").write_text("\n".join(entries), encoding="utf-8")
    tall = Image.fromarray(skimage.data.camera()).convert("RGB").crop((100, 0, 400, 512))
    tall.save(home / "more" / "camera.png")
    (home / "more" / "camera.txt").write_text("a man with a camera")
    coins = Image.fromarray(skimage.data.coins()).convert("RGB")
    for number in range(5):
        coins.rotate(20 * number).save(home / "class" / f"{number}.png")
    file = tmp_path / "full.yaml"
    file.write_text(CONFIG.format(home=home), encoding="utf-8")
    return file


def test_a_full_data_set_trains_and_a_stopped_run_ends_as_one_that_went_on(
    config: Path, start: Callable[..., Any]
) -> None:
    straight = start("full-straight", "train", str(config))
    assert straight.end() == 0, straight.words.read_text()
    assert straight.of("warning") == []
    (plan,) = straight.of("plan")
    assert plan["pictures"] == 9  # of ten one is held out
    assert len(plan["buckets"]) >= 3
    assert [body["step"] for body in straight.of("validation")] == [0, 4, 6]

    halves = start("full-halves", "train", str(config))
    halves.until_step(3)
    halves.process.send_signal(signal.SIGINT)
    assert halves.end() == 130, halves.words.read_text()
    resumed = start("full-halves", "resume", "full-halves")
    assert resumed.end() == 0, resumed.words.read_text()

    ours, theirs = (load_file(run.folder / "lora" / f"{run.folder.name}.safetensors") for run in (resumed, straight))
    assert ours.keys() == theirs.keys()
    assert all(ours[name].equal(theirs[name]) for name in ours)
    last = [run.of("validation")[-1]["losses"] for run in (resumed, straight)]
    assert last[0] == last[1]


def test_the_check_prints_every_source_of_it(config: Path) -> None:
    def said(*options: str) -> str:
        command = [sys.executable, "-m", "acrf_tui.cli", "check", str(config), *options]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    text = said()
    assert "/data/train: 4 pictures; captions: 4 from captions file; 2 times an epoch; 4 masks; at 48, 64" in text
    assert "/data/more: 1 picture; captions: 1 from text file; weight 0.5" in text
    assert "/data/class: 5 pictures; regularisation, 0.5 for each training picture" in text
    report = json.loads(said("--json"))
    assert [source["pictures"] for source in report["sources"]] == [4, 1, 5]
    assert report["sources"][2]["regularisation"] is True
