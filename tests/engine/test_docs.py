"""The pages for users say what the program does."""

from __future__ import annotations

from pathlib import Path

from acrf_engine.config_reference import reference

DOCS = Path(__file__).parents[2] / "docs"


def test_the_config_page_is_the_schema() -> None:
    """After a change of the schema: `python -m acrf_engine.config_reference > docs/config.md`."""
    assert (DOCS / "config.md").read_text(encoding="utf-8") == reference()
