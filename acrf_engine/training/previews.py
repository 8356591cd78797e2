"""Previews of a run in training: each prompt with the LoRA, beside the same seed without it."""

from __future__ import annotations

import time

from acrf_engine.model import lora
from acrf_engine.model.device import free_memory
from acrf_engine.model.zimage import load_vae
from acrf_engine.preview.sampling import sample, save_picture
from acrf_engine.protocol import Preview
from acrf_engine.run.wire import clip_text
from acrf_engine.training.trainer import Trainer


def draw_previews(trainer: Trainer) -> list[Preview]:
    """A picture of every prompt with the LoRA (its moving average, where there is one), and once per run without it."""
    config, prepared = trainer.config.preview, trainer.prepared
    vae = load_vae(prepared.checkpoint, prepared.device)
    folder = trainer.folder.samples
    side = (prepared.resolution, prepared.resolution)
    previews = []
    prepared.transformer.eval()
    try:
        for index, prompt in enumerate(prepared.prompts):
            trainer.ranks.keep_waiting()
            started = time.perf_counter()
            paths = {
                True: folder / f"step-{trainer.step:06d}" / f"{index:02d}.png",
                False: folder / "without-lora" / f"{index:02d}.png",
            }
            for active, path in paths.items():
                if active or not path.exists():
                    lora.set_active(prepared.transformer, active)
                    with trainer.averaged_weights():
                        picture = sample(
                            prepared.checkpoint,
                            prepared.transformer,
                            vae,
                            prepared.dataset.captions[prompt],
                            steps=config.steps,
                            seed=config.seed,
                            side=side,
                        )
                    save_picture(picture, path)
            previews.append(
                Preview(
                    trainer.step,
                    clip_text(prompt, 500),
                    str(paths[True]),
                    str(paths[False]),
                    config.seed,
                    config.steps,
                    time.perf_counter() - started,
                )
            )
    finally:
        lora.set_active(prepared.transformer, True, training=True)
        prepared.transformer.train()
        del vae
        free_memory()
    return previews
