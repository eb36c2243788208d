"""A Pareto front as it is handed out: its members, and ways to choose one of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, final

from rank_search.errors import QueryError
from rank_search.fronts import choosing
from rank_search.fronts.records import StudyRecord, TrialRow
from rank_search.fronts.shown import columns_of, to_html, to_pandas
from rank_search.point import Bound, Objective

if TYPE_CHECKING:
    import pandas as pd


@final
class Front(tuple[TrialRow, ...]):
    """The members of a front in the order that was asked for: a tuple of trials, which a notebook shows as a table.

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

    def __getnewargs__(self) -> tuple[Any, ...]:
        return tuple(self), self.study, self.objectives

    def __repr__(self) -> str:
        return f"Front({self.study.name!r}, trials {', '.join(str(row.number) for row in self) or 'none'})"

    def knee(self) -> TrialRow:
        """The member from which a gain in one objective costs most in the others: see `choosing.knee`.

        Raises:
            QueryError: the front is empty.
        """
        self._require_members()
        return self[choosing.knee([[self._loss(row, each.name) for each in self.objectives] for row in self])]

    def closest(self, wish: str | Mapping[str, float]) -> TrialRow:
        """The member closest to a wish, such as `"error=0.05, macs=0.5*dense"` or `{"error": 0.05}`.

        Each measurement counts in units of the front's span: see `choosing.closest`.

        Raises:
            QueryError: the front is empty, or a member lacks a measurement that the wish names.
        """
        self._require_members()
        wanted = self._absolute(choosing.parse_wish(wish)) if isinstance(wish, str) else dict(wish)
        losses = {name: self._objective(name).loss(value) for name, value in wanted.items()}
        return self[choosing.closest([{name: self._loss(row, name) for name in wanted} for row in self], losses)]

    def best(self, *bounds: str | Bound) -> TrialRow:
        """The best member within the bounds, such as `"latency <= 3e-3"`, by the first objective that none is about.

        Raises:
            QueryError: no member is within them.
        """
        parsed = [each if isinstance(each, Bound) else Bound.parse(each) for each in bounds]
        names = {bound.name for bound in parsed}
        if missing := sorted(bound.name for bound in parsed if bound.of_dense and bound.name not in self.study.dense):
            raise QueryError(f"A bound relative to the dense model needs its measurement; it has no {missing[0]!r}.")
        by = next((each for each in self.objectives if each.name not in names), self.objectives[0])
        within = [row for row in self if all(bound.holds(row.measurements, self.study.dense) for bound in parsed)]
        if not within:
            raise QueryError(
                f"A budget is one that some member of the front keeps; of {len(self)} none has "
                f"{' and '.join(map(str, parsed)) or 'been found'}. Allow more, or let the search go on."
            )
        return min(within, key=lambda row: self._loss(row, by.name))

    def to_pandas(self) -> pd.DataFrame:
        """A row for each member, by the number of the trial: measurements, penalties, and each layer's choice."""
        return to_pandas(self)

    def _repr_html_(self) -> str:
        names = [each.name for each in self.objectives]
        return to_html(f"front of {self.study.name}", columns_of(self, names), note=f"{len(self)} members")

    def _absolute(self, wish: Mapping[str, tuple[float, bool]]) -> dict[str, float]:
        dense = self.study.dense
        for name, (_, of_dense) in wish.items():
            if of_dense and name not in dense:
                raise QueryError(f"A wish relative to the dense model needs its measurement; it has no {name!r}.")
        return {name: value * dense[name] if of_dense else value for name, (value, of_dense) in wish.items()}

    def _loss(self, row: TrialRow, name: str) -> float:
        if name not in row.measurements:
            raise QueryError(
                f"A member is chosen by what all have measured; trial {row.number} has no {name!r}, only "
                f"{', '.join(sorted(row.measurements))}. Name one of these."
            )
        return self._objective(name).loss(row.measurements[name])

    def _objective(self, name: str) -> Objective:
        """The objective of that name; a measurement that is none is better when smaller."""
        return next((each for each in self.study.objectives if each.name == name), Objective(name))

    def _require_members(self) -> None:
        if not self:
            raise QueryError(
                f"A member is chosen from a front that has some; no trial of study {self.study.name!r} is on this one. "
                "Let the search go on, or ask for less."
            )
