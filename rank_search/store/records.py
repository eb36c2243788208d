"""What the store takes and gives: frozen records, none of which knows that there is a database."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from rank_search.basics import COSTS, is_higher_better
from rank_search.point import Artifact, Objective, Point, State
from rank_search.store.precision import error_bar

if TYPE_CHECKING:
    import pandas as pd

NEVER: Final = datetime.fromtimestamp(0, UTC)

EXAMPLES: Final = "selection_examples"
"""Where the space keeps how many examples the selection data has."""

MEANINGS: Final = "meanings"
"""Where the space keeps what the task's measurements are, in words."""

SIGNAL: Final = "signal"
"""Where the space keeps, of a study whose model stands for one signal, its samples and what others reach on it."""

LAYER_COSTS: Final = "layer_costs"
"""Where the space keeps what each layer costs as it is, and a trial's sampler what its choices cost."""

TOLERANCE: Final = 1 / 3
"""How far from the dense model a member is looked at where one is chosen: of the way to the reference point."""


@dataclass(frozen=True)
class PriorRow:
    """What the weights say about one axis of one layer; `None` where a number does not apply."""

    layer: str
    factorization: str
    axis: str
    rank: int
    full_rank: int
    noise_variance: float | None = None
    energy_kept: float | None = None
    break_even: float | None = None


@dataclass(frozen=True)
class ChangeRow:
    """A part of what a study is made from that has changed, and was accepted; trials up to that id know it as before.

    `before` is empty for a part that the study had not noted.
    """

    part: str
    before: str
    after: str
    accepted: datetime
    last_trial_id: int


@dataclass(frozen=True)
class StudyRecord:
    """One study: what it was made from, what it searches, and what it is measured against.

    Attributes:
        fingerprint: each part that the study was made from, and its digest.
        space: the search space and all else that the search has to find again.
        reference_point: the worst corner of the box that the hypervolume is a share of, in losses.
        ideal: its best corner, in losses.
        dense: measurements of the untouched model.
        budget: the full budget, in epochs.
        artifacts: where the files of its trials lie; empty: in the default place, see `artifact_folder`.
        target: how many trials the drivers are to reach, as far as one has said so: see `Store.set_target`.
        uid: the study's own name among all studies of all stores, and the name of the folder of its files; empty in
            one that is older: those files are in a folder of the study's name.
        changes: what the study is made from has changed so often, and was accepted.
        id: 0 until the study has been joined to a store.
    """

    name: str
    fingerprint: Mapping[str, str]
    space: Mapping[str, Any]
    objectives: tuple[Objective, ...]
    reference_point: Mapping[str, float]
    ideal: Mapping[str, float]
    dense: Mapping[str, float]
    budget: float
    priors: tuple[PriorRow, ...] = ()
    artifacts: str = ""
    target: int | None = None
    uid: str = ""
    changes: tuple[ChangeRow, ...] = ()
    id: int = 0
    created: datetime = NEVER

    @property
    def folder(self) -> str:
        """The name of the folder of its files."""
        return self.uid or self.name

    @property
    def objective_names(self) -> tuple[str, ...]:
        return tuple(objective.name for objective in self.objectives)

    def objective(self, name: str) -> Objective:
        """The objective of that name; of its measurement on the test data; or what the name says by itself.

        A measurement that is no objective is better when smaller, unless its name is known to be better when higher.
        """
        known = {each.name: each.direction for each in self.objectives}
        direction = known.get(name) or known.get(name.removeprefix("test_"))
        return Objective(name, direction or ("maximize" if is_higher_better(name) else "minimize"))

    def without_front(self, states: Mapping[State, int]) -> str:
        """Why nothing is on the front of all its trials, which ended in these states (number by state).

        Only for a study that has no front: complete trials below the full budget are `stopped`, or of another budget.
        """
        ended = ", ".join(f"{count} {state}" for state, count in states.items() if count)
        if not ended:
            return f"Study {self.name!r} has no finished trial yet, and so no front."
        return (
            f"No trial of study {self.name!r} is complete, so it has no front ({ended}). "
            "`rank-search trials` says why each ended."
        )

    def to_pandas(self) -> pd.DataFrame:
        """The rank priors: a row for each axis of each layer."""
        import pandas as pd

        return pd.DataFrame([asdict(prior) for prior in self.priors], columns=[each.name for each in fields(PriorRow)])

    def _repr_html_(self) -> str:
        from rank_search.store.html import study_html

        return study_html(self)

    @property
    def examples(self) -> int | None:
        """How many examples the selection data has, if the study knows."""
        found = self.space.get(EXAMPLES)
        return found if isinstance(found, int) and found > 0 else None

    @property
    def meanings(self) -> Mapping[str, str]:
        """What measurements are, in words, by name, where the task says more than the name."""
        found: Mapping[str, str] = self.space.get(MEANINGS, {})
        return found

    @property
    def objectives_in_words(self) -> Mapping[str, str]:
        """The same of the objectives alone."""
        return {name: self.meanings[name] for name in self.objective_names if name in self.meanings}

    @property
    def signal_in_words(self) -> str:
        """What the measurements are of, where the model stands for one signal; empty where it answers on data."""
        found = self.space.get(SIGNAL)
        if not found:
            return ""
        return (
            f"The model stands for a signal of {found['samples']:,} samples: all of it is trained on, selected by "
            "and measured here, and there is no other data to be tested on."
        )

    @property
    def reference_curves(self) -> Mapping[str, Sequence[Mapping[str, float]]]:
        """Measurements that others reach on the same signal, by name."""
        found: Mapping[str, Sequence[Mapping[str, float]]] = (self.space.get(SIGNAL) or {}).get("curves", {})
        return found

    @property
    def layer_costs(self) -> Mapping[str, Mapping[str, int]]:
        """Parameters and MACs of each layer as it is, by name; empty in a study from before this was kept."""
        found: Mapping[str, Mapping[str, int]] = self.space.get(LAYER_COSTS, {})
        return found

    def error_bar(self, name: str, value: float) -> float | None:
        """Half of the 95 % interval of a measurement on the selection data; None if it has none: see `error_bar`."""
        return error_bar(name, value, self.examples)

    def error_bars(self, measurements: Mapping[str, float]) -> dict[str, float]:
        """Those of all measurements that have one."""
        found = {name: self.error_bar(name, value) for name, value in measurements.items()}
        return {name: bar for name, bar in found.items() if bar is not None}

    def tolerated(self, tolerance: float) -> dict[str, float]:
        """The worst loss worth looking at, by objective: that share of the way from the dense model's to the reference.

        Of costs, which have no worse than the dense model's, there is none.
        """
        found = {}
        for each in self.objectives:
            if each.name not in COSTS and each.name in self.dense and each.name in self.reference_point:
                dense, reference = each.loss(self.dense[each.name]), self.reference_point[each.name]
                if reference > dense:
                    found[each.name] = dense + tolerance * (reference - dense)
        return found

    def losses(self, measurements: Mapping[str, float]) -> dict[str, float]:
        """Each objective that was measured, turned so that lower is better."""
        measured = (each for each in self.objectives if each.name in measurements)
        return {each.name: each.loss(measurements[each.name]) for each in measured}


@dataclass(frozen=True)
class StudySummary:
    """A study at a glance: how many trials ended in each state, are in flight, and are on the front."""

    name: str
    created: datetime
    objectives: tuple[Objective, ...]
    trials: Mapping[State, int]
    in_flight: int
    on_front: int


@dataclass(frozen=True)
class Claim:
    """The right of one worker to carry out one trial, up to a budget.

    `attempt` counts from 1 and grows with each take-over, unless the worker before gave the claim up. `heartbeat` is
    when the worker was last known to be alive; it says nothing about which claim this is. `is_taken_over`: it has just
    been handed on, so that somebody may have begun with it before.
    """

    number: int
    point: Point
    worker: str
    attempt: int
    started: datetime
    sampler: Mapping[str, Any] = field(default_factory=dict)
    budget: float = field(kw_only=True)
    heartbeat: datetime = field(default=NEVER, compare=False, kw_only=True)
    is_taken_over: bool = field(default=False, compare=False, kw_only=True)


@dataclass(frozen=True)
class Activity:
    """What goes on in a study.

    Attributes:
        trials: how many there are in each state, cuts of trained models aside.
        claims: the trials in flight, by number.
        finished: how many finished since the moment that was asked about, cuts aside.
        by_worker: the same, by worker.
        last_finished: when the last trial finished; `None` if none has.
        cuts: further results of the trials: their models, cut.
    """

    trials: Mapping[State, int]
    claims: tuple[Claim, ...]
    finished: int
    by_worker: Mapping[str, int]
    last_finished: datetime | None
    cuts: int = 0


@dataclass(frozen=True)
class TrialRow:
    """One finished trial. Its `id` grows in the order of recording, its `number` in the order of asking.

    `measurements` are those at its `budget`, `earlier` those at smaller ones, by budget, of a trial that was promoted.
    `dominated_by` is the number of the first trial that dominated it, `None` while none does. `point` is what was asked
    for, `settled` what the model has become where that is smaller, `model_point` the one that the model is. These and
    `sampler` are decoded when first asked for: a front of hundreds of members is mostly read for its numbers. `cut_of`
    is the number of the trial whose model this one is, cut; `None` of a trial that was trained itself.
    """

    id: int
    number: int
    state: State
    measurements: Mapping[str, float]
    losses: Mapping[str, float]
    budget: float
    rng_seed: int
    worker: str
    attempt: int
    started: datetime
    finished: datetime
    reason: str
    dominated_by: int | None
    artifacts: tuple[Artifact, ...]
    earlier: Mapping[float, Mapping[str, float]]
    point_json: str = field(repr=False)
    sampler_json: str = field(repr=False)
    settled_json: str | None = field(default=None, repr=False)
    cut_of: int | None = None

    def to_pandas(self) -> pd.DataFrame:
        """One row: see `Front.to_pandas`."""
        from rank_search.store.html import to_pandas

        return to_pandas([self])

    def _repr_html_(self) -> str:
        from rank_search.store.html import trial_html

        return trial_html(self)

    @cached_property
    def point(self) -> Point:
        return Point.from_json(json.loads(self.point_json))

    @cached_property
    def settled(self) -> Point | None:
        """What the model has become, where training has emptied components of what was asked for."""
        return Point.from_json(self._became) if self._became else None

    @property
    def model_point(self) -> Point:
        """The point of the model: its files, measurements and costs are of this one."""
        return self.settled or self.point

    @property
    def settled_costs(self) -> Mapping[str, Mapping[str, float]]:
        """Parameters and MACs of each layer that has settled at other values, by name."""
        found: Mapping[str, Mapping[str, float]] = self._became.get(LAYER_COSTS, {})
        return found

    @property
    def chosen(self) -> dict[str, float]:
        """The value of each axis of each layer of the model, by `LAYER.AXIS`."""
        layers = self.model_point.layers.items()
        return {f"{layer}.{axis}": value for layer, choice in layers for axis, value in choice.values.items()}

    @property
    def layer_costs(self) -> Mapping[str, Mapping[str, float]]:
        """Parameters and MACs of each factorized layer, by name; empty in a trial from before this was kept."""
        found: Mapping[str, Mapping[str, float]] = self.sampler.get(LAYER_COSTS, {})
        return {**found, **self.settled_costs} if found else found

    @cached_property
    def _became(self) -> dict[str, Any]:
        became: dict[str, Any] = json.loads(self.settled_json or "{}")
        return became

    @cached_property
    def sampler(self) -> Mapping[str, Any]:
        sampler: dict[str, Any] = json.loads(self.sampler_json)
        return sampler
