"""Networks for images as people build them, in small: a U-Net, and blocks of MobileNetV2 and EfficientNet."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def normed(*layers: nn.Module, width: int) -> nn.Sequential:
    return nn.Sequential(*layers, nn.BatchNorm2d(width), nn.ReLU6())


class UNet(nn.Module):
    """Down by a grouped and a depthwise convolution, up by transposed ones, with skips."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = normed(nn.Conv2d(3, 8, 3, padding=1, bias=False), width=8)
        self.down = normed(nn.Conv2d(8, 16, 3, stride=2, padding=1, groups=2), width=16)
        self.deep = normed(nn.Conv2d(16, 16, 5, padding=2, groups=16, bias=False), nn.Conv2d(16, 16, 1), width=16)
        self.up = normed(nn.ConvTranspose2d(16, 8, 2, stride=2), width=8)
        self.wide = normed(nn.ConvTranspose2d(16, 8, 3, padding=1, bias=False), width=8)
        self.leave = nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        low = self.down(x)
        return self.leave(self.wide(torch.cat([x, self.up(low + self.deep(low))], 1)))  # type: ignore[no-any-return]


class Inverted(nn.Module):
    """MobileNetV2: wide by 1×1, depthwise, narrow by 1×1, beside the input."""

    def __init__(self, width: int, times: int) -> None:
        super().__init__()
        inner = width * times
        self.run = nn.Sequential(
            normed(nn.Conv2d(width, inner, 1, bias=False), width=inner),
            normed(nn.Conv2d(inner, inner, 3, padding=1, groups=inner, bias=False), width=inner),
            nn.Conv2d(inner, width, 1, bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.run(x)  # type: ignore[no-any-return]


class SqueezeExcite(nn.Module):
    """EfficientNet: channels are weighed by what the whole image says."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weigh = nn.Sequential(
            *(nn.AdaptiveAvgPool2d(1), nn.Conv2d(width, width // 4, 1), nn.SiLU()),
            *(nn.Conv2d(width // 4, width, 1), nn.Sigmoid()),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weigh(x)  # type: ignore[no-any-return]


def classifier(*blocks: nn.Module, width: int) -> nn.Module:
    enter = normed(nn.Conv2d(3, width, 3, stride=2, padding=1, bias=False), width=width)
    return nn.Sequential(enter, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 4))


def mobilenet() -> nn.Module:
    return classifier(Inverted(8, 3), Inverted(8, 3), width=8)


def efficientnet() -> nn.Module:
    wide = normed(nn.Conv2d(8, 16, 1, bias=False), width=16)
    depthwise = normed(nn.Conv2d(16, 16, 5, padding=2, groups=16, bias=False), width=16)
    return classifier(wide, depthwise, SqueezeExcite(16), nn.Conv2d(16, 8, 1), width=8)


NETWORKS = {"unet": UNet, "mobilenet": mobilenet, "efficientnet": efficientnet}


def network(name: str) -> nn.Module:
    """The same weights every time, batch norms with statistics of their own."""
    torch.manual_seed(0)
    model = NETWORKS[name]()
    model.train()(images(0))
    return model.eval()


def images(seed: int, count: int = 8) -> Tensor:
    return torch.randn(count, 3, 12, 12, generator=torch.Generator().manual_seed(seed))
