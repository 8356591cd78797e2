"""What a run folder tells beside its events: how its config differs from the defaults, and how large its LoRA is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from acrf_engine.run.folder import RunFolder
from acrf_tui.printable import printable

SAID_ELSEWHERE = ("model", "dataset")
NO_DEFAULT = object()


@dataclass(frozen=True, slots=True)
class Change:
    """A setting of the run that is not the default; all as text."""

    key: str
    value: str
    default: str


@dataclass(frozen=True, slots=True)
class FolderFacts:
    """`lora_bytes`: size of the newest LoRA file, None before there is one. `trouble`: why the config is not known."""

    changes: tuple[Change, ...] = ()
    model: str = ""
    dataset: str = ""
    lora_bytes: int | None = None
    trouble: str = ""


def read_facts(path: Path) -> FolderFacts:
    """Read a run folder. It blocks and imports the config's schema: call it in a thread."""
    from acrf_engine.yaml_source import ConfigError, load_file

    folder = RunFolder(path)
    lora_bytes = newest_size(folder.lora)
    if not folder.config.exists():
        return FolderFacts(lora_bytes=lora_bytes, trouble="its config.yaml is gone: what it changes is not known")
    try:
        values, _ = load_file(folder.config)
    except ConfigError as error:
        return FolderFacts(lora_bytes=lora_bytes, trouble=printable(str(error)))
    return FolderFacts(
        tuple(changes(values, schema_defaults())),
        printable(str(values.get("model", ""))),
        dataset_text(values.get("dataset")),
        lora_bytes,
    )


def newest_size(folder: Path) -> int | None:
    """Bytes of the LoRA file that was written last; None without one."""
    try:
        found = [path.stat() for path in folder.glob("*.safetensors")]
    except OSError:
        return None
    return max(found, key=lambda one: one.st_mtime).st_size if found else None


def schema_defaults() -> dict[str, Any]:
    """The default of every config key by its dotted name; NO_DEFAULT where a value must be given."""
    from pydantic_core import PydanticUndefined

    from acrf_engine.config import RunConfig

    found: dict[str, Any] = {}
    for name, field in RunConfig.model_fields.items():
        default = field.get_default(call_default_factory=True, validated_data={})
        if default is PydanticUndefined:
            found[name] = NO_DEFAULT
        else:
            dumped = default.model_dump(mode="json") if hasattr(default, "model_dump") else default
            found.update(flat({name: dumped}))
    return found


def flat(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Every leaf of nested mappings with its dotted key."""
    for key, value in values.items():
        name = f"{above}.{key}" if above else str(key)
        if isinstance(value, Mapping) and value:
            yield from flat(value, name)
        else:
            yield name, value


def changes(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> list[Change]:
    """Settings whose value is not the default, in the order of the file. 1 and 1.0 are the same value."""
    found = []
    for key, value in flat(values):
        if key in SAID_ELSEWHERE:
            continue
        default = defaults.get(key, NO_DEFAULT)
        same_kind = isinstance(value, bool) is isinstance(default, bool)
        if not (same_kind and value == default):
            found.append(Change(printable(key), text_of(value), "–" if default is NO_DEFAULT else text_of(default)))
    return found


def text_of(value: Any) -> str:
    """A value on one line, as YAML would show it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list):
        return f"[{', '.join(text_of(item) for item in value)}]" if value else "none"
    return printable(str(value)) or "empty" if value is not None else "none"


def dataset_text(dataset: Any) -> str:
    """The folders of a data set."""
    if isinstance(dataset, list):
        return ", ".join(printable(str(one.get("path", "?"))) for one in dataset if isinstance(one, Mapping))
    return printable(str(dataset or ""))
