"""A task of views: a radiance field that stands for a scene, and pictures of it that it has not seen."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Self, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rank_search.errors import TaskError
from rank_search.representations.radiance import SAMPLES, WHITE, along, seen_along
from rank_search.representations.views import Views, rays
from rank_search.tasks import Batch, Task


@final
@dataclass(frozen=True, eq=False)
class DrawnRays:
    """Batches of pixels of all views, with points on their rays, drawn anew in each pass.

    Attributes:
        every: the rays of all pixels, n × 6.
        colours: of the pixels, n × 3.
        samples: points on each ray, at random places in equal steps.
        size: rays in a batch.
        count: batches in a pass.
    """

    every: Tensor
    colours: Tensor
    samples: int
    size: int
    count: int

    @classmethod
    def of(cls, views: Views, samples: int, size: int, count: int) -> Self:
        """Of the pixels of these views."""
        every = rays(views.poses, views.focal, views.sizes).flatten(0, 2)
        return cls(every, views.images.float().flatten(0, 2), samples, size, count)

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        for _ in range(self.count):
            chosen = torch.randint(len(self.every), (self.size,))
            yield *along(self.every[chosen], torch.rand(self.size, self.samples)), self.colours[chosen]


def pixel_error(model: nn.Module, batch: Batch, background: float) -> Tensor:
    """Mean squared error of the colours along a batch's rays."""
    points, lengths, colours = batch
    return F.mse_loss(seen_along(model, points, lengths, background), colours)


@final
@dataclass(frozen=True, eq=False)
class Scene(Task):
    """A radiance field that stands for a scene: compressing it compresses the scene.

    Trained on some views, selected by others, and reported of a third set: trials measure `psnr`, in decibels over all
    pixels of such views. All there is to see lies within the unit sphere around the origin. The loss is the squared
    error as a share of the training views' variance, so that strengths of entropy between 0.001 and 1 are the useful
    ones. A batch is the points on its rays, the lengths of their steps, and the colours of the pixels.

    Attributes:
        network: trained; it takes points and directions, n × 6, and gives colours and a density, n × 4. See
            `rank_search.representations.radiance_field`.
        training_views, selection_views, test_views: no two of them have a pose in common. Without test views nothing is
            reported on such.
        samples: points on each ray, in equal steps: at random places in training, in the middle of each step where
            it is measured.
        background: what is seen where nothing is in the way: 1 is white, 0 black.
        batch: rays in a batch, drawn from all pixels of all training views by torch's global generator.
        batches: in an epoch, whatever the number of pixels.
    """

    network: nn.Module
    training_views: Views
    selection_views: Views
    test_views: Views | None = None
    samples: int = SAMPLES
    background: float = WHITE
    batch: int = 512
    batches: int = 16

    def __post_init__(self) -> None:
        """Refuse what cannot work in any trial.

        Raises:
            TaskError: the network is no radiance field, a number is below one, two sets share a pose, or all pixels of
                the training views are of one colour.
        """
        if not isinstance(self.network, nn.Module):
            raise TaskError(f"The task's network is {type(self.network).__name__}; pass an nn.Module.")
        for name in ("samples", "batch", "batches"):
            if getattr(self, name) < 1:
                raise TaskError(f"The scene's {name} is {getattr(self, name)}; it is one at least.")
        self._check_poses()
        if self._outputs() != (2, 4):
            raise TaskError(
                f"For 2 points and directions, 2 × 6, the network gives the shape {self._outputs()}; it gives 2 × 4, "
                "three colours and a density."
            )
        if self._variance == 0:
            raise TaskError("All pixels of the training views have one colour, so that there is nothing to learn.")

    def _check_poses(self) -> None:
        named = {"training": self.training_views, "selection": self.selection_views, "test": self.test_views}
        owners: dict[tuple[float, ...], str] = {}
        for name, views in named.items():
            for pose in () if views is None else views.poses.flatten(1).tolist():
                if owners.setdefault(tuple(pose), name) != name:
                    raise TaskError(
                        f"A view of the {name} views has the pose of one of the {owners[tuple(pose)]} views; what is "
                        "measured on is new to the network. Leave it out of one of them."
                    )

    @torch.no_grad()
    def _outputs(self) -> tuple[int, ...]:
        try:
            return tuple(self.network(self.example().expand(2, -1)).shape)
        except Exception as error:
            raise TaskError(
                f"The network does not take points and directions: {error}. Its forward takes n × 6."
            ) from error

    @cached_property
    def _drawn(self) -> DrawnRays:
        return DrawnRays.of(self.training_views, self.samples, self.batch, self.batches)

    @cached_property
    def _variance(self) -> float:
        values = self.training_views.images.double().flatten(0, 2)
        return float((values - values.mean(0)).square().mean())

    def model(self) -> nn.Module:
        return self.network

    def example(self) -> Tensor:
        return torch.tensor([[0.0, 0.0, 0.0, 0.0, 0.0, -1.0]])

    def training(self) -> Iterable[Batch]:
        return self._drawn

    def selection(self) -> Iterable[Batch]:
        return self.measured_on(self.selection_views)

    def test(self) -> Iterable[Batch] | None:
        return None if self.test_views is None else self.measured_on(self.test_views)

    def measured_on(self, views: Views) -> Iterable[Batch]:
        """Batches for `evaluate`, one for each view: every pixel, points in the middles of their steps."""
        middles = torch.full((1, self.samples), 0.5)
        every = rays(views.poses, views.focal, views.sizes).flatten(1, 2)
        for some, colours in zip(every, views.images.float().flatten(1, 2), strict=True):
            yield *along(some, middles), colours

    def selection_examples(self) -> int:
        return 0  # pixels of one scene are no independent examples

    def meanings(self) -> Mapping[str, str]:
        return {"psnr": "decibels over all pixels of views that the network was not trained on"}

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        return pixel_error(model, batch, self.background) / self._variance

    def distilled_loss(
        self, model: nn.Module, teacher: nn.Module, batch: Batch, share: float, temperature: float
    ) -> Tensor:
        points, lengths, colours = batch
        found = seen_along(model, points, lengths, self.background)
        with torch.no_grad():
            aims = seen_along(teacher, points, lengths, self.background)
        apart = (1 - share) * F.mse_loss(found, colours) + share * F.mse_loss(found, aims)
        return apart / self._variance

    def evaluate(self, model: nn.Module, batches: Iterable[Batch]) -> Mapping[str, float]:
        squares, count = 0.0, 0
        for points, lengths, colours in batches:
            found = seen_along(model, points, lengths, self.background).double().clamp(0, 1)
            squares += float((found - colours).square().sum())
            count += colours.numel()
        return {"psnr": 10 * math.log10(count / squares) if squares else math.inf}
