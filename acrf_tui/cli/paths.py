"""The command that says where everything is."""

from __future__ import annotations

import argparse

from acrf_tui.cli.opening import runs_dir_of
from acrf_tui.shipped import shipped


def paths(args: argparse.Namespace) -> int:
    """Print where everything is."""
    import platformdirs

    from acrf_engine.config import ASSETS
    from acrf_engine.run.folder import APP_NAME, index_file
    from acrf_engine.run.waiting import line_file
    from acrf_tui.settings import keys_file, read_settings, screenshots_folder, settings_file

    rows = {
        "runs": runs_dir_of(args),
        "sample configs": shipped("sample_configs"),
        "own configs": platformdirs.user_config_path(APP_NAME) / "configs",
        "shipped themes": shipped("themes"),
        "own themes": platformdirs.user_config_path(APP_NAME) / "themes",
        "settings": settings_file(),
        "own keys": keys_file(),
        "screenshots": screenshots_folder(read_settings(settings_file())[0]),
        "cache": platformdirs.user_cache_path(APP_NAME),
        "index of runs": index_file(),
        "device line": line_file(),
        "tiny model": ASSETS / "tiny",
        "demo pictures": ASSETS / "demo",
    }
    for name, path in rows.items():
        print(f"{name:15} {path}")
    return 0
