"""Counter-based randomness: every draw comes from a generator seeded by (run seed, purpose, counters).

Nothing random has a state of its own, so a resumed run needs only its position to repeat every draw exactly.
"""

from __future__ import annotations

import hashlib

import torch


def seed_for(seed: int, purpose: str, *counters: int) -> int:
    """A 63-bit seed of (seed, purpose, counters): equal inputs give equal seeds, others practically never do."""
    key = f"{seed}:{purpose}:{':'.join(map(str, counters))}".encode()
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big") >> 1


def generator(seed: int, purpose: str, *counters: int) -> torch.Generator:
    """A CPU generator for one purpose at one position of the run. Draw on the CPU, then move."""
    return torch.Generator().manual_seed(seed_for(seed, purpose, *counters))
