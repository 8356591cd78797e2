"""What a config points to on this machine: found and made absolute, or a message that says what is missing."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from acrf_engine.data_config import PICTURE_SUFFIXES, DatasetSource
from acrf_engine.lora_config import LoraConfig
from acrf_engine.optimizer_config import missing_package
from acrf_engine.paths import shown_if_not_utf8

if TYPE_CHECKING:
    from acrf_engine.config import RunConfig

TINY_MODEL = "tiny"
DEMO_DATASET = "demo"
ASSETS = Path(__file__).parent / "assets"
MASKS_IN_ALPHA = "alpha"


class Missing(Exception):
    """What a config points to is not there; `key` says where the config does, such as `dataset.0.masks`."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key


def model_folder(model: str) -> Path | None:
    """Where the model's folder is; None for a hub id."""
    if model == TINY_MODEL:
        return ASSETS / "tiny"
    path = Path(model).expanduser()
    return path if path.is_dir() else None


def dataset_folder(source: DatasetSource) -> Path:
    return ASSETS / "demo" if source.path == DEMO_DATASET else Path(source.path)


def resolved(config: RunConfig) -> RunConfig:
    """The config with absolute paths, against the current folder. Raises Missing."""
    if missing := missing_package(config.optimizer):
        raise Missing("optimizer", missing)
    if missing := config.logging.missing():
        raise Missing("logging.trackers", missing)
    sources = []
    for index, source in enumerate(config.sources()):
        folder = ASSETS / "demo" if source.path == DEMO_DATASET else Path(source.path).expanduser().absolute()
        _require_pictures(folder)
        sources.append(source.model_copy(update={"path": str(folder), **_absolute_options(source, folder, index)}))
    if isinstance(config.dataset, str):
        dataset: Any = config.dataset if config.dataset == DEMO_DATASET else sources[0].path
    else:
        dataset = sources
    regularisation = config.regularisation
    if regularisation.path:
        folder = Path(regularisation.path).expanduser().absolute()
        _require_pictures(folder, "regularisation.path")
        regularisation = regularisation.model_copy(update={"path": str(folder)})
    return config.model_copy(
        update={
            "model": _resolve_model(config.model),
            "dataset": dataset,
            "regularisation": regularisation,
            "lora": _resolve_lora(config.lora),
        }
    )


def _absolute_options(source: DatasetSource, folder: Path, index: int) -> dict[str, str]:
    """The paths among a source's options; a captions file is looked for in the source's folder too."""
    options = {}
    if source.captions:
        given = Path(source.captions).expanduser()
        file = next((path for path in (given.absolute(), folder / given) if path.is_file()), None)
        if file is None:
            raise Missing(f"dataset.{index}.captions", f"{given.absolute()}: there is no such file (fix the path)")
        _require_utf8(file, f"dataset.{index}.captions")
        options["captions"] = str(file)
    if source.masks not in ("", MASKS_IN_ALPHA):
        masks = Path(source.masks).expanduser().absolute()
        _require_pictures(masks, f"dataset.{index}.masks")
        options["masks"] = str(masks)
    return options


def _resolve_model(model: str) -> str:
    if model == TINY_MODEL:
        return model
    path = Path(model).expanduser()
    _require_utf8(path.absolute(), "model")
    if path.is_dir():
        if not (path / "model_index.json").is_file():
            raise Missing(
                "model",
                f"{path}: no model_index.json in this folder (expected the diffusers layout: model_index.json, "
                "transformer/, vae/, text_encoder/, tokenizer/, scheduler/)",
            )
        return str(path.absolute())
    looks_like_hub = model.count("/") == 1 and not model.startswith((".", "/", "~"))
    if looks_like_hub:
        return model
    raise Missing("model", f"{path.absolute()}: there is no such folder (give a folder, a hub id, or `tiny`)")


def _resolve_lora(config: LoraConfig) -> LoraConfig:
    if not config.init_from:
        return config
    path = Path(config.init_from).expanduser().absolute()
    _require_utf8(path, "lora.init_from")
    if not path.is_file():
        raise Missing("lora.init_from", f"{path}: there is no such file (give a LoRA's .safetensors file)")
    return config.model_copy(update={"init_from": str(path)})


def _require_utf8(path: Path, key: str) -> None:
    if shown := shown_if_not_utf8(path):
        raise Missing(key, f"{shown}: this path is no valid UTF-8 (rename the folder)")


def _require_pictures(folder: Path, key: str = "dataset") -> None:
    _require_utf8(folder, key)
    if not folder.exists():
        raise Missing(key, f"{folder}: there is no such folder (make it and put pictures in, or fix the path)")
    if not folder.is_dir():
        raise Missing(key, f"{folder}: this is a file, not a folder (give the folder it is in)")
    try:
        names = [name for _, _, files in os.walk(folder) for name in files if not name.startswith(".")]
    except OSError as error:
        raise Missing(key, f"{folder}: cannot be read ({error.strerror})") from None
    if not any(name.lower().endswith(PICTURE_SUFFIXES) for name in names):
        kinds = sorted({Path(name).suffix.lower() or name for name in names})[:5]
        found = f"; it holds {len(names)} other files: {', '.join(kinds)}" if names else "; it is empty"
        raise Missing(key, f"{folder}: no pictures found ({', '.join(PICTURE_SUFFIXES)}{found})")
