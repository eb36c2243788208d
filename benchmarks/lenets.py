"""LeNet-300-100 and LeNet-5 for images of 28 × 28 bytes, from an idx folder or an .npz file, trained once and kept."""

from __future__ import annotations

import gzip
import hashlib
import math
import struct
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from rank_search.tasks import Supervised

SELECTION: Final = 5000
"""The last so many training images are never trained on: they are what points are selected by."""

_IDX: Final = {"train": "train", "test": "t10k"}
_MAGIC: Final = {"images": 2051, "labels": 2049}


def lenet_300_100() -> nn.Module:
    """LeCun et al. 1998: 266,610 parameters."""
    layers = OrderedDict[str, nn.Module](flatten=nn.Flatten())
    for place, (inputs, outputs) in enumerate([(784, 300), (300, 100), (100, 10)], 1):
        layers[f"fc{place}"] = nn.Linear(inputs, outputs)
        if outputs > 10:
            layers[f"relu{place}"] = nn.ReLU()
    return nn.Sequential(layers)


def lenet_5() -> nn.Module:
    """In its Caffe form: 431,080 parameters."""
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(1, 20, 5),
            pool1=nn.MaxPool2d(2),
            conv2=nn.Conv2d(20, 50, 5),
            pool2=nn.MaxPool2d(2),
            flatten=nn.Flatten(),
            fc1=nn.Linear(800, 500),
            relu=nn.ReLU(),
            fc2=nn.Linear(500, 10),
        )
    )


NETWORKS: Final[Mapping[str, Callable[[], nn.Module]]] = {"lenet-300-100": lenet_300_100, "lenet-5": lenet_5}


@dataclass(frozen=True)
class Batches:
    """Images and labels in batches, to be iterated again and again; in a new order each time if shuffled.

    Attributes:
        began: called when a pass begins.
    """

    images: Tensor
    labels: Tensor
    size: int
    shuffle: bool = False
    began: Callable[[], None] = lambda: None

    def __len__(self) -> int:
        return math.ceil(len(self.labels) / self.size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        self.began()
        order = torch.randperm(len(self.labels)) if self.shuffle else torch.arange(len(self.labels))
        for some in torch.split(order, self.size):
            yield self.images[some].to(memory_format=torch.channels_last), self.labels[some]  # a third faster on a CPU


def read(data: Path) -> dict[str, NDArray[np.uint8]]:
    """The four arrays `train_images`, `train_labels`, `test_images` and `test_labels`.

    Args:
        data: a folder of idx files as MNIST has them (`train-images-idx3-ubyte`, with or without .gz), or an .npz file
            with these names, or with Keras's (`x_train`, `y_train`, `x_test`, `y_test`).
    """
    names = [(split, kind) for split in ("train", "test") for kind in ("images", "labels")]
    if data.is_dir():
        return {f"{split}_{kind}": _idx(data, split, kind) for split, kind in names}
    short = {"images": "x", "labels": "y"}
    with np.load(data, allow_pickle=False) as arrays:
        keys = {(split, kind): f"{split}_{kind}" for split, kind in names}
        if "x_train" in arrays:
            keys = {(split, kind): f"{short[kind]}_{split}" for split, kind in names}
        return {f"{split}_{kind}": arrays[keys[split, kind]] for split, kind in names}


def _idx(folder: Path, split: str, kind: str) -> NDArray[np.uint8]:
    dimensions = 3 if kind == "images" else 1
    path = folder / f"{_IDX[split]}-{kind}-idx{dimensions}-ubyte"
    content = path.read_bytes() if path.exists() else gzip.decompress(path.with_name(path.name + ".gz").read_bytes())
    magic, *shape = struct.unpack_from(f">{1 + dimensions}I", content)
    if magic != _MAGIC[kind]:
        raise SystemExit(f"{path} is no idx file of {kind}: it begins with {magic}.")
    return np.frombuffer(content, np.uint8, offset=4 * (1 + dimensions)).reshape(shape)


def digest(labels: NDArray[np.uint8]) -> str:
    """Tells data sets apart, wherever their files are."""
    return hashlib.sha256(labels.tobytes()).hexdigest()[:8]


def task_of(
    name: str, data: Path, folder: Path, epochs: int = 8, began: Callable[[], None] = lambda: None
) -> Supervised:
    """The network, trained once and kept in the folder, with its data: trained on, selected by, tested with.

    Pixels have mean 0 and deviation 1 on the training images.

    Args:
        began: called when a pass over the training images begins.
    """
    arrays = read(data)
    pixels = torch.from_numpy(arrays["train_images"][:-SELECTION]).float()
    mean, deviation = pixels.mean(), pixels.std()

    def some(split: str, part: slice = slice(None)) -> tuple[Tensor, Tensor]:
        images = torch.from_numpy(arrays[f"{split}_images"][part].copy()).float()
        labels = torch.from_numpy(arrays[f"{split}_labels"][part].astype(np.int64))
        return ((images - mean) / deviation)[:, None], labels

    training = Batches(*some("train", slice(0, -SELECTION)), size=100, shuffle=True, began=began)
    kept = folder / f"{name}, {epochs} epochs of {digest(arrays['train_labels'])}.safetensors"
    torch.manual_seed(0)
    network = NETWORKS[name]()
    if not kept.exists():
        train(network, training, epochs, 1e-3)
        kept.parent.mkdir(parents=True, exist_ok=True)
        save_file(network.state_dict(), kept)
    network.load_state_dict(load_file(kept))
    return Supervised(
        network=network.eval(),
        training_batches=training,
        selection_batches=Batches(*some("train", slice(-SELECTION, None)), size=500),
        test_batches=Batches(*some("test"), size=500),
    )


def train(
    network: nn.Module,
    batches: Batches,
    epochs: int,
    learning_rate: float,
    after: Callable[[float], None] = lambda part: None,
) -> None:
    """AdamW with a cosine schedule.

    Args:
        after: called after every step with the share of the training that is done.
    """
    optimizer = torch.optim.AdamW(network.parameters(), lr=learning_rate, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    steps, done = epochs * len(batches), 0
    network.train()
    for _ in range(epochs):
        for images, labels in batches:
            optimizer.zero_grad()
            torch.autograd.backward(F.cross_entropy(network(images), labels))
            optimizer.step()
            done += 1
            after(done / steps)
        schedule.step()
    network.eval()
