"""For every test: one thread for torch, and cache, state and config folders of their own instead of the user's."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of the fault suite; here, because pytest reads options from the topmost conftest alone."""
    group = parser.getgroup("faults")
    group.addoption("--faults", choices=("quick", "full"), default="quick", help="how many trials of each fault")
    group.addoption("--all", action="store_true", help="also the tests marked full_only, with few trials of each fault")
    group.addoption("--fault-report", metavar="FILE", help="write the table of faults and verdicts to this file")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--all") or config.getoption("--faults") == "full":
        return
    left_out = [item for item in items if item.get_closest_marker("full_only")]
    items[:] = [item for item in items if item not in left_out]
    config.hook.pytest_deselected(items=left_out)


@pytest.fixture(scope="session", autouse=True)
def own_folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One cache for the session, so that the same pictures are encoded once; the user's files stay as they are."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("CACHE", "STATE", "CONFIG", "DATA"):
            patch.setenv(f"XDG_{name}_HOME", str(home / name.lower()))
        patch.delenv("ACRF_RUNS", raising=False)
        yield
