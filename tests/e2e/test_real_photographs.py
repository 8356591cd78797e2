"""A user's own pictures: photographs of every size and shape, the paper's config as pasted, and files that are none."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import skimage.data
from PIL import Image

pytestmark = pytest.mark.full_only

NAMES = ("astronaut", "coffee", "chelsea", "rocket", "camera", "coins", "page", "text")

PAPER = """\
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
def photographs(tmp_path: Path) -> Path:
    """Eight of scikit-image's, colour and grey, wide and tall, in three formats, as large as they come."""
    folder = tmp_path / "Meine Fotos é"
    folder.mkdir()
    for index, name in enumerate(NAMES):
        picture = Image.fromarray(getattr(skimage.data, name)())
        picture.save(folder / f"{name}{('.png', '.jpg', '.webp')[index % 3]}")
        (folder / f"{name}.txt").write_text(f"a photograph of {name}, „schön“\n", encoding="utf-8")
    return folder


def test_the_papers_config_trains_real_photographs_to_the_end(
    photographs: Path, tmp_path: Path, start: Callable[..., Any]
) -> None:
    config = tmp_path / "paper.yaml"
    config.write_text(f"model: tiny\ndataset: {photographs}\n{PAPER}", encoding="utf-8")
    run = start("photos", "train", str(config), "--steps", "6", "--set", "batch_size=2")
    assert run.end() == 0, run.words.read_text()
    assert run.steps() == [1, 2, 3, 4, 5, 6]
    (plan,) = run.of("plan")
    assert plan["pictures"] == 8
    assert sum(plan["buckets"].values()) == 8
    assert len(plan["buckets"]) > 1
    assert all(body["loss"] > 0 for body in run.of("step"))
    assert run.of("warning") == []
    assert (run.folder / "lora" / "photos.safetensors").stat().st_size > 0


def test_a_file_that_is_no_picture_is_left_out_whatever_its_name(
    photographs: Path, tmp_path: Path, start: Callable[..., Any]
) -> None:
    """Names are bytes: this one is not UTF-8, holds a newline, and must still be told of."""
    with open(os.fsencode(photographs) + b"/bro\xffken\n.png", "wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n and then nothing")
    config = tmp_path / "my.yaml"
    config.write_text(f"dataset: {photographs}\n", encoding="utf-8")
    run = start("hostile", "train", str(config), "--steps", "2")
    assert run.end() == 0, run.words.read_text()
    assert run.steps() == [1, 2]
    (warning,) = run.of("warning")
    assert "left out" in warning["message"]
    assert "ken" in warning["message"]
