"""The names of a single-file transformer's tensors, as diffusers' `from_single_file` will turn them; loads no torch."""

from __future__ import annotations

from collections.abc import Mapping

PREFIX = "model.diffusion_model."
RENAMED = (
    (".attention.k_norm.", ".attention.norm_k."),
    (".attention.q_norm.", ".attention.norm_q."),
    (".attention.out.", ".attention.to_out.0."),
)
FUSED = ".attention.qkv."
Shapes = dict[str, tuple[int, ...]]


def as_in_diffusers(shapes: Mapping[str, tuple[int, ...]]) -> Shapes:
    """The shapes under the diffusers transformer's names; those that have them already are left alone."""
    found: Shapes = {}
    for given, shape in shapes.items():
        name = given.removeprefix(PREFIX)
        if name.startswith(("final_layer.", "x_embedder.")):
            part, _, rest = name.partition(".")
            name = f"all_{part}.2-1.{rest}"
        for theirs, ours in RENAMED:
            name = name.replace(theirs, ours)
        if FUSED in name:
            for one in ("to_q", "to_k", "to_v"):
                found[name.replace(FUSED, f".attention.{one}.")] = (shape[0] // 3, *shape[1:])
        elif name != "norm_final.weight":
            found[name] = shape
    return found
