"""The task of studies/cifar_resnet.toml: a trained CIFAR-10 ResNet (He et al. 2015) from a .safetensors file."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

import rank_search as rs

HERE = Path(__file__).parent
CHANNELS = (16, 32, 64)
PADDING = 4  # pixels that a training image is shifted by at most, as in He et al. 2015, section 4.2


class BasicBlock(nn.Module):
    """Two 3×3 convolutions beside a shortcut without parameters (option A of He et al. 2015)."""

    def __init__(self, entering: int, leaving: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(entering, leaving, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(leaving)
        self.conv2 = nn.Conv2d(leaving, leaving, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(leaving)
        self.stride, self.widening = stride, (leaving - entering) // 2

    def forward(self, x: Tensor) -> Tensor:
        inner = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(inner)) + self._shortcut(x))

    def _shortcut(self, x: Tensor) -> Tensor:
        if not self.widening:
            return x
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.widening, self.widening))


class ResNet(nn.Module):
    """Three stages of basic blocks with 16, 32 and 64 channels; `depth` is 6·blocks + 2."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, CHANNELS[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(CHANNELS[0])
        blocks, entering = (depth - 2) // 6, CHANNELS[0]
        self.layer1, self.layer2, self.layer3 = (
            nn.Sequential(
                *(
                    BasicBlock(
                        leaving if block else before, leaving, stride=2 if block == 0 and leaving > before else 1
                    )
                    for block in range(blocks)
                )
            )
            for before, leaving in zip((entering, *CHANNELS), CHANNELS, strict=False)
        )
        self.linear = nn.Linear(CHANNELS[-1], 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean((2, 3)))  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Images:
    """Batches of CIFAR-10 images as the checkpoints take them, to be iterated again and again.

    `augment` draws the order, a shift of up to 4 pixels and a flip for each image, by torch's global generator.
    Pixels stay bytes until they are asked for: 45,000 images take 138 MB.
    """

    pixels: Tensor
    labels: Tensor
    size: int
    augment: bool = False

    def __len__(self) -> int:
        return -(-len(self.labels) // self.size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        count = len(self.labels)
        order = torch.randperm(count) if self.augment else torch.arange(count)
        for some in torch.split(order, self.size):
            images = self.pixels[some]
            yield normalized(shifted_and_flipped(images) if self.augment else images), self.labels[some]


def normalized(images: Tensor) -> Tensor:
    """The constants that the checkpoints were trained with."""
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    scaled = (images.float() / 255 - mean[:, None, None]) / deviation[:, None, None]
    return scaled.contiguous(memory_format=torch.channels_last)


def shifted_and_flipped(images: Tensor) -> Tensor:
    """Each image with a shift and a flip of its own; what comes in at the border is black."""
    count, _, height, width = images.shape
    padded = F.pad(images, (PADDING,) * 4)
    top, left = torch.randint(0, 2 * PADDING + 1, (2, count, 1))
    rows, columns = top + torch.arange(height), left + torch.arange(width)
    flipped = torch.where(torch.rand(count, 1) < 0.5, columns.flip(1), columns)
    moved = padded.permute(0, 2, 3, 1)[torch.arange(count)[:, None, None], rows[:, :, None], flipped[:, None, :]]
    return moved.permute(0, 3, 1, 2)


def task(data: str, weights: str, depth: int = 20, batch: int = 128) -> rs.Supervised:
    """What the study file's factory returns.

    The checkpoints were trained on all 50,000 training images: on these the dense network has errors of 0.0 to 0.5 %,
    where it has 8 % on others, and mild cuts could not be told apart. So the search sees one half of the other images,
    and the test the other half.

    Args:
        data: folder, relative to the study file, with train_1.npz … train_5.npz and test_dev.npz, each with `images`
            (uint8, N × 3 × 32 × 32) and `labels`.
        weights: a .safetensors file with the network's tensors, relative to the study file.
    """
    model = ResNet(depth)
    model.load_state_dict(load_file(HERE / weights), strict=False)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    unseen, labels = _read([HERE / data / "test_dev.npz"])
    selection, test = halves(labels)
    return rs.Supervised(
        network=model.eval(),
        training_batches=Images(*_read(sorted((HERE / data).glob("train_*.npz"))), batch, augment=True),
        selection_batches=Images(unseen[selection], labels[selection], 250),
        test_batches=Images(unseen[test], labels[test], 250),
    )


def halves(labels: Tensor) -> tuple[Tensor, Tensor]:
    """The places of two halves, drawn by a fixed seed, with as many of each class in both; of an odd class one more in
    the first. Each half is in the order of the file."""
    order = np.random.default_rng(0).permutation(len(labels))
    by_class = [order[labels.numpy()[order] == label] for label in np.unique(labels)]
    first, second = (np.sort(np.concatenate(half)) for half in zip(*(_cut(each) for each in by_class), strict=True))
    return torch.from_numpy(first), torch.from_numpy(second)


def _cut(places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    middle = -(-len(places) // 2)
    return places[:middle], places[middle:]


def _read(files: list[Path]) -> tuple[Tensor, Tensor]:
    with ThreadPoolExecutor() as threads:  # inflating the arrays lets other threads run
        loaded = list(threads.map(_read_one, files))
    return torch.cat([images for images, _ in loaded]), torch.cat([labels for _, labels in loaded])


def _read_one(file: Path) -> tuple[Tensor, Tensor]:
    with np.load(file, allow_pickle=False) as arrays:
        return torch.from_numpy(arrays["images"]), torch.from_numpy(arrays["labels"]).long()
