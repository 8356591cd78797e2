"""Train the tiny model from nothing and write it as a folder in diffusers layout.

    python -m acrf_engine.model.tiny.pretrain --out DIR [--work DIR] [--seed N] [--vae-steps N] [--flow-steps N]

Three stages, each resumable from `--work`: the VAE on varied pictures, the latents of drawn scenes, then transformer
and text encoder together by flow matching. With the defaults this takes one to two hours on one CPU core. The seed
fixes pictures, captions and noise; whether scikit-image is installed decides if the VAE sees photographs too.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from pathlib import Path

import torch
from diffusers.pipelines.z_image.pipeline_z_image import ZImagePipeline

from . import architecture
from .contact_sheet import COLUMNS, contact_sheet, draw_prompts, sheet_prompts
from .fitting import Options
from .flow_training import train_flow
from .scene_latents import encode_scenes
from .vae_training import train_vae


def export(pipeline: ZImagePipeline, out: Path) -> None:
    """Write the pipeline in bfloat16, file by file, so that a reader never meets half a file."""
    pipeline.tokenizer.backend_tokenizer.no_padding()  # else the settings of its last call are saved with it
    pipeline.tokenizer.backend_tokenizer.no_truncation()
    out.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=".tiny-", dir=out.parent))
    try:
        pipeline.to(torch.bfloat16).save_pretrained(fresh, safe_serialization=True)
        for path in sorted(fresh.rglob("*")):
            if path.is_file():
                place = out / path.relative_to(fresh)
                place.parent.mkdir(parents=True, exist_ok=True)
                os.replace(path, place)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def main(arguments: list[str] | None = None) -> None:
    """Command line: all three stages, the export and a contact sheet."""
    options = _parse(arguments)
    options.work.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(options.seed)

    def report(line: str) -> None:
        print(line, flush=True)

    vae = train_vae(options, report)
    sources = encode_scenes(vae, options, report)
    model, tokenizer = train_flow(options, sources, report)
    export(architecture.assemble(model["transformer"], vae, model["text_encoder"], tokenizer), options.out)
    sheet = contact_sheet(draw_prompts(options.out, sheet_prompts(), options.seed), COLUMNS)
    sheet.save(options.work / "contact.png")
    size = sum(path.stat().st_size for path in options.out.rglob("*") if path.is_file())
    report(f"written {options.out}, {size / 1e6:.2f} MB; contact sheet {options.work / 'contact.png'}")


def _parse(arguments: list[str] | None) -> Options:
    parser = argparse.ArgumentParser(description="Train the tiny model and write it in diffusers layout.")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write the model to")
    parser.add_argument("--work", type=Path, default=Path("tiny-work"), metavar="DIR", help="checkpoints and latents")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--vae-steps", type=int, default=2000)
    parser.add_argument("--flow-steps", type=int, default=10000)
    parser.add_argument("--scenes", type=int, default=20000, help="drawn pictures for flow matching")
    parser.add_argument("--device", default="cpu")
    return Options(
        **{**vars(parser.parse_args(arguments)), "device": torch.device(parser.parse_args(arguments).device)}
    )


if __name__ == "__main__":
    main()
