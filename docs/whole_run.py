"""docs/whole-run.md: a run on everything that a data set can have, its LoRA in three formats, each loaded back.

python docs/whole_run.py FOLDER                      # model folder, photographs and config only
python docs/whole_run.py FOLDER docs/whole-run.md    # and the commands of the page, with what they print

The photographs are those that scikit-image brings. FOLDER must be new.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import skimage.data
from PIL import Image

from acrf_engine.config import ASSETS

WORDS = {"astronaut": 3, "chelsea": 40, "coffee": 150, "rocket": 1}
"""How often a caption says its word: from 1 token to more than the others together."""
CONFIG = """\
model: {home}/model            # a folder in diffusers layout
dataset:
  - path: {home}/train         # captions in metadata.jsonl, as in Hugging Face's imagefolder
    masks: {home}/masks
    mask_min_weight: 0.1
    repeats: 2
    resolution: [48, 64]
  - path: {home}/more          # captions in a text file beside each picture
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
checkpoint: {{every: 6}}
batch_size: 2
gradient_accumulation: 2
learning_rate: 5e-4
network_dim: 16
network_alpha: 8
optimizer: AdamW
logging: {{trackers: [tensorboard]}}
steps: 12
"""
FORMATS = ("diffusers", "comfyui", "kohya")
PAGE = """\
# A whole run

Real photographs, a model folder in diffusers layout (the tiny model: it has the classes and files of the large
one), and everything that [the data](data.md) can have: two sources, one with captions in one file and masks, seen at
two sizes; a regularisation set; captions of one word and of {most}; wide, square and tall pictures in batches of two;
mirroring, caption dropout, a held-out picture, a moving average, TensorBoard. `python docs/whole_run.py FOLDER` makes
the folder; what stands below the commands is what they printed. Twelve steps show that it works, not that it learns.

```yaml
{config}```

{shown}
## Each file loaded back

By `load_lora_weights` of diffusers' `ZImagePipeline`, one after the other; 4 steps, the same prompt, seed and size
each time. Latents, without unit:

| file | largest change against no LoRA | largest difference from the run's own file |
|---|---:|---:|
{rows}
"""
COMMANDS = (
    "check whole-run.yaml",
    "train whole-run.yaml --headless --name whole",
    "inspect runs/whole/lora/whole.safetensors",
    *(f"export whole --format {kind} --out {kind}.safetensors" for kind in FORMATS),
)


def photographs(home: Path) -> Path:
    """Write folders and config below `home`; returns the config's file."""
    for name in ("train", "masks", "more", "class"):
        (home / name).mkdir(parents=True)
    shutil.copytree(ASSETS / "tiny", home / "model")
    entries = []
    for name, count in WORDS.items():
        picture = Image.fromarray(getattr(skimage.data, name)()).convert("RGB")
        picture.save(home / "train" / f"{name}.jpg")
        entries.append(json.dumps({"file_name": f"{name}.jpg", "text": " ".join([name] * count)}))
        mask = Image.new("L", picture.size, 0)
        mask.paste(255, (picture.width // 4, picture.height // 4, picture.width * 3 // 4, picture.height * 3 // 4))
        mask.save(home / "masks" / f"{name}.png")
    (home / "train" / "metadata.jsonl").write_text("\n".join(entries), encoding="utf-8")
    tall = Image.fromarray(skimage.data.camera()).convert("RGB").crop((100, 0, 400, 512))
    tall.save(home / "more" / "camera.png")
    (home / "more" / "camera.txt").write_text("a man with a camera", encoding="utf-8")
    coins = Image.fromarray(skimage.data.coins()).convert("RGB")
    for number in range(5):
        coins.rotate(20 * number).save(home / "class" / f"{number}.png")
    config = home / "whole-run.yaml"
    config.write_text(CONFIG.format(home=home), encoding="utf-8")
    return config


def drawn(model: Path, loras: list[Path]) -> list[Any]:
    """The same latent, 4 steps, CFG off: without a LoRA, then with each of the files, loaded and taken out again."""
    import torch
    from diffusers import ZImagePipeline

    pipeline = ZImagePipeline.from_pretrained(str(model), dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)

    def draw() -> torch.Tensor:
        return pipeline(
            "sks, astronaut", num_inference_steps=4, guidance_scale=0.0, width=64, height=48, output_type="latent",
            generator=torch.Generator().manual_seed(1),
        ).images  # fmt: skip

    latents = [draw()]
    for file in loras:
        pipeline.load_lora_weights(str(file.parent), weight_name=file.name)
        latents.append(draw())
        pipeline.unload_lora_weights()
    return latents


def page(home: Path, config: Path) -> str:
    """Run the commands and compare the files."""
    own = {"XDG_CACHE_HOME": home / ".cache", "XDG_STATE_HOME": home / ".state", "ACRF_RUNS": home / "runs"}
    environment = {**os.environ, **{name: str(path) for name, path in own.items()}}
    shown = []
    for command in COMMANDS:
        words = [sys.executable, "-m", "acrf_tui.cli", *shlex.split(command)]
        # Headless, a run tells its news on stderr; of the other commands that is for what goes wrong.
        stderr = subprocess.STDOUT if command.startswith("train") else None
        done = subprocess.run(words, cwd=home, env=environment, stdout=subprocess.PIPE, stderr=stderr, check=True)
        printed = done.stdout.decode().replace(str(home), "~/photos").rstrip()
        shown.append(f"```console\n$ acrf-tui {command}\n{printed}\n```\n")
    files = [
        home / "runs" / "whole" / "lora" / "whole.safetensors",
        *(home / f"{kind}.safetensors" for kind in FORMATS),
    ]
    base, own, *others = drawn(home / "model", files)
    rows = [f"| {files[0].name} (the run's) | {(own - base).abs().max():.4f} | |"]
    for file, latent in zip(files[1:], others, strict=True):
        rows.append(f"| {file.name} | {(latent - base).abs().max():.4f} | {(latent - own).abs().max():.1e} |")
    return PAGE.format(
        most=max(WORDS.values()),
        config=config.read_text(encoding="utf-8").replace(str(home), "~/photos"),
        shown="\n".join(shown),
        rows="\n".join(rows),
    )


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    place = Path(sys.argv[1]).absolute()
    written = photographs(place)
    print(written)
    if len(sys.argv) == 3:
        Path(sys.argv[2]).write_text(page(place, written), encoding="utf-8")
