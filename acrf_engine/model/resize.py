"""Another rank for a LoRA: the nearest LoRA of that rank, module by module, by singular values."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from acrf_engine.model.adapter import Factors, Lora, is_dora
from acrf_engine.model.errors import LoraError
from acrf_engine.model.export import read, require_finite, save


@dataclass(frozen=True)
class Resized:
    """What was kept: `energy` is the share of each change's squared Frobenius norm, by module."""

    modules: int
    rank: int
    former_ranks: list[int]
    energy: dict[str, float]
    is_dora: bool

    def lines(self) -> list[str]:
        """The report for people, one line a kind of module."""
        former = ", ".join(map(str, self.former_ranks))
        rows = [f"rank {former} -> {self.rank}, {self.modules} modules; energy kept (share of the squared norm):"]
        kinds: dict[str, list[float]] = {}
        for module, share in self.energy.items():
            kinds.setdefault(".".join(module.split(".")[2:]) or module, []).append(share)
        rows += [f"  {kind:18} min {min(v):8.3%}  mean {sum(v) / len(v):8.3%}" for kind, v in sorted(kinds.items())]
        worst = min(self.energy, key=lambda module: self.energy[module])
        mean = sum(self.energy.values()) / len(self.energy)
        rows.append(f"  {'all':18} min {self.energy[worst]:8.3%}  mean {mean:8.3%}  (least: {worst})")
        if self.is_dora:
            rows.append("  a DoRA: its magnitudes are kept as they are; the energy is that of up @ down")
        return rows


def resize(source: Path, rank: int, target: Path) -> Resized:
    """Write the LoRA of `source`, of any known format, at `rank` in diffusers format. Raises LoraError."""
    lora, metadata = read(source)
    require_finite(lora)
    if target.exists() and target.samefile(source):
        raise LoraError(f"{target}: is the file itself (choose another --out)")
    smaller: Lora = {}
    energy = {}
    for module, factors in lora.items():
        if rank > min(factors.shape):
            raise LoraError(f"{source}: {module} of shape {factors.shape} has no rank {rank} (choose a smaller --rank)")
        smaller[module], energy[module] = truncate(factors, rank)
    save(target, smaller, {**metadata, "acrf_resized_from": ", ".join(map(str, _ranks(lora)))})
    return Resized(len(lora), rank, _ranks(lora), energy, is_dora(lora))


def truncate(factors: Factors, rank: int) -> tuple[Factors, float]:
    """The best approximation of `up @ down` of this rank (Eckart and Young), and the share of energy that it keeps.

    From the factors' own QR, never the full matrix. To a larger rank nothing is lost: the new rows of `down` are as of
    a new LoRA and those of `up` 0, so that they can be trained.
    """
    if rank > factors.rank:
        more = rank - factors.rank
        bound = factors.down_RI.shape[1] ** -0.5
        new = torch.empty(more, factors.down_RI.shape[1]).uniform_(
            -bound, bound, generator=torch.Generator().manual_seed(0)
        )
        up = torch.cat([factors.up_OR, factors.up_OR.new_zeros(factors.up_OR.shape[0], more)], dim=1)
        return Factors(torch.cat([factors.down_RI, new]), up, factors.magnitude_O), 1.0
    left_q, left_r = torch.linalg.qr(factors.up_OR.double())
    right_q, right_r = torch.linalg.qr(factors.down_RI.double().T)
    u, sizes, v = torch.linalg.svd(left_r @ right_r.T)
    # The root of the sizes to either side, so that both factors are of like size, as after a training.
    root = sizes[:rank].sqrt()
    up = (left_q @ u[:, :rank] * root).float()
    down = (root[:, None] * v[:rank] @ right_q.T).float()
    total = float((sizes**2).sum())
    kept = float((sizes[:rank] ** 2).sum()) / total if total else 1.0
    return Factors(down.contiguous(), up.contiguous(), factors.magnitude_O), kept


def _ranks(lora: Lora) -> list[int]:
    return sorted({factors.rank for factors in lora.values()})
