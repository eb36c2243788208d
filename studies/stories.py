"""The task of studies/stories.toml: stories260k, a small Llama trained on TinyStories, from a .safetensors file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

import rank_search as rs

HERE = Path(__file__).parent
WIDTH, HIDDEN, BLOCKS, HEADS, KEY_HEADS, TOKENS = 64, 172, 5, 8, 4, 512
EPSILON: Final = 1e-5


class Norm(nn.Module):
    """RMSNorm (Zhang and Sennrich 2019), as Llama has it."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + EPSILON)


def rotated(x: Tensor) -> Tensor:
    """Rotary positions (Su et al. 2021) on adjacent pairs of values; x is batch × heads × time × size."""
    size, time = x.shape[-1], x.shape[-2]
    speeds = 10000.0 ** (-torch.arange(0, size, 2, device=x.device) / size)
    angles = torch.arange(time, device=x.device)[:, None] * speeds
    even, odd = x[..., ::2], x[..., 1::2]
    turned = (even * angles.cos() - odd * angles.sin(), even * angles.sin() + odd * angles.cos())
    return torch.stack(turned, -1).flatten(-2)


class Attention(nn.Module):
    """Causal attention in which two heads share a key and a value."""

    def __init__(self) -> None:
        super().__init__()
        size = WIDTH // HEADS
        self.wq = nn.Linear(WIDTH, WIDTH, bias=False)
        self.wk = nn.Linear(WIDTH, KEY_HEADS * size, bias=False)
        self.wv = nn.Linear(WIDTH, KEY_HEADS * size, bias=False)
        self.wo = nn.Linear(WIDTH, WIDTH, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        queries, keys, values = (
            each(x).unflatten(-1, (heads, -1)).transpose(1, 2)
            for each, heads in ((self.wq, HEADS), (self.wk, KEY_HEADS), (self.wv, KEY_HEADS))
        )
        keys, values = (each.repeat_interleave(HEADS // KEY_HEADS, 1) for each in (rotated(keys), values))
        mixed = F.scaled_dot_product_attention(rotated(queries), keys, values, is_causal=True)
        return self.wo(mixed.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class FeedForward(nn.Module):
    """SwiGLU (Shazeer 2020)."""

    def __init__(self) -> None:
        super().__init__()
        self.w1 = nn.Linear(WIDTH, HIDDEN, bias=False)
        self.w2 = nn.Linear(HIDDEN, WIDTH, bias=False)
        self.w3 = nn.Linear(WIDTH, HIDDEN, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.w2(F.silu(self.w1(x)) * self.w3(x))  # type: ignore[no-any-return]


class Block(nn.Module):
    """Attention and feed-forward, each beside a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.attention_norm, self.attention = Norm(), Attention()
        self.ffn_norm, self.feed_forward = Norm(), FeedForward()

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.attention_norm(x))
        return x + self.feed_forward(self.ffn_norm(x))  # type: ignore[no-any-return]


class Llama(nn.Module):
    """Token ids (batch × time) to logits (batch × time × 512); the last layer is the embedding again."""

    def __init__(self) -> None:
        super().__init__()
        self.tok_embeddings = nn.Embedding(TOKENS, WIDTH)
        self.layers = nn.ModuleList(Block() for _ in range(BLOCKS))
        self.norm = Norm()

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.tok_embeddings(tokens)
        for block in self.layers:
            x = block(x)
        return F.linear(self.norm(x), self.tok_embeddings.weight)


def nats(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy of a token, in nats."""
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


def windows(ids: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """The stories one after another, in windows of `length` tokens, and for each token the one that follows."""
    count = (len(ids) - 1) // length
    return ids[: count * length].view(count, length), ids[1 : count * length + 1].view(count, length)


@dataclass(frozen=True)
class Windows:
    """Batches of windows, to be iterated again and again; `shuffle` draws their order by torch's global generator."""

    inputs: Tensor
    targets: Tensor
    size: int
    shuffle: bool = False

    def __len__(self) -> int:
        return -(-len(self.inputs) // self.size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        count = len(self.inputs)
        order = torch.randperm(count) if self.shuffle else torch.arange(count)
        for some in torch.split(order, self.size):
            yield self.inputs[some], self.targets[some]


def task(
    text: str, weights: str, length: int = 256, training: int = 384, selection: int = 64, batch: int = 16
) -> rs.Supervised:
    """What the study file's factory returns.

    Args:
        text: an .npz file with token `ids`, relative to the study file.
        weights: a .safetensors file with the network's tensors, relative to the study file.
        length: tokens of a window.
        training, selection: windows; those that follow are for the test.
        batch: windows of a batch.
    """
    model = Llama()
    model.load_state_dict(load_file(HERE / weights))
    with np.load(HERE / text, allow_pickle=False) as arrays:
        inputs, targets = windows(torch.from_numpy(arrays["ids"].astype(np.int64)), length)
    parts = torch.split(torch.arange(len(inputs)), [training, selection, len(inputs) - training - selection])
    train, chosen, kept = (Windows(inputs[part], targets[part], batch, shuffle=part is parts[0]) for part in parts)
    return rs.Supervised(
        network=model.eval(),
        training_batches=train,
        selection_batches=chosen,
        test_batches=kept,
        loss_function=nats,
        metric=lambda outputs, aims: float(nats(outputs, aims)),
        metric_name="nats",
        one_example=inputs[:1],
    )
