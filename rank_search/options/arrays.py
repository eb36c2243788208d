"""The options of all groups as arrays, so that hundreds of candidates are made and judged at once."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, final

import numpy as np
from numpy.typing import NDArray

from rank_search.basics import Float, Int
from rank_search.options.allocation import Shares, lagrangian_front, price_of
from rank_search.options.table import Option, OptionTable
from rank_search.point import DENSE

Array = NDArray[np.float64]
Places = NDArray[np.intp]
"""Which option of each group: groups, or candidates × groups."""

EVEN: Final[Shares] = {"params": 0.5, "macs": 0.5}
"""One cost for all options, so that those of a group can be laid out from cheap to dear: both costs count alike."""

# The four numbers of `moved` were chosen by eye while the fronts of `benchmarks.front_per_trial` were compared
# (docs/benchmarks/search.md); none was varied by itself.

JUMP: Final = 0.15
"""How often a group takes any option of about its cost, rather than a neighbour on its own front: what the output error
thinks is worse may be better for the loss, and another factorization is seldom a neighbour."""

ABOUT: Final = 0.25
"""Of the dense cost: how far from its own cost a jump may lead."""

STEPS: Final = (-8, -5, -3, -2, -1, 1, 2, 3, 5, 8)
"""How far along its front a group is moved, each as likely: Fibonacci numbers, so that near and far are tried alike.
One axis is laid out on 25 options (`LADDER`): eight of them are a third of the way."""

COUNTS: Final = (1, 1, 1, 2, 2, 2, 2, 3, 3, 3)
"""How many groups are moved, each as likely: two on average, so that one group may pay for another. With one alone
every step along its front is cheaper and worse, or dearer and better."""


_LEAST_PRICE: Final = 1e-6
_LARGEST_PRICE: Final = 1e9
_HALVINGS: Final = 24
"""Of the ratio of these two: what is left are two parts in a million."""


@final
class OptionArrays:
    """Error, costs and factorization of each option of each group: groups × options, filled up with infinite errors.

    Args:
        options: of all groups.
        groups: their names, in order.
    """

    def __init__(self, options: OptionTable, groups: Sequence[str]) -> None:
        self._options = [options.of[name] for name in groups]
        self._dense, self._rest = options.dense, options.rest
        self.kinds_of = options.factorizations
        self._rows = np.arange(len(groups))
        self.errors = self._filled(lambda option: option.error, np.inf)
        self.params = self._filled(lambda option: option.params, 0.0)
        self.macs = self._filled(lambda option: option.macs, 0.0)
        self.kinds = self._filled(self.kind, 0.0).astype(np.intp)
        self._even = self.share(EVEN)
        self._fronts = [self._front(group) for group in range(len(groups))]

    def of(self, places: Int[Places, " groups"]) -> tuple[Option, ...]:
        """The options themselves."""
        return tuple(options[place] for options, place in zip(self._options, places, strict=True))

    def take(self, table: NDArray[Any], places: Int[Places, "*candidates groups"]) -> NDArray[Any]:
        """The entries of a table for each candidate and group."""
        taken: NDArray[Any] = table[self._rows, places]
        return taken

    def nearest(self, options: Sequence[Option]) -> Int[Places, " groups"]:
        """Of each group the option closest in cost and error to a given one, which need not be on the menu."""
        even = [self._even_share(option) for option in options]
        errors = [option.error for option in options]
        distance = np.abs(self._even - np.array(even)[:, None]) / self._even[:, :1]  # groups × options
        distance = distance + np.abs(self.errors - np.array(errors)[:, None])
        return np.asarray(np.argmin(distance, axis=1))

    def costs(self, places: Int[Places, "*candidates groups"]) -> dict[str, Array]:
        """Counted costs of the whole model for each candidate."""
        return {
            "params": self._rest["params"] + self.take(self.params, places).sum(axis=-1),
            "macs": self._rest["macs"] + self.take(self.macs, places).sum(axis=-1),
        }

    def prices(self, shares: Shares) -> Float[Array, " prices"]:
        """Where an allocation changes as the price of cost grows, if all errors count alike."""
        share, kept = self.share(shares), np.isfinite(self.errors)
        costs = [row[keep].tolist() for row, keep in zip(share, kept, strict=True)]
        errors = [row[keep].tolist() for row, keep in zip(self.errors, kept, strict=True)]
        return np.array([each.price for each in lagrangian_front(costs, errors)])

    def solved(
        self, weights: Float[Array, "groups kinds"], price: float, share: Float[Array, "groups options"]
    ) -> Int[Places, " groups"]:
        """The best allocation at one price: each group has its least weight·error + price·cost.

        Args:
            weights: how much an error counts.
            share: see there.
        """
        weighed = self.errors * weights[self._rows[:, None], self.kinds]  # groups × options
        return np.asarray(np.argmin(weighed + price * share, axis=1))

    def solved_within(
        self,
        weights: Float[Array, "groups kinds"],
        price: float,
        share: Float[Array, "groups options"],
        limits: Mapping[str, float],
    ) -> Int[Places, " groups"]:
        """The same, the price raised to the least at which the whole model keeps the limits on its counted costs.

        Where no price does, the cheapest allocation.
        """

        def keeps(places: Int[Places, " groups"]) -> bool:
            costs = self.costs(places)
            return all(costs[name] <= limit for name, limit in limits.items())

        places, low, high = self.solved(weights, price, share), max(price, _LEAST_PRICE), _LARGEST_PRICE
        if keeps(places):
            return places
        places = self.solved(weights, high, share)
        for _ in range(_HALVINGS if keeps(places) else 0):
            middle = math.sqrt(low * high)
            tried = self.solved(weights, middle, share)
            if keeps(tried):
                places, high = tried, middle
            else:
                low = middle
        return places

    def moved(self, places: Int[Places, " groups"], rng: np.random.Generator) -> Int[Places, " groups"]:
        """One to three groups moved: to a neighbor on their own front, or to any option of about their cost."""
        changed = places.copy()
        count = COUNTS[int(rng.integers(len(COUNTS)))]
        for group in rng.permutation(len(changed))[:count]:
            changed[group] = self._near(int(group), int(changed[group]), rng)
        return changed

    def _near(self, group: int, place: int, rng: np.random.Generator) -> int:
        prices, price = self._even[group], self._even[group, place]
        if rng.random() < JUMP:
            alike = np.flatnonzero((np.abs(prices - price) <= ABOUT * prices[0]) & np.isfinite(self.errors[group]))
            return int(alike[int(rng.integers(len(alike)))])
        front = self._fronts[group]
        step = int(prices[front].searchsorted(price)) + STEPS[int(rng.integers(len(STEPS)))]
        return int(front[min(max(step, 0), len(front) - 1)])

    def _front(self, group: int) -> Int[Places, " kept"]:
        """Options that no other one of the group dominates, the cheapest first."""
        prices, errors = self._even[group], self.errors[group]
        kept: list[int] = []
        for place in np.lexsort((errors, prices)):
            if np.isfinite(errors[place]) and (not kept or errors[place] < errors[kept[-1]]):
                kept.append(int(place))
        return np.array(kept, dtype=np.intp)

    def _filled(self, value: Any, empty: float) -> Float[Array, "groups options"]:
        table = np.full((len(self._options), max(map(len, self._options))), empty)
        for row, options in zip(table, self._options, strict=True):
            row[: len(options)] = [value(option) for option in options]
        return table

    def kind(self, option: Option) -> int:
        """The place of its factorization; dense, whose error is 0, counts with the first."""
        return 0 if option.factorization == DENSE else self.kinds_of.index(option.factorization)

    def share(self, shares: Shares) -> Float[Array, "groups options"]:
        """What each option costs, as a share of the dense model's cost: groups × options."""
        parts = [weight * getattr(self, name) / max(1, self._dense[name]) for name, weight in shares.items() if weight]
        total: Array = np.sum(parts, axis=0)
        return total

    def _even_share(self, option: Option) -> float:
        return price_of(option, EVEN, self._dense)
