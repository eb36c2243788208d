"""Candidates of `auto`: allocations that are best under learned weights, and members of the front slightly changed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, final

import numpy as np

from rank_search.basics import Float, Int
from rank_search.options import Array, OptionArrays, Places, cost_shares, minds_costs
from rank_search.search.features import Features
from rank_search.search.residual import Corrected

# These, and those of `auto`, were chosen by eye while the fronts of `benchmarks.front_per_trial` were compared
# (docs/benchmarks/search.md has what came of them, docs/decisions/0012-auto.md what was left out). None was varied by
# itself with enough rng seeds to say that another value is worse. What bounds them is time: an ask shall stay below 50
# ms at a thousand trials (measured: 26 ms of CPU at 60 coordinates), and its cost grows with (`SOLVED` + `MOVED`) ·
# `DRAWS` · `DIRECTIONS`.

SOLVED: Final = 90
"""Candidates in an ask that solve the allocation, each at a price drawn from those at which it changes."""

MOVED: Final = 210
"""Candidates that are members of the front with a few groups moved: more than are solved, as each is but one of many
neighbours of one member."""

EXPECTED: Final = 3
"""Every third allocation is solved with the expected weights, the others with weights drawn from the posterior
(Thompson sampling): some to exploit what is known, most to find out."""

FROM_FRONT: Final = 0.8
"""How often the penalties of a solved allocation are those of a member of the front, nudged, rather than drawn anew."""

NUDGE: Final = 0.15
"""Standard deviation of a nudge of a penalty's coordinate, on 0 to 1: about a seventh of its range."""


@dataclass(frozen=True, eq=False)
class Candidate:
    """A point as `auto` sees it: its options by their places, and its penalties' coordinates on 0 to 1.

    `row` has what the surrogate sees of it, its own errors rather than those of the nearest options.
    """

    places: Int[Places, " groups"]
    penalties: Float[Array, " penalties"]
    row: Float[Array, " weights"]


@final
class Candidates:
    """Makes the candidates of an ask.

    Args:
        menus: the options of all groups.
        features: what the surrogates see.
        objectives: their names.
        penalties: how many are searched.
        limits: the most that a counted cost may be.
    """

    def __init__(
        self,
        menus: OptionArrays,
        features: Features,
        objectives: Sequence[str],
        penalties: int,
        limits: Mapping[str, float],
    ) -> None:
        self._menus, self._features, self._searched, self._limits = menus, features, penalties, limits
        at_limits = limits and not minds_costs(objectives)
        self._prices = [
            (menus.share(each), np.zeros(1) if at_limits else menus.prices(each)) for each in cost_shares(objectives)
        ]

    def made(
        self, surrogates: Sequence[Corrected | None], members: Sequence[Candidate], rng: np.random.Generator
    ) -> tuple[Int[Places, "candidates groups"], Float[Array, "candidates penalties"]]:
        """Some three hundred different candidates: their options, and their penalties' coordinates.

        Args:
            surrogates: for each objective; None for what is counted.
            members: of the front.
        """
        pairs = [*self._solved(surrogates, members, rng), *self._moved(members, rng)]
        different = {(places.tobytes(), penalties.tobytes()): (places, penalties) for places, penalties in pairs}
        places, penalties = zip(*different.values(), strict=True)
        return np.stack(places), np.stack(penalties)

    def _solved(
        self, surrogates: Sequence[Corrected | None], members: Sequence[Candidate], rng: np.random.Generator
    ) -> Iterator[tuple[Places, Array]]:
        """Best allocations for prices all along the front, under weights that are expected, or drawn.

        Where a price breaks the limits they are the best within these; where no objective is a cost, all are.
        """
        for weights in self._weights(surrogates, rng):
            share, prices = self._prices[int(rng.integers(len(self._prices)))]
            price = prices[int(rng.integers(len(prices)))]
            yield self._menus.solved_within(weights, price, share, self._limits), self._penalties(members, rng)

    def _weights(
        self, surrogates: Sequence[Corrected | None], rng: np.random.Generator
    ) -> Float[Array, "solved groups kinds"]:
        """How much errors count, for each of `SOLVED` candidates; a third as expected, the others drawn."""
        learned = [each.linear for each in surrogates if each is not None]
        if not learned:
            return np.ones((SOLVED, len(self._menus.errors), len(self._menus.kinds_of)))
        counts = [len(range(place, SOLVED, len(learned))) for place in range(len(learned))]
        drawn = [each.drawn(rng, count) for each, count in zip(learned, counts, strict=True)]
        for each, rows in zip(learned, drawn, strict=True):
            rows[::EXPECTED] = each.weights()
        return self._features.weights(np.concatenate(drawn))

    def _moved(self, members: Sequence[Candidate], rng: np.random.Generator) -> Iterator[tuple[Places, Array]]:
        """Members of the front with a few groups moved."""
        for _ in range(MOVED if members else 0):
            member = members[int(rng.integers(len(members)))]
            yield self._menus.moved(member.places, rng), _nudged(member.penalties, rng)

    def _penalties(self, members: Sequence[Candidate], rng: np.random.Generator) -> Float[Array, " penalties"]:
        if members and rng.random() < FROM_FRONT:
            return _nudged(members[int(rng.integers(len(members)))].penalties, rng)
        return rng.random(self._searched)


def _nudged(coordinates: Float[Array, " n"], rng: np.random.Generator) -> Float[Array, " n"]:
    """About half of the coordinates moved."""
    steps = rng.normal(0.0, NUDGE, coordinates.size) * (rng.random(coordinates.size) < 0.5)
    return np.asarray(np.minimum(np.maximum(coordinates + steps, 0.0), 1.0))
