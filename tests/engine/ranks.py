"""Trainings by several processes on the CPU: every rank is forked from a process that has torch loaded."""

from __future__ import annotations

import functools
import multiprocessing
import os
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from acrf_engine.config import RunConfig, dump
from acrf_engine.run.folder import RunFolder, create_run
from acrf_engine.run.ranks import Seat, free_port, seated

PATIENCE_S = 120.0
PRELOAD = [
    "accelerate",
    "acrf_engine.training.follower",
    "acrf_engine.training.preparation",
    "acrf_engine.training.rank_zero",
    "acrf_engine.training.recovery",
    "acrf_engine.training.validation",
    "acrf_engine.training.worker",
    "bitsandbytes",
    "diffusers.loaders.peft",
    "diffusers.models.autoencoders.autoencoder_kl",
    "diffusers.models.transformers.transformer_z_image",
    "diffusers.pipelines.z_image.pipeline_z_image",
    "peft",
    "transformers.models.qwen3.modeling_qwen3",
    "transformers.models.qwen2.tokenization_qwen2",
]


@functools.cache
def _born() -> Any:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    return context


def together(config: RunConfig, path: Path, lead: Callable[..., Any], *arguments: Any) -> list[Any]:
    """What every rank has in the end, rank 0 first: of the others their LoRA, of rank 0 what `lead` returns.

    Rank 0 is `lead(trainer, *arguments)` with the trainer of a new run at `path`, or of the one that is there; the
    others follow it as they follow a worker.
    """
    count = config.distributed.num_processes
    if not path.exists():
        create_run(path.parent, path.name, dump(config))
    answers = _born().SimpleQueue()
    port = free_port()
    processes = []
    for rank in range(count):
        arguments_of_rank = (rank, count, port, config.model_dump(mode="json"), str(path), lead, arguments, answers)
        processes.append(_born().Process(target=_take_part, args=arguments_of_rank, daemon=True))
        processes[-1].start()
    found = dict(answers.get() for _ in range(count))
    for process in processes:
        process.join(PATIENCE_S)
    errors = [str(answer) for _, answer in sorted(found.items()) if isinstance(answer, Failure)]
    assert not errors, "\n".join(errors)
    return [found[rank] for rank in range(count)]


class Failure(str):
    """The traceback of a rank."""


def _take_part(
    rank: int, count: int, port: int, values: Any, path: str, lead: Any, arguments: Any, answers: Any
) -> None:
    with seated(rank, count, port):
        try:
            answers.put((rank, _answer(rank, count, values, path, lead, arguments)))
        except BaseException:
            answers.put((rank, Failure(traceback.format_exc())))
    os._exit(0)


def everything_of(trainer: Any) -> dict[str, Any]:
    """LoRA, moving average and optimizer of a rank, as arrays: tensors would need the process that made them."""
    from exactly import everything

    return {name: value.numpy() if hasattr(value, "numpy") else value for name, value in everything(trainer).items()}


def _answer(rank: int, count: int, values: Any, path: str, lead: Any, arguments: Any) -> Any:
    import torch
    from exactly import poison_the_global_generators

    from acrf_engine.training import follower
    from acrf_engine.training.preparation import prepare
    from acrf_engine.training.rank_zero import RankZero
    from acrf_engine.training.trainer import Trainer

    torch.set_num_threads(1)
    config, folder, seat = (
        RunConfig.model_validate(values, strict=False),
        RunFolder(path),
        Seat(rank, count, rank, count),
    )
    if rank:
        trainer = follower.join_run(seat, config, [], has_log=True)
        poison_the_global_generators()
        follower.obey(trainer)
        return everything_of(trainer)
    said: list[Any] = []
    zero = RankZero(said.append)
    ranks = zero.meet(config, seat, folder, fresh=not any(folder.checkpoints.glob("step-*")))
    prepared = prepare(config, lambda _event: None, lambda: None, cached=zero.cached)
    poison_the_global_generators()
    trainer = Trainer(config, folder, prepared, said.append, ranks)
    answer = lead(trainer, *arguments)
    ranks.order("end")
    return answer
