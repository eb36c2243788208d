"""The task files of studies/, imported as a study imports them."""

from __future__ import annotations

import importlib.util
import sys
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import torch
from torch import nn

STUDIES = Path(__file__).parents[2] / "studies"


@contextmanager
def study_module(name: str) -> Iterator[ModuleType]:
    """`studies/NAME.py`, under another name than a study would give it."""
    spec = importlib.util.spec_from_file_location(f"{name}_in_test", STUDIES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def normed_network() -> nn.Sequential:
    """Two convolutions, each with a batch norm that has seen something."""
    torch.manual_seed(0)
    layers = OrderedDict(
        first=nn.Conv2d(3, 6, 3, padding=1),
        norm=nn.BatchNorm2d(6),
        relu=nn.ReLU(),
        second=nn.Conv2d(6, 8, 3, padding=1),
        other_norm=nn.BatchNorm2d(8),
        other_relu=nn.ReLU(),
        pool=nn.AdaptiveAvgPool2d(1),
        flat=nn.Flatten(),
        last=nn.Linear(8, 4),
    )
    model = nn.Sequential(layers).train()
    for _ in range(3):
        model(2 * torch.randn(16, 3, 6, 6) + 1)
    return model.eval()
