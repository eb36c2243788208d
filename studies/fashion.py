"""The task of studies/fashion.toml: Fashion-MNIST from an .npz file, and a LeNet-5 trained on it once, then kept."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
from common import Batches, trained_once
from torch import Tensor, nn

import rank_search as rs

HERE = Path(__file__).parent


def network() -> nn.Sequential:
    """LeNet-5 in its Caffe form: 431,080 parameters and 2.29 million MACs an image."""
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(1, 20, 5),
            pool1=nn.MaxPool2d(2),
            conv2=nn.Conv2d(20, 50, 5),
            pool2=nn.MaxPool2d(2),
            flatten=nn.Flatten(),
            hidden=nn.Linear(800, 500),
            relu=nn.ReLU(),
            output=nn.Linear(500, 10),
        )
    )


def task(data: str) -> rs.Supervised:
    """What the study file's factory returns.

    Args:
        data: path, relative to the study file, of an .npz file with `train_images`, `train_labels`, `test_images`
            and `test_labels` (28 × 28 bytes, and classes 0 to 9). The last 5,000 training images are for selection.
    """
    with np.load(HERE / data, allow_pickle=False) as arrays:
        images, labels = _tensors(arrays["train_images"], arrays["train_labels"])
        test = _tensors(arrays["test_images"], arrays["test_labels"])
    batches = Batches(images[:-5000], labels[:-5000], size=100, shuffle=True)
    return rs.Supervised(
        network=trained_once(network, batches, HERE / "cache" / "fashion.safetensors", epochs=10, learning_rate=1e-3),
        training_batches=batches,
        selection_batches=Batches(images[-5000:], labels[-5000:], size=500),
        test_batches=Batches(*test, size=500),
    )


def _tensors(images: np.ndarray, labels: np.ndarray) -> tuple[Tensor, Tensor]:
    """Pixels with mean 0 and deviation 1, as measured on the training images."""
    pixels = torch.from_numpy(images).float().div(255).sub(0.2860).div(0.3530)
    return pixels[:, None], torch.from_numpy(labels).long()
