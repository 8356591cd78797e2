"""Reading another trainer's file, and telling whose it is."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from acrf_engine.translation import ai_toolkit, kohya, none_trainer, onetrainer
from acrf_engine.translation.ledger import Ledger
from acrf_engine.yaml_source import MAX_CONFIG_BYTES, ConfigError

SUFFIXES = (".toml", ".yaml", ".yml", ".json")
KOHYA_KEYS = {"pretrained_model_name_or_path", "network_module", "network_dim", "train_data_dir", "dataset_config"}
ONETRAINER_KEYS = {"training_method", "base_model_name", "model_type", "peft_type", "lora_rank"}


def translate(path: Path) -> Ledger:
    """The config of another trainer, taken over as far as it goes. Raises ConfigError naming the file."""
    values = read_values(path)
    translator = _translator(values, path.suffix.lower())
    if translator is None:
        raise ConfigError(
            f"{path}: not a config of kohya (toml), ai-toolkit (yaml), OneTrainer (json) or None trainer (toml) "
            f"(it holds {', '.join(list(map(str, values))[:6]) or 'nothing'})"
        )
    try:
        return translator(values, path.absolute())
    except (TypeError, ValueError, AttributeError, IndexError, KeyError) as error:
        raise ConfigError(f"{path}: a value is not what this trainer writes ({error})") from error


def read_values(path: Path) -> dict[str, Any]:
    """The mapping in a TOML, YAML or JSON file. Raises ConfigError."""
    found = _read(path)
    if not isinstance(found, dict):
        raise ConfigError(f"{path}: expected a mapping of keys to values")
    return found


def read_list(path: Path) -> list[Any]:
    """The list in a JSON file. Raises ConfigError."""
    found = _read(path)
    if not isinstance(found, list):
        raise ConfigError(f"{path}: expected a list")
    return found


def _translator(values: dict[str, Any], suffix: str) -> Callable[[dict[str, Any], Path], Ledger] | None:
    config = values.get("config")
    if isinstance(config, dict) and isinstance(config.get("process"), list):
        return ai_toolkit.translate
    model = values.get("model")
    if "acrf" in values or (isinstance(model, dict) and "dit" in model):
        return none_trainer.translate
    if ONETRAINER_KEYS & values.keys():
        return onetrainer.translate
    if suffix in (".yaml", ".yml"):  # kohya writes none, and our own configs have keys of the same names
        return None
    inner = {key for value in values.values() if isinstance(value, dict) for key in value}
    if KOHYA_KEYS & (values.keys() | inner) or isinstance(values.get("datasets"), list):
        return kohya.translate
    return None


def _read(path: Path) -> Any:
    try:
        if path.stat().st_size > 16 * MAX_CONFIG_BYTES:
            raise ConfigError(f"{path}: too long for a config")
        raw = path.read_bytes()
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such file") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
    try:
        text = raw.decode("utf-8-sig")
        match path.suffix.lower():
            case ".toml":
                return tomllib.loads(text)
            case ".json":
                return json.loads(text)
            case ".yaml" | ".yml":
                return yaml.safe_load(text)
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise ConfigError(
            f"{path}: not valid {path.suffix[1:].upper()}: {' '.join(str(error).split())[:200]}"
        ) from None
    raise ConfigError(f"{path}: expected a file that ends in {', '.join(SUFFIXES)}")
