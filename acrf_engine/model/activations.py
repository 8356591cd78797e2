"""What a training step keeps for its backward pass, in bytes, by the transformer's shapes; loads no torch.

Counted operation by operation, as autograd keeps tensors of `ZImageTransformerBlock` with peft's LoRA in it and the
base frozen. N is the tokens of a batch (padded, picture and caption together), D the width, F the feed-forward's width.
The LoRA computes in fp32, so what goes into it is kept in fp32 too.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

FLOAT = 4
QKV = ("attention.to_q", "attention.to_k", "attention.to_v")
GATES = ("feed_forward.w1", "feed_forward.w3")
DOWN = "feed_forward.w2"
NORMS = 4
PAD = 32
"""Pictures and captions are padded to a multiple of so many tokens."""
WORKING_D, WORKING_F = 10.0, 2.0
"""What backward holds beside what was kept, in units of N D fp32 and N F of the compute dtype."""


@dataclass(frozen=True)
class Shape:
    """The transformer's: D, F, heads, blocks and refiner blocks of each kind."""

    dim: int
    hidden: int
    heads: int
    blocks: int
    refiners: int


@dataclass(frozen=True)
class Lora:
    """What is trained: rank, the trained Linears of each block by number, and how."""

    rank: int
    blocks: dict[int, frozenset[str]]
    dora: bool = False
    dropout: bool = False
    refiners: bool = False


@dataclass(frozen=True)
class Batch:
    """Pictures of `picture_tokens` and captions of `caption_tokens` tokens each."""

    size: int
    picture_tokens: int
    caption_tokens: int

    @property
    def tokens(self) -> int:
        return self.size * (padded(self.picture_tokens) + padded(self.caption_tokens))


def padded(tokens: int) -> int:
    return -(-tokens // PAD) * PAD


def kept(shape: Shape, lora: Lora, batch: Batch, width: int, recomputed: Collection[int], refiners_too: bool) -> int:
    """Most bytes that the graph keeps at one time: backward frees the blocks from the last to the first, and a
    recomputed one keeps everything while backward is in it.

    Args:
        width: bytes of a value of the compute dtype. recomputed: blocks that keep their input alone until then.
        refiners_too: whether the refiner blocks do.
    """
    tokens = batch.tokens
    below = width * tokens * shape.dim + 2 * FLOAT * tokens * (shape.dim // shape.heads)  # last input, rotations
    parts = (batch.size * padded(batch.picture_tokens), batch.size * padded(batch.caption_tokens))
    if refiners_too:
        below += sum(shape.refiners * width * part * shape.dim for part in parts)
    elif lora.refiners:
        below += sum(shape.refiners * block(shape, part, width, lora, frozenset(QKV)) for part in parts)
    most = below
    first = 0 if lora.refiners else min(lora.blocks, default=shape.blocks)
    for number in range(first, shape.blocks):
        whole = block(shape, tokens, width, lora, lora.blocks.get(number, frozenset()))
        below += width * tokens * shape.dim if number in recomputed else whole
        most = max(most, below + (whole if number in recomputed else 0))
    return most


def working(shape: Shape, lora: Lora, batch: Batch, width: int) -> int:
    """Bytes that backward holds for a moment beside what was kept: gradients on their way through one block."""
    tokens = batch.tokens
    total = int(WORKING_D * FLOAT * tokens * shape.dim / 4 + WORKING_F * width * tokens * shape.hidden)
    return total + (3 * FLOAT * shape.dim * shape.hidden if lora.dora else 0)


def block(shape: Shape, tokens: int, width: int, lora: Lora, trained: frozenset[str]) -> int:
    """Bytes that one block keeps where it is not recomputed; `trained` are its Linears with LoRA."""
    d, f = tokens * shape.dim, tokens * shape.hidden
    whole = width == FLOAT
    norm = FLOAT * d if whole else (FLOAT + width) * d
    total = (NORMS + 2) * norm + FLOAT * tokens * (NORMS + 2 * shape.heads)
    total += 4 * width * d + FLOAT * tokens * shape.heads  # q, k, v, out and log-sum-exp of the attention
    total += 3 * width * f  # both halves of the gate, and their product's other factor
    for name in trained:
        total += FLOAT * tokens * lora.rank
        total += _dora(shape, tokens, width, lora.rank, name) if lora.dora else 0
    return total + _inputs(d, f, whole, lora.dropout, trained)


def _inputs(d: int, f: int, whole: bool, dropout: bool, trained: frozenset[str]) -> int:
    """What the first factor of each LoRA keeps: its input in fp32, shared where base and LoRA have one dtype."""
    total = 0
    for group in (QKV, GATES):
        among = len(trained & set(group))
        total += FLOAT * d * (2 * among if dropout else min(1, among) if whole else among)
    if "attention.to_out.0" in trained:
        total += FLOAT * d * (2 if dropout else 0 if whole else 1)
    if DOWN in trained:
        total += FLOAT * f * (2 if dropout else 1)
    return total


def _dora(shape: Shape, tokens: int, width: int, rank: int, name: str) -> int:
    """peft multiplies the factors out through an identity matrix of the input's width, and keeps both results."""
    into = shape.hidden if name == DOWN else shape.dim
    out = shape.hidden if name in GATES else shape.dim
    return FLOAT * into * (into + rank) + 3 * FLOAT * out + tokens * out * (width + FLOAT)
