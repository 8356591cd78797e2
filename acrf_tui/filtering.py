"""Filters that a user types: words that all have to be there, whatever the case."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

T = TypeVar("T")


def matching(items: Iterable[T], wanted: str, text_of: Callable[[T], str] = str) -> list[T]:
    """Items whose text holds every word of `wanted`; all of them where it has none."""
    words = wanted.casefold().split()
    if not words:
        return list(items)
    return [item for item in items if all(word in text_of(item).casefold() for word in words)]
