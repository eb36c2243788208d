"""The task of studies/digits.toml: scikit-learn's digits and a network trained on them once, then kept."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import torch
from common import Batches, trained_once
from sklearn.datasets import load_digits
from torch import Tensor, nn

import rank_search as rs

CACHE = Path(__file__).parent / "cache"


def network() -> nn.Sequential:
    """Four convolutions and two linear layers; about 131,000 parameters and 1.8 million MACs an image."""
    return nn.Sequential(
        OrderedDict(
            conv1=_block(1, 16),
            conv2=_block(16, 32),
            conv3=_block(32, 64, stride=2),
            conv4=_block(64, 128),
            pool=nn.AvgPool2d(2),
            flatten=nn.Flatten(),
            hidden=nn.Linear(512, 64),
            relu=nn.ReLU(),
            output=nn.Linear(64, 10),
        )
    )


def _block(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
    return nn.Sequential(OrderedDict(conv=convolution, norm=nn.BatchNorm2d(outputs), relu=nn.ReLU()))


def splits() -> list[tuple[Tensor, Tensor]]:
    """1,000 images to train on, 400 to select by, 397 to test with: a fixed shuffle of the whole set."""
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16
    labels = torch.tensor(digits.target)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    return [(images[part], labels[part]) for part in torch.split(order, [1000, 400, 397])]


def task() -> rs.Supervised:
    """What the study file's factory returns."""
    train, selection, test = splits()
    batches = Batches(*train, size=50, shuffle=True, shift=1)
    return rs.Supervised(
        network=trained_once(network, batches, CACHE / "digits.safetensors", epochs=40, learning_rate=3e-3),
        training_batches=batches,
        selection_batches=Batches(*selection, size=200),
        test_batches=Batches(*test, size=200),
    )
