"""How a point is written as numbers that one of Optuna's samplers sees."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import final

import numpy as np

from rank_search.options import CostModel
from rank_search.point import Point
from rank_search.search.coordinates import Coordinates, coordinates, coordinates_of, point_at
from rank_search.search.samplers import Distributions
from rank_search.search.space import Space


class CoordinateSystem(ABC):
    """Names and ranges of coordinates, what they stand for, and where a point lies."""

    @property
    @abstractmethod
    def costs(self) -> CostModel:
        """What a point costs."""

    @abstractmethod
    def distributions(self) -> Distributions:
        """Name and range of each coordinate; none depends on another."""

    @abstractmethod
    def point_at(self, params: Coordinates) -> Point:
        """The point that coordinates stand for; many of them give one point."""

    @abstractmethod
    def coordinates_of(self, point: Point) -> Coordinates:
        """Coordinates close to a point."""

    def near(self, params: Coordinates, distance: float, rng: np.random.Generator) -> Coordinates | None:
        """Others at about that distance, as a share of their ranges, for a sampler that only repeats a known point.

        None: the sampler is asked again.
        """
        return None


@final
@dataclass(frozen=True)
class Weakenings(CoordinateSystem):
    """One weakening for the whole network, and a factorization and multipliers for each group; see `point_at`."""

    space: Space
    model: CostModel

    @property
    def costs(self) -> CostModel:
        return self.model

    def distributions(self) -> Distributions:
        return coordinates(self.space)

    def point_at(self, params: Coordinates) -> Point:
        return point_at(self.space, self.model, params)

    def coordinates_of(self, point: Point) -> Coordinates:
        return coordinates_of(self.space, point)
