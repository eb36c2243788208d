"""The sampler `auto`: learns how much each layer's error counts, and spreads the cost over the layers accordingly.

Before any trial each layer's options have a known cost and a known output error (`OptionTable`). What is not known is
what these errors do to the loss: a surrogate learns that from the trials, and with its weights the exact allocation
is solved again. Candidates are such allocations, for prices all along the front, and small changes to the front's
members; the one with the largest expected gain in hypervolume is tried.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeVar, final

import numpy as np

from rank_search.basics import Float, Int
from rank_search.options import Array, Option, OptionArrays, OptionTable, Places
from rank_search.pareto import ReferenceBox
from rank_search.point import Choice, Point
from rank_search.search.candidates import Candidate, Candidates
from rank_search.search.constraints import check_counted, upper_limits
from rank_search.search.coordinates import without_frames
from rank_search.search.features import Features
from rank_search.search.improvement import directions, expected_improvement
from rank_search.search.loss_scale import LossScale
from rank_search.search.residual import Corrected, Residual, nearest
from rank_search.search.settings import SearchSettings
from rank_search.search.space import Space
from rank_search.search.surrogate import Surrogate

# How these were chosen: see `rank_search.search.candidates`.
DRAWS: Final = 8
"""Losses drawn for each candidate, over which its gain is averaged: the standard error is a third (1/√8) of the gain's
own deviation."""

DIRECTIONS: Final = 128
"""Random directions over which a hypervolume is averaged. The same judge all candidates of an ask, so that most of the
error (1/√128 of the deviation between directions) cancels between them."""

_T = TypeVar("_T")


@dataclass(frozen=True, eq=False)
class _SeenTrial:
    known: Candidate
    losses: tuple[float, ...]
    is_dense: bool

    def is_beaten_by(self, other: _SeenTrial) -> bool:
        """Whether the other is nowhere worse, and somewhere better."""
        return other.losses != self.losses and all(o <= s for o, s in zip(other.losses, self.losses, strict=True))


@final
class Auto:
    """Proposes points from what is known of the layers and of the trials so far.

    Args:
        space, options: what can be chosen.
        settings: objectives and constraints.
        dense: what the dense model measures, all objectives at least.

    What was learned when makes no difference, so that a search that was killed goes on as it would have.
    """

    def __init__(
        self, space: Space, options: OptionTable, settings: SearchSettings, dense: Mapping[str, float]
    ) -> None:
        self._space, self._options, self._settings, self._dense = space, options, settings, dense
        self._names = [each.name for each in settings.objectives]
        self._box = ReferenceBox.of(settings.objectives, dense, settings.reference)
        self._scales = [
            LossScale.of_objective(each, dense[each.name], self._box.column(place))
            for place, each in enumerate(settings.objectives)
        ]
        self._menus = OptionArrays(options, [group.name for group in space.groups])
        self._strengths = space.searched_penalties
        self._features = Features(len(space.groups), len(options.factorizations), len(self._strengths))
        limits = upper_limits(settings.constraints, options.dense)
        self._candidates = Candidates(self._menus, self._features, self._names, len(self._strengths), limits)
        self._seen: dict[str, _SeenTrial] = {}
        self._front: dict[str, _SeenTrial] = {}
        self._pending: dict[str, Candidate] = {}

    def begin(self, point: Point) -> None:
        """A point is being tried."""
        self._pending[point.key] = self._known(point, 1.0)

    def forget(self, key: str) -> None:
        """It came to nothing."""
        self._pending.pop(key, None)

    def learn(
        self,
        point: Point,
        losses: Sequence[float] | None,
        share: float = 1.0,
        is_complete: bool = True,
        became: Point | None = None,
    ) -> None:
        """What came of a point; it takes the place of what came of it before.

        Args:
            losses: None where none is known.
            share: of the full budget.
            is_complete: whether the point may be on the front: measured at the full budget, no constraint broken.
            became: what its model has become, which the losses are of; None: the point.
        """
        key = point.key
        self._pending.pop(key, None)
        self._seen.pop(key, None)
        if losses is None:
            return
        is_dense = all(choice.is_dense for choice in point.layers.values())
        self._seen[key] = _SeenTrial(self._known(became or point, share), tuple(losses), is_dense)
        if is_complete:
            self._join_front(key)

    def propose(self, rng: np.random.Generator, known: Collection[str]) -> Point | None:
        """The candidate with the largest expected gain whose point is not known yet; None if there is none.

        Complexity: O(n·d² + d³) for n trials and d features (about one for each group), and some hundred candidates.
        """
        surrogates = self._surrogates()
        members = [each.known for each in _in_order(self._front)]
        places, penalties = self._candidates.made(surrogates, members, rng)
        gains = self._expected_gains(surrogates, places, penalties, rng)
        for best in np.argsort(-gains, kind="stable"):
            point = self._point(places[best], penalties[best])
            if point.key not in known and self._keeps_counted(point):
                return point
        return None

    def _join_front(self, key: str) -> None:
        new = self._seen[key]
        if not any(new.is_beaten_by(each) for each in self._front.values()):
            kept = {other: each for other, each in self._front.items() if not each.is_beaten_by(new)}
            self._front = {**kept, key: new}

    # what is expected of candidates -----------------------------------------------------------------------

    def _surrogates(self) -> list[Corrected | None]:
        """One for each objective that is measured; None for what is counted."""
        seen = [each for each in _in_order(self._seen) if not each.is_dense]
        X, front = self._rows_of(seen), self._rows_of(_in_order(self._front))
        positions = self._features.positions(X)
        close = nearest(positions, self._features.positions(front))
        found: list[Corrected | None] = []
        for place, name in enumerate(self._names):
            if name in self._options.dense:
                found.append(None)
                continue
            z = self._scales[place].of(np.array([each.losses[place] for each in seen]))
            linear = Surrogate.fitted(X, z, self._features.scale, self._features.flexible)
            left = z[close] - linear.predict(X[close])[0]
            found.append(Corrected(linear, Residual.fitted(positions[close], left)))
        return found

    def _rows_of(self, seen: Sequence[_SeenTrial]) -> Float[Array, "n weights"]:
        return np.array([each.known.row for each in seen]).reshape(-1, self._features.scale.size)

    def _expected_gains(
        self,
        surrogates: Sequence[Corrected | None],
        places: Int[Places, "candidates groups"],
        penalties: Float[Array, "candidates penalties"],
        rng: np.random.Generator,
    ) -> Float[Array, " candidates"]:
        # A point in flight counts as if it had come out as expected, so that nobody tries the like of it meanwhile.
        flying = _in_order(self._pending)
        all_places = np.stack([*places, *(each.places for each in flying)])
        losses = self._drawn_losses(
            surrogates, all_places, np.stack([*penalties, *(each.penalties for each in flying)]), rng
        )
        gains = self._box.gain(losses)
        nearest_the_box = gains[:, : len(places)].min(axis=2).mean(axis=0)
        gains[:, : len(places)] *= self._keeps_bounds(losses[:, : len(places)])[:, :, None]
        front = np.array([each.losses for each in _in_order(self._front)]).reshape(-1, len(self._names))
        known = np.concatenate([self._box.gain(front), gains[:, len(places) :].mean(axis=0)])
        toward = directions(rng, DIRECTIONS, len(self._names))
        expected = expected_improvement(gains[:, : len(places)], known, toward)
        return expected if expected.any() else nearest_the_box

    def _drawn_losses(
        self,
        surrogates: Sequence[Corrected | None],
        places: Int[Places, "candidates groups"],
        penalties: Float[Array, "candidates penalties"],
        rng: np.random.Generator,
    ) -> Float[Array, "draws candidates objectives"]:
        """Losses of each candidate in each draw."""
        costs = self._menus.costs(places)
        X = self._rows(places, penalties)
        positions = self._features.positions(X)
        drawn = np.empty((DRAWS, len(places), len(self._names)))
        for place, (objective, surrogate) in enumerate(zip(self._settings.objectives, surrogates, strict=True)):
            if surrogate is None:
                drawn[:, :, place] = objective.loss(1.0) * costs[objective.name]
            else:
                mean, deviation = surrogate.predict(X, positions)
                z = mean + np.outer(rng.standard_normal(DRAWS), deviation)
                drawn[:, :, place] = self._scales[place].losses(z)
        return drawn

    def _keeps_bounds(self, losses: Float[Array, "draws candidates objectives"]) -> Float[Array, "draws candidates"]:
        """1 where the drawn losses keep all bounds on objectives, 0 elsewhere."""
        kept = np.ones(losses.shape[:2])
        for bound in self._settings.constraints:
            if bound.name in self._names:
                place, limit = self._names.index(bound.name), bound.absolute(self._dense)
                measured = self._settings.objectives[place].loss(1.0) * losses[:, :, place]
                kept *= measured <= limit if bound.sign in ("<", "<=") else measured >= limit
        return kept

    def _rows(
        self, places: Int[Places, "candidates groups"], penalties: Float[Array, "candidates penalties"]
    ) -> Float[Array, "candidates weights"]:
        costs = self._menus.costs(places)
        kept = np.column_stack([costs[name] / max(1, self._options.dense[name]) for name in ("params", "macs")])
        errors, kinds = (self._menus.take(table, places) for table in (self._menus.errors, self._menus.kinds))
        return self._features.rows(errors, kinds, kept, penalties, 1.0)

    # points -----------------------------------------------------------------------------------------------

    def _known(self, point: Point, share: float) -> Candidate:
        options = [_lost_at_most(option) for option in self._options.describe(point)]
        penalties = np.array([self._coordinate(name, point.penalties.get(name, 0.0)) for name in self._strengths])
        total = self._options.total(options)
        row = self._features.rows(
            np.array([[each.error for each in options]]),
            np.array([[self._menus.kind(each) for each in options]]),
            np.array([[total[name] / max(1, self._options.dense[name]) for name in ("params", "macs")]]),
            penalties[None],
            share,
        )
        return Candidate(self._menus.nearest(options), penalties, row[0])

    def _coordinate(self, name: str, strength: float) -> float:
        low, high = self._strengths[name].interval
        return (self._strengths[name].coordinate_of(strength) - low) / (high - low)

    def _point(self, places: Int[Places, " groups"], coordinates: Float[Array, " penalties"]) -> Point:
        layers: dict[str, Choice] = {}
        for option in self._menus.of(places):
            layers |= option.choices
        penalties = {name: strength.low for name, strength in self._space.penalties.items()}
        for (name, strength), coordinate in zip(self._strengths.items(), coordinates.tolist(), strict=True):
            low, high = strength.interval
            penalties[name] = strength.at(low + coordinate * (high - low))
        return Point(layers, without_frames(layers, penalties))

    def _keeps_counted(self, point: Point) -> bool:
        counted = self._options.total(self._options.describe(point))
        return check_counted(self._settings.constraints, counted, self._options.dense) is None


def _lost_at_most(option: Option) -> Option:
    """An infinite error, of a fit that is not finite, counts as outputs that are lost: 1 for each layer."""
    return option if math.isfinite(option.error) else replace(option, error=float(len(option.choices)))


def _in_order(known: Mapping[str, _T]) -> list[_T]:
    """By the keys of the points, whichever came first."""
    return [known[key] for key in sorted(known)]
