"""Arguments of an optimizer's class: taken over where our optimizer of that name takes them, else listed."""

from __future__ import annotations

import ast
from typing import Any

from acrf_engine.translation.ledger import Ledger, number

TAKEN: dict[str, tuple[str, ...]] = {
    "AdamW": ("betas", "eps", "amsgrad"),
    "AdamW8bit": ("betas", "eps"),
    "PagedAdamW8bit": ("betas", "eps"),
    "Lion8bit": ("betas",),
    "Adafactor": ("clip_threshold", "decay_rate", "scale_parameter"),
    "Prodigy": ("betas", "beta3", "eps", "decouple", "use_bias_correction", "safeguard_warmup", "d0", "d_coef",
                "growth_rate", "slice_p"),
}  # fmt: skip
"""Those that mean the same for them as in the class that trains here; a test holds them against its signature."""
OURS = "optimization.optimizer_args"


def take(ledger: Ledger, place: str) -> None:
    """Take over `place.betas`, `place.eps` and the like. Call it once our optimizer is known.

    OneTrainer's `beta1` and `beta2` are `betas`; `beta3` is named the same in all.
    """
    if "optimizer" not in ledger.ours:
        return
    known = TAKEN.get(str(ledger.ours["optimizer"]), ())
    found: dict[str, Any] = {}
    keys: list[str] = []
    pair = (f"{place}.beta1", f"{place}.beta2")
    betas = [ledger.peek(key) for key in pair]
    if "betas" in known and all(isinstance(beta, int | float) for beta in betas):
        found["betas"] = betas
        keys += pair
    for name in known:
        key = f"{place}.{name}"
        value = _plain(ledger.theirs.get(key))
        if value is None:
            continue
        found[name] = value
        keys.append(key)
    if found:
        ledger.put(OURS, found, *keys)


def _plain(value: Any) -> Any:
    """`True` or `0.9,0.99` in a text as what Python reads there, since kohya reads them so."""
    if isinstance(value, str):
        value = number(value)
    if isinstance(value, str):
        try:
            value = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            return value
    return list(value) if isinstance(value, tuple) else value
