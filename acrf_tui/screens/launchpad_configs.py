"""Which configs the launchpad offers, what each says about itself, and its settings in rows. Nothing here draws."""

from __future__ import annotations

import os
import re
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import platformdirs

from acrf_engine.run.folder import APP_NAME
from acrf_tui.printable import short_path
from acrf_tui.shipped import shipped

if TYPE_CHECKING:
    from acrf_engine.config import RunConfig

FIRST = ("demo", "paper-defaults", "quick-try")
"""Sample configs in the order that a newcomer wants them; the others follow by name."""
TOP_LEVEL_KEY = re.compile(r"^([A-Za-z_]\w*)\s*:", re.MULTILINE)
LONGEST_CONFIG = 256 * 1024
MOST_FILES = 200

Row = tuple[str, str]
"""A label and what stands beside it."""


@dataclass(frozen=True, slots=True)
class ConfigEntry:
    """A config file of the list. `origin`: sample, own (the user's config folder) or here (the current folder)."""

    path: Path
    origin: str
    description: str

    @property
    def name(self) -> str:
        return self.path.stem

    @property
    def audience(self) -> str:
        """The description as far as the first colon, full stop or bracket: who the config is for."""
        return re.split(r"[:(]|\. |\.$", self.description, maxsplit=1)[0].strip()


def leading_comment(text: str) -> str:
    """The comment that a file begins with, as one line of text."""
    lines: list[str] = []
    for line in text.lstrip("\ufeff").splitlines():
        if not line.startswith("#"):
            if lines or line.strip():
                break
            continue
        lines.append(line.lstrip("#").strip())
    return " ".join(" ".join(lines).split())


def sample_configs() -> list[ConfigEntry]:
    """The configs that come with the program, for everyone first."""
    found = _entries(shipped("sample_configs").glob("*.yaml"), "sample")
    return sorted(found, key=lambda entry: (FIRST.index(entry.name) if entry.name in FIRST else len(FIRST), entry.name))


def own_config_folder() -> Path:
    """Where a user keeps configs for all projects."""
    return platformdirs.user_config_path(APP_NAME) / "configs"


def own_configs(here: Path) -> list[ConfigEntry]:
    """The user's configs, then those of the folder `here` that look like configs.

    Loads the schema: not for the UI thread.
    """
    from acrf_engine.config import RunConfig

    folder = own_config_folder()
    found = _entries(_yaml_files(folder), "own")
    known = frozenset(RunConfig.model_fields)
    if here.resolve() not in (folder.resolve(), shipped("sample_configs").resolve()):
        found += _entries((path for path in _yaml_files(here) if looks_like_config(path, known)), "here")
    return found


def suggested_name(name: str, taken: Container[str]) -> str:
    """A name for a copy that is not taken: my-NAME, then with a number."""
    base = name if name.startswith("my-") else f"my-{name}"
    base = re.sub(r"-\d+$", "", base)
    return next(one for number in count(1) if (one := base if number == 1 else f"{base}-{number}") not in taken)


def copy_config(source: Path, name: str) -> Path:
    """Copy a config to the user's own, private; returns where. Raises OSError, also where the name is taken."""
    folder = own_config_folder()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    text = source.read_bytes()
    target = folder / f"{name}.yaml"
    with open(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
        file.write(text)
    return target


def looks_like_config(path: Path, known: frozenset[str]) -> bool:
    """Whether a YAML file has our keys. By its lines, so that a config with a mistake is offered, with the mistake."""
    try:
        if path.stat().st_size > LONGEST_CONFIG:
            return False
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError):
        return False
    keys = set(TOP_LEVEL_KEY.findall(text))
    return len(keys & known) >= 2 or (bool(keys) and keys <= known)


def _yaml_files(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.glob("*.yaml") if path.is_file() and not path.name.startswith("."))[
            :MOST_FILES
        ]
    except OSError:
        return []


def _entries(paths: Iterable[Path], origin: str) -> list[ConfigEntry]:
    entries = []
    for path in paths:
        try:
            with path.open(encoding="utf-8-sig", errors="replace") as file:
                description = leading_comment(file.read(4096))
        except OSError as error:
            description = f"cannot be read ({error.strerror})"
        entries.append(ConfigEntry(path, origin, description))
    return entries


def settings_rows(config: RunConfig) -> list[Row]:
    """The settings that decide what a run does, with units, in the order of a training's own story."""
    from acrf_engine.optimizer_config import rate_text, schedule_text  # slow to import: pydantic

    rows: list[Row] = [("model", _model(config.model)), ("data set", _dataset(config))]
    if config.trigger:
        rows.append(("trigger", config.trigger))
    length = f"{config.steps:,} steps" if config.steps else f"{config.epochs:,} epoch{'s' if config.epochs > 1 else ''}"
    pictures = config.global_batch * config.gradient_accumulation
    return [
        *rows,
        ("length", f"{length}, {pictures} pictures a step ({config.batch_size} × {config.gradient_accumulation})"),
        ("LoRA", f"rank {config.network_dim}, alpha {config.network_alpha:g}, {_targets(config)}"),
        ("anchors", f"K {config.turbo_steps} from the {config.anchors.source}, jitter {config.jitter_scale:g}"),
        ("rate", f"{rate_text(config.learning_rate)}, {schedule_text(config.scheduler, config.schedule)}"),
        ("optimizer", f"{config.optimizer}, weight decay {config.optimization.weight_decay:g}"),
        ("loss", _loss(config)),
        ("saves", _saves(config)),
    ]


def _model(model: str) -> str:
    return "tiny, built in" if model == "tiny" else short_path(model)


def _dataset(config: RunConfig) -> str:
    if isinstance(config.dataset, str):
        return "demo, built in" if config.dataset == "demo" else short_path(config.dataset)
    return ", ".join(short_path(source.path) for source in config.dataset)


def _targets(config: RunConfig) -> str:
    what = {"std": "attention", "ext": "attention + feed-forward"}.get(str(config.lora.targets), "patterns")
    return f"{what} + refiners" if config.lora.refiners else what


def _loss(config: RunConfig) -> str:
    parts: Sequence[tuple[str, float]] = (
        ("Char", config.loss.lambda_char),
        ("Cos", config.loss.lambda_cos),
        ("FFT", config.loss.lambda_fft),
    )
    text = " + ".join(f"{value:g} {name}" for name, value in parts if value)
    return f"{text}, Min-SNR γ {config.snr_gamma:g}" if config.snr_gamma else f"{text}, not weighted"


def _saves(config: RunConfig) -> str:
    every = config.checkpoint.every
    text = f"every {every:,} steps, newest {config.checkpoint.keep} kept" if every else "at the end"
    return f"{text}; previews every {config.preview.every:,}" if config.preview.every else text
