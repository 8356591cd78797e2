"""Shell completion: commands, options, runs, configs. The shell asks the program itself, so it is never out of date."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

ASKED = "_ARGCOMPLETE"
"""The variable that a shell sets when it asks for completions."""
SETUP = {
    "bash": '# put into ~/.bashrc:  eval "$(acrf-tui completion bash)"\n',
    "zsh": '# put into ~/.zshrc, after compinit:  eval "$(acrf-tui completion zsh)"\n',
    "fish": "# put into ~/.config/fish/config.fish:  acrf-tui completion fish | source\n",
}


def completion(args: argparse.Namespace) -> int:
    """Print the script that makes a shell ask the program."""
    import argcomplete

    print(SETUP[args.shell] + argcomplete.shellcode(["acrf-tui"], shell=args.shell))
    return 0


def answer_shell(parser: argparse.ArgumentParser) -> None:
    """Print the completions that a shell asks for and end the process."""
    import argcomplete
    from argcomplete.completers import DirectoriesCompleter, FilesCompleter, SuppressCompleter

    completers: dict[str, Callable[..., Any]] = {
        "run": run_names,
        "target": run_names_or_lora,
        "file": lora_files,
        "config": config_paths,
        "setting": control_settings,
        "theme": theme_names,
        "runs": DirectoriesCompleter(),
        "out": FilesCompleter(),
    }
    for one in _with_commands(parser):
        for action in one._actions:
            if action.dest in completers:
                action.completer = completers[action.dest]  # type: ignore[attr-defined]  # argcomplete looks there
    argcomplete.autocomplete(parser, default_completer=SuppressCompleter())


def _with_commands(parser: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
    commands = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return [parser, *(one for action in commands for one in action.choices.values())]


def run_names(prefix: str, parsed_args: argparse.Namespace, **_: Any) -> list[str]:
    """Runs as `acrf-tui runs` lists them; with a slash in what is typed, folders of runs."""
    from acrf_engine.run.folder import list_runs
    from acrf_tui.cli.opening import runs_dir_of

    if "/" in prefix:
        return [path for path in _paths(prefix) if path.endswith("/")]
    return [run.name for run in list_runs(runs_dir_of(parsed_args)) if run.name.startswith(prefix)]


def run_names_or_lora(prefix: str, parsed_args: argparse.Namespace, **_: Any) -> list[str]:
    """Runs, and LoRA files."""
    names = [] if "/" in prefix else run_names(prefix, parsed_args)
    return names + [path for path in _paths(prefix) if path.endswith(("/", ".safetensors"))]


def lora_files(prefix: str, **_: Any) -> list[str]:
    """LoRA files and the folders that lead to them."""
    return [path for path in _paths(prefix) if path.endswith(("/", ".safetensors"))]


def config_paths(prefix: str, **_: Any) -> list[str]:
    """YAML files and the folders that lead to them."""
    return [path for path in _paths(prefix) if path.endswith(("/", ".yaml", ".yml"))]


def control_settings(prefix: str, parsed_args: argparse.Namespace, **_: Any) -> list[str]:
    """What `control RUN set` takes."""
    from acrf_engine.protocol import SETTABLE

    if getattr(parsed_args, "name", "") != "set":
        return []
    return [f"{key}=" for key in SETTABLE if key.startswith(prefix)]


def theme_names(prefix: str, **_: Any) -> list[str]:
    """Our themes and the user's own, by their file names."""
    import platformdirs

    from acrf_engine.run.folder import APP_NAME
    from acrf_tui.shipped import shipped

    folders = (shipped("themes"), platformdirs.user_config_path(APP_NAME) / "themes")
    names = {path.stem for folder in folders for path in folder.glob("*.yaml")}
    return sorted(name for name in names if name.startswith(prefix))


def _paths(prefix: str) -> list[str]:
    typed, _, start = prefix.rpartition("/")
    typed = f"{typed}/" if "/" in prefix else ""
    try:
        found = sorted(Path(typed or ".").expanduser().iterdir())
    except OSError:
        return []
    hidden = start.startswith(".")
    return [
        f"{typed}{path.name}/" if path.is_dir() else f"{typed}{path.name}"
        for path in found
        if path.name.startswith(start) and (hidden or not path.name.startswith("."))
    ]
