"""The task of the tests' small study: four kinds of stripes, and a network that learns them in half a second."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import rank_search as rs


def stripes(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Noisy waves on 8×8 pixels in one of four directions."""
    generator = torch.Generator().manual_seed(seed)
    targets = torch.randint(4, (count,), generator=generator)
    rows, columns = torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij")
    waves = torch.stack([rows, columns, rows + columns, rows - columns]).mul(1.6)
    shift = 6.3 * torch.rand(count, 1, 1, generator=generator)
    inputs = torch.sin(waves[targets] + shift) + 0.9 * torch.randn(count, 8, 8, generator=generator)
    return inputs[:, None], targets


def batches(count: int, seed: int, size: int = 40) -> list[tuple[Tensor, Tensor]]:
    inputs, targets = stripes(count, seed)
    return list(zip(inputs.split(size), targets.split(size), strict=True))


def network() -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(
            first=nn.Conv2d(1, 8, 3, padding=1),
            relu=nn.ReLU(),
            second=nn.Conv2d(8, 12, 3, stride=2, padding=1, bias=False),
            norm=nn.BatchNorm2d(12),
            pool=nn.AvgPool2d(2),
            flatten=nn.Flatten(),
            last=nn.Linear(48, 4),
        )
    )


def trained(epochs: int = 6) -> nn.Sequential:
    """The same weights in every process; the global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = network()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(epochs):
        for inputs, targets in batches(320, seed=1):
            optimizer.zero_grad()
            F.cross_entropy(model(inputs), targets).backward()
            optimizer.step()
    return model.eval()


def task() -> rs.Supervised:
    return rs.Supervised(
        network=trained(),
        training_batches=batches(320, seed=1),
        selection_batches=batches(200, seed=2),
        test_batches=batches(200, seed=3),
    )


ODD_NAMES = ("[bold]first[/bold]", """näch"st's""", "<script>alert(1)</script>")


def oddly_named() -> rs.Supervised:
    """The same task; the names of its layers mean something elsewhere: to terminals, to HTML, to SQL."""
    names = dict(zip(("first", "second", "last"), ODD_NAMES, strict=True))
    modules = OrderedDict((names.get(name, name), module) for name, module in trained().named_children())
    return replace(task(), network=nn.Sequential(modules).eval())
