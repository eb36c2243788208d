"""A Pareto front as it is handed out: its members, and ways to choose one of them: the knee, the closest, the best."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, SupportsIndex, final, overload

from rank_search.basics import Amount, nearest
from rank_search.errors import QueryError
from rank_search.pareto import closest, knee
from rank_search.point import Bound, Condition, Objective, parse_condition
from rank_search.store.choosing import parse_wish
from rank_search.store.html import columns_of, to_html, to_pandas
from rank_search.store.records import TOLERANCE, StudyRecord, TrialRow

if TYPE_CHECKING:
    import pandas as pd


@final
class Front(tuple[TrialRow, ...]):
    """The members of a front in the order that was asked for: a tuple of trials, which a notebook shows as a table.

    A slice of it is such a front, too.

    Attributes:
        study: whose front it is.
        objectives: what it is the front of.
    """

    study: StudyRecord
    objectives: tuple[Objective, ...]

    def __new__(cls, members: Iterable[TrialRow], study: StudyRecord, objectives: Sequence[Objective]) -> Front:
        """The front of these objectives, which every member has measured."""
        made = super().__new__(cls, members)
        made.study, made.objectives = study, tuple(objectives)
        return made

    @overload
    def __getitem__(self, place: SupportsIndex) -> TrialRow: ...

    @overload
    def __getitem__(self, place: slice) -> Front: ...

    def __getitem__(self, place: SupportsIndex | slice) -> TrialRow | Front:
        if isinstance(place, slice):
            return Front(super().__getitem__(place), self.study, self.objectives)
        return super().__getitem__(place)

    def __getnewargs__(self) -> tuple[Any, ...]:
        return tuple(self), self.study, self.objectives

    def __repr__(self) -> str:
        return f"Front({self.study.name!r}, trials {', '.join(str(row.number) for row in self) or 'none'})"

    def near_dense(self, tolerance: float = TOLERANCE) -> Front:
        """The members that are worse than the dense model by a share of the way to the reference point at most.

        Raises:
            QueryError: the tolerance is negative.
        """
        if not tolerance >= 0:
            raise QueryError(
                f"The tolerance is {tolerance:g}; it is a share of the way from dense to the reference, 0 or more."
            )
        limits = self.study.tolerated(tolerance)
        names = [each.name for each in self.objectives if each.name in limits]
        kept = [row for row in self if all(self._loss(row, name) <= limits[name] for name in names)]
        return Front(kept, self.study, self.objectives)

    def knee(self, tolerance: float = TOLERANCE) -> TrialRow:
        """The member from which a gain in one objective costs most in the others: see `pareto.knee`.

        Only members near the dense model are looked at, see `near_dense`; all of them if none is.

        Raises:
            QueryError: the front is empty.
        """
        self._require_members()
        near = self.near_dense(tolerance) or self
        return near[knee([[self._loss(row, each.name) for each in self.objectives] for row in near])]

    def knee_in_words(self, tolerance: float = TOLERANCE) -> str:
        """Which member the knee is, and why, in a sentence; nothing for an empty front."""
        if not self:
            return ""
        return (
            f"Trial {self.knee(tolerance).number} is the knee of {self._near_in_words(tolerance)}: "
            "a gain in one objective costs most in the others there."
        )

    def _near_in_words(self, tolerance: float) -> str:
        limits = self.study.tolerated(tolerance)
        named = [each for each in self.objectives if each.name in limits]
        if not named:
            return f"the {len(self)} members"
        sides = {"minimize": "at most", "maximize": "at least"}
        at = " and ".join(f"{each.name} {sides[each.direction]} {each.loss(limits[each.name]):.4g}" for each in named)
        near = len(self.near_dense(tolerance))
        rule = f"{at}, which is {tolerance:.0%} of the way from the dense model to the reference point"
        return (
            f"the {near} of {len(self)} members with {rule}" if near else f"all {len(self)} members (none has {rule})"
        )

    def closest(self, wish: str | Mapping[str, float]) -> TrialRow:
        """The member closest to a wish, such as `"error=0.05, macs=0.5*dense"` or `{"error": 0.05}`.

        Each measurement counts in units of the front's span: see `pareto.closest`.

        Raises:
            QueryError: the front is empty, or a member lacks a measurement that the wish names.
        """
        self._require_members()
        wanted = self._absolute(parse_wish(wish)) if isinstance(wish, str) else dict(wish)
        losses = {name: self.study.objective(name).loss(value) for name, value in wanted.items()}
        return self[closest([{name: self._loss(row, name) for name in wanted} for row in self], losses)]

    def best(self, *bounds: str | Condition) -> TrialRow:
        """The best member within the bounds, such as `"latency <= 3e-3"`, by the first objective that none is about.

        A bound may be relative (`"error <= dense + 0.01"`), and on what was chosen (`"conv2 = dense"`).

        Raises:
            QueryError: the front is empty, or no member is within the bounds.
        """
        self._require_members()
        parsed = [parse_condition(each) if isinstance(each, str) else each for each in bounds]
        names = {bound.name for bound in parsed if isinstance(bound, Bound)}
        by = next((each for each in self.objectives if each.name not in names), self.objectives[0])
        within = [row for row in self if all(self._keeps(row, bound) for bound in parsed)]
        if not within:
            raise QueryError(
                f"No member of the front satisfies {' and '.join(map(str, parsed))} ({len(self)} members). "
                "Relax the bounds, or run more trials."
            )
        return min(within, key=lambda row: self._loss(row, by.name))

    def to_pandas(self) -> pd.DataFrame:
        """A row for each member, by the number of the trial: measurements, penalties, and each layer's choice."""
        return to_pandas(self)

    def _repr_html_(self) -> str:
        names = [each.name for each in self.objectives]
        return to_html(f"front of {self.study.name}", columns_of(self, names), note=f"{len(self)} members")

    def _keeps(self, row: TrialRow, bound: Condition) -> bool:
        if isinstance(bound, Bound):
            return bound.holds({**row.chosen, **row.measurements}, self.study.dense)
        if bound.layer not in row.model_point.layers:
            raise QueryError(
                f"Trial {row.number} has no layer {bound.layer!r}{nearest(bound.layer, row.model_point.layers)}"
            )
        return bound.holds(row.model_point.layers[bound.layer].factorization)

    def _absolute(self, wish: Mapping[str, Amount]) -> dict[str, float]:
        return {name: amount.of(self.study.dense, name) for name, amount in wish.items()}

    def _loss(self, row: TrialRow, name: str) -> float:
        if name not in row.measurements:
            raise QueryError(
                f"Trial {row.number} has no measurement {name!r}{nearest(name, row.measurements)} "
                "Name one that every member has."
            )
        return self.study.objective(name).loss(row.measurements[name])

    def _require_members(self) -> None:
        if not self:
            raise QueryError(
                f"The front of study {self.study.name!r} has no members to choose from. "
                "Relax the bounds, or run more trials."
            )
