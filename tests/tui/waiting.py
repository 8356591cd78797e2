"""Waiting for what an app does in its own time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from textual.css.query import NoMatches


async def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Return as soon as `condition` holds; a widget that is not composed yet is a no. Fails after `seconds`."""
    end = asyncio.get_running_loop().time() + seconds
    while not _holds(condition):
        assert asyncio.get_running_loop().time() < end, "it did not come to pass"
        await asyncio.sleep(0.02)


def _holds(condition: Callable[[], bool]) -> bool:
    try:
        return condition()
    except NoMatches:
        return False
