"""Early stopping on a front: which trials, stopped at a small budget, go on to a larger one."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence, Set
from typing import Final, final

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from rank_search.errors import StudyFileError, StudyMismatchError
from rank_search.pareto import ranks
from rank_search.search.epsilon_net import farthest

MOST_RUNGS: Final = 20

_CLOSE: Final = 1e-9


class RungSettings(BaseModel):
    """Early stopping: trials are measured at rungs, small budgets first; only the best of a rung go on to the next."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    first: float = Field(
        ge=0,
        allow_inf_nan=False,
        description="Epochs up to the first rung; less than [training] epochs. 0: trials are measured as they are "
        "fitted, before any training, and those that go on are trained to the full budget.",
    )
    factor: float = Field(
        default=3.0,
        gt=1,
        allow_inf_nan=False,
        description="Each rung has this many times the epochs of the one before, up to [training] epochs; one in "
        "this many of its trials goes on. Before any training (first = 0) all on the front go on, too.",
    )


def require_rungs_fit(settings: RungSettings | None, full: float) -> None:
    """Refuse rungs that the full budget, in epochs, does not leave room for.

    Raises:
        StudyFileError: the first rung is not below the full budget, or there would be more than 20 rungs.
    """
    if settings is None:
        return
    if settings.first >= full * (1 - _CLOSE):
        raise StudyFileError(
            f"[search.rungs] first = {settings.first:g} is not below the full budget, [training] epochs = {full:g}. "
            "Make it smaller, or leave [search.rungs] out."
        )
    if settings.first == 0:
        return
    count = 1 + math.ceil(math.log(full / settings.first) / math.log(settings.factor))
    if count > MOST_RUNGS:
        raise StudyFileError(
            f"[search.rungs] first = {settings.first:g} and factor = {settings.factor:g} make {count} rungs up to "
            f"[training] epochs = {full:g}; at most {MOST_RUNGS} are allowed. Make first or factor larger."
        )


@final
class Rungs:
    """Asynchronous successive halving for several objectives, by promotion.

    Every trial starts towards the first rung; measured there, it is stopped. Whenever there is room for a job, a
    stopped trial that deserves it goes on to the next rung, from its checkpoint; if none does, a new trial is started.
    This is MO-ASHA (Schmucker, Donini, Zafar, Salinas, Archambeau 2021, "Multi-objective Asynchronous Successive
    Halving"), which is ASHA (Li et al. 2020, Algorithm 2) with a rank for several objectives:

        order of a rung = (level in non-dominated sorting, ε-net within a level, number of the trial)

    Of a rung with n trials, ⌊n / factor⌋ may go on in all, the first in that order that have not gone on yet. An ε-net
    takes the member that is farthest from those of its level that have gone on (see `farthest`). ASHA as published
    lets more than ⌊n / factor⌋ go on where trials that went on early fall behind later; here they are counted.

    A rung before any training (first = 0) has cost no epochs. There every trial goes on that no other matches, however
    many they are, and at least ⌊n / factor⌋ as above.

    Edge cases: a trial that failed or diverged at a rung counts there, as worst, and never goes on; so does one with a
    loss that is not finite, and one that is infeasible. A point that was refused before training is not to be noted:
    it would make room for others, and nothing was measured. The order in which trials are noted does not matter, so
    drivers that know the same decide the same.

    Args:
        settings: None for a single rung, the full budget.
        full: the full budget, in epochs.

    Raises:
        StudyFileError: the settings do not fit the full budget.

    >>> rungs = Rungs(RungSettings(first=1), full=9)
    >>> rungs.budgets
    (1.0, 3.0, 9.0)
    >>> for number, error in enumerate([0.5, 0.3, 0.4]):
    ...     rungs.note(number, 1, [error])
    >>> rungs.promotable()
    (1, 3.0)
    >>> rungs.promotable(busy=[1])
    """

    def __init__(self, settings: RungSettings | None, full: float) -> None:
        require_rungs_fit(settings, full)
        self._factor = settings.factor if settings else math.inf
        self.budgets: tuple[float, ...] = (*_budgets_below(settings, full), float(full))
        self._rungs = [_Rung() for _ in self.budgets]

    def note(self, number: int, budget: float, losses: Sequence[float] | None) -> None:
        """A trial was measured at a rung; without losses it failed or diverged on the way there.

        Noting the same again changes nothing; something else for the same trial and budget takes its place.

        Raises:
            StudyMismatchError: no rung has this budget.
        """
        index = self._index(number, budget)
        known = None if losses is None or not all(map(math.isfinite, losses)) else tuple(map(float, losses))
        self._rungs[index].note(number, known)
        for lower in self._rungs[:index]:
            lower.gone.add(number)

    def promotable(self, busy: Collection[int] = ()) -> tuple[int, float] | None:
        """The stopped trial that goes on next, and to which budget; None if none deserves it now.

        The highest rung that has one comes first. `busy` are trials in flight: those that stopped at a rung count as
        gone on from it.

        Complexity: linear in the trials of a rung, and in the pairs of one that go on and one that stays in a front.
        """
        for rung, own, budget in reversed(
            list(zip(self._rungs[:-1], self.budgets[:-1], self.budgets[1:], strict=True))
        ):
            gone = rung.gone | (rung.numbers & set(busy))
            has_room = len(gone) < math.floor(len(rung.numbers) / self._factor)
            if has_room or (own == 0 and not rung.unbeaten <= gone):
                best = rung.best(gone)
                if best is not None:
                    return best, budget
        return None

    def _index(self, number: int, budget: float) -> int:
        for index, each in enumerate(self.budgets):
            if math.isclose(each, budget, rel_tol=_CLOSE):
                return index
        raise StudyMismatchError(
            f"Trial {number} was measured at {budget:g} epochs, which is no rung; the rungs are "
            f"{', '.join(f'{each:g}' for each in self.budgets)}. Was [search.rungs] or [training] epochs changed?"
        )


def _budgets_below(settings: RungSettings | None, full: float) -> list[float]:
    if settings is None or settings.first == 0:
        return [] if settings is None else [0.0]
    budgets = []
    budget = settings.first
    while budget < full * (1 - _CLOSE):
        budgets.append(budget)
        budget *= settings.factor
    return budgets


@final
class _Rung:
    """The trials that were measured at one budget.

    Attributes:
        gone: numbers of the trials that are known to have gone on from here.
    """

    def __init__(self) -> None:
        self.gone: set[int] = set()
        self._losses: dict[int, tuple[float, ...] | None] = {}
        self._forget_ranks()

    def _forget_ranks(self) -> None:
        self._unranked = {number: losses for number, losses in self._losses.items() if losses is not None}
        self._numbers = np.empty(0, dtype=np.int64)  # one for each row of the table
        self._table: NDArray[np.float64] | None = None  # trials × objectives
        self._ranks = np.empty(0, dtype=np.intp)
        self._unbeaten: dict[int, tuple[float, ...]] = {}
        for number, losses in self._unranked.items():
            self._challenge(number, losses)

    @property
    def numbers(self) -> Set[int]:
        """Of all trials measured here, the failed ones included."""
        return self._losses.keys()

    @property
    def unbeaten(self) -> Set[int]:
        """Trials than which no other is as good everywhere; of equal ones the first."""
        return self._unbeaten.keys()

    def note(self, number: int, losses: tuple[float, ...] | None) -> None:
        known = number in self._losses
        if known and self._losses[number] == losses:
            return
        self._losses[number] = losses
        if known:
            self._forget_ranks()
        elif losses is not None:
            self._unranked[number] = losses
            self._challenge(number, losses)

    def _challenge(self, number: int, losses: tuple[float, ...]) -> None:
        if any(_beats(each, (number, losses)) for each in self._unbeaten.items()):
            return
        stay = {each: its for each, its in self._unbeaten.items() if not _beats((number, losses), (each, its))}
        self._unbeaten = {**stay, number: losses}

    def best(self, gone: Set[int]) -> int | None:
        """The first in the order of this rung that has not gone on; None if there are only failed ones."""
        self._rank()
        went = np.isin(self._numbers, list(gone))
        if self._table is None or went.all():
            return None
        front = np.flatnonzero(self._ranks == self._ranks[~went].min())
        front = front[np.argsort(self._numbers[front])]
        return int(self._numbers[front[farthest(self._table[front].T, went[front])]])

    def _rank(self) -> None:
        """Bring the ranks of all trials with losses up to date."""
        if self._unranked:
            rows = np.array(list(self._unranked.values()), dtype=np.float64)
            self._numbers = np.concatenate([self._numbers, list(self._unranked)])
            self._table = rows if self._table is None else np.concatenate([self._table, rows])
            self._ranks, self._unranked = ranks(self._table), {}


def _beats(one: tuple[int, tuple[float, ...]], other: tuple[int, tuple[float, ...]]) -> bool:
    """Whether a trial is as good as another everywhere; of equal ones the first is."""
    is_as_good = all(a <= b for a, b in zip(one[1], other[1], strict=True))
    return is_as_good and (one[1] != other[1] or one[0] < other[0])
