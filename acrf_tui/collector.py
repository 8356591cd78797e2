"""Python's cycle collector and the first screen: walking all that was just imported is a fifth of the time to it."""

from __future__ import annotations

import gc

_held = False


def hold() -> None:
    """Collect nothing until `release`; for the imports and the first screens of an app that begins."""
    global _held
    _held = True
    gc.disable()


def release() -> None:
    """Collect again, and never walk what is there by now: it stays as long as the app. Without `hold`, nothing."""
    global _held
    if _held:
        _held = False
        gc.collect()
        gc.freeze()
        gc.enable()
