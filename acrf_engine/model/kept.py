"""Which of the transformer's layers are never quantised: those of section 5.4 of the paper, small and sensitive."""

from __future__ import annotations

KEPT = ("t_embedder", "cap_embedder", "all_x_embedder", "all_final_layer", "adaLN_modulation")


def is_quantised(name: str, shape: tuple[int, ...]) -> bool:
    """Whether the tensor `name` of the transformer is a weight that quantisation stores in fewer bits."""
    return name.endswith(".weight") and len(shape) == 2 and not any(part in name for part in KEPT)
