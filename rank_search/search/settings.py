"""The `[search]` part of a study file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Final, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    ValidationInfo,
    field_validator,
    model_validator,
)

from rank_search.basics import is_higher_better, nearest
from rank_search.errors import StudyFileError
from rank_search.point import DENSE, Bound, Chosen, Objective, parse_condition
from rank_search.search.rungs import RungSettings
from rank_search.search.samplers import AUTO, BOLACO, CONTINUOUS, NAMES, check_options
from rank_search.search.strength import Strength

KEPT: Final = "kept"
PYTHON: Final = "python"
"""In the context of a validation: the tables are those of a study in a store, or were written in Python."""


def _objective(value: object, info: ValidationInfo) -> Objective:
    """An objective with its direction; a name that is known to be better when higher has to come with one.

    Not in a study from a store: it goes on as it was begun.
    """
    context = info.context or {}
    found = _read_objective(value)
    said = isinstance(value, Mapping) and "direction" in value
    if found.direction == "minimize" and not said and not context.get(KEPT) and is_higher_better(found.name):
        raise ValueError(_no_direction(found.name, in_python=bool(context.get(PYTHON))))
    return found


def _no_direction(name: str, in_python: bool) -> str:
    line = '{{"name": "{0}", "direction": "{1}"}}' if in_python else '{{name = "{0}", direction = "{1}"}}'
    where = 'search={{"objectives": [{0}, …]}}' if in_python else "{0}"
    return (
        f"{name!r} has no direction, would be minimized, and by its name is better when higher; write "
        f'{where.format(line.format(name, "maximize"))}, or direction "minimize" if lower is better'
    )


def _read_objective(value: object) -> Objective:
    if isinstance(value, Objective):
        return value
    if isinstance(value, str):
        return Objective(value)
    if isinstance(value, Mapping) and set(value) <= {"name", "direction"} and isinstance(value.get("name"), str):
        direction = value.get("direction", "minimize")
        if direction in ("minimize", "maximize"):
            return Objective(value["name"], direction)
    raise ValueError(
        'an objective is the name of a measurement, such as "error", or {name = "accuracy", '
        f'direction = "maximize"}}; found {value!r}'
    )


def _bound(value: object) -> Bound:
    if isinstance(value, Bound):
        return value
    if not isinstance(value, str):
        raise ValueError(f"a constraint is a text such as 'macs <= 0.5 * dense'; found {value!r}")
    found = parse_condition(value)
    if isinstance(found, Chosen):
        raise ValueError(
            f"a constraint is about a measurement; found {value!r}. What a layer may become is said in [layers]: "
            f'exclude = ["{found.layer}"] keeps it dense'
        )
    if found.sign == "=":
        raise ValueError(f"a constraint is kept on one side of its limit (<=, <, >=, >); found {value!r}")
    return found


def _objective_json(objective: Objective) -> str | dict[str, str]:
    if objective.direction == "minimize":
        return objective.name
    return {"name": objective.name, "direction": objective.direction}


def _bound_json(bound: Bound) -> str:
    return bound.written()


def _layer_choice(value: object) -> str | dict[str, Any]:
    if value == DENSE:
        return DENSE
    if isinstance(value, Mapping) and isinstance(value.get("factorization"), str):
        axes = [each for name, each in value.items() if name != "factorization"]
        if all(isinstance(each, int | float) and not isinstance(each, bool) for each in axes):
            return dict(value)
    raise ValueError(
        'a choice for layers is "dense" or {factorization = "svd", rank = 16} with a number for each axis; '
        f"found {value!r}"
    )


ObjectiveSetting = Annotated[Objective, BeforeValidator(_objective), PlainSerializer(_objective_json)]
Constraint = Annotated[Bound, BeforeValidator(_bound), PlainSerializer(_bound_json)]
StrengthSetting = Annotated[Strength, BeforeValidator(Strength.parse), PlainSerializer(Strength.to_json)]
LayerSetting = Annotated[str | dict[str, Any], PlainValidator(_layer_choice)]


class SeedPointSettings(BaseModel):
    """A point of the user's own, asked before the sampler takes over."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1, description="A name for the point; it becomes the label of its trial.")
    layers: dict[str, LayerSetting] = Field(
        default_factory=dict,
        description='Globs on layer names, the first that matches counts: "dense", or a factorization with its '
        'axes, such as {factorization = "svd", rank = 16}. A layer that no glob matches stays dense.',
    )
    orthogonality: float | None = Field(
        default=None, ge=0, description="Strength of the orthogonality penalty; default: as in the ladders."
    )
    entropy: float | None = Field(
        default=None, ge=0, description="Strength of the entropy penalty; default: as in the ladders."
    )
    sparsity: float | None = Field(
        default=None, ge=0, description="Strength of the sparsity penalty; default: as in the ladders."
    )


class SeedSettings(BaseModel):
    """Seed points: asked once each, in this order, before the sampler takes over."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dense: bool = Field(
        default=True,
        description="Start with the dense model; where entropy is searched also with the dense model under the "
        "entropy penalty, which only quantizes.",
    )
    allocations: int = Field(
        default=10,
        ge=0,
        description="How many points along the exact front of the layers' output errors against their counted costs, "
        "all factorizations included: the cost is spread so that the sum of the relative errors is least. Those that "
        "add most to the front come first.",
    )
    continuous: int = Field(
        default=0,
        ge=0,
        description="How many points of continuous ranks: the ranks of all layers at once are moved by the gradient of "
        "the distance between the network's outputs and the dense model's, on calibration batches without labels, at "
        "so many costs spread over the front, and rounded to the options of the layers. For each it takes about as "
        "long as 80 training steps of the dense model.",
    )
    fractions: tuple[Annotated[float, Field(gt=0, le=1)], ...] = Field(
        default=(),
        description="A ladder of uniform cuts: every axis at this fraction of its largest value.",
    )
    weakenings: tuple[Annotated[float, Field(ge=0, le=2)], ...] = Field(
        default=(),
        description="A ladder of uniform weakenings: 0 = full rank, 1 = the prior's rank, 2 = rank one.",
    )
    points: tuple[SeedPointSettings, ...] = Field(default=(), description="Points of your own.")

    @field_validator("points")
    @classmethod
    def _names_differ(cls, points: tuple[SeedPointSettings, ...]) -> tuple[SeedPointSettings, ...]:
        _all_different("seed points", [point.name for point in points])
        return points


class SearchSettings(BaseModel):
    """Where to look: objectives, constraints, coordinates, seed points and sampler."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    objectives: tuple[ObjectiveSetting, ...] = Field(
        default=(Objective("error"), Objective("macs")),
        description='Measurements to optimize: names, or {name = "accuracy", direction = "maximize"}. There are '
        "error, params, macs, bits, nonzeros, latency, latency_ratio, and all that the task measures. A name alone is "
        "minimized; one that is known to be better when higher, such as accuracy, auc, f1, psnr or map, needs its "
        "direction.",
    )
    reference: dict[str, float] = Field(
        default_factory=dict,
        description="The worst value worth having, by objective: hypervolumes are measured from there. Default: "
        "the dense model's cost, and somewhat beyond what the dense model measures.",
    )
    constraints: tuple[Constraint, ...] = Field(
        default=(),
        description='Bounds that a trial must keep, such as "macs <= 0.5 * dense", "error <= dense + 0.01", "macs <= '
        '200k" or "error <= 10%"; a percentage of a cost, such as params, is of the dense model\'s. Those on params '
        "and macs are checked before training, so that a trial that breaks one costs milliseconds.",
    )
    sampler: str = Field(
        default=AUTO,
        description=f"Which sampler asks for points after the seeds: {', '.join(NAMES)}. `auto` learns how much each "
        "layer's error counts and spreads the cost over the layers accordingly; `bolaco` searches, by Optuna's "
        "Gaussian process, which share of its cost each group of layers keeps, within the bound on params or macs; "
        "`continuous` finds as many points of continuous ranks as there are trials (see `seeds`), before the first of "
        "them, in place of allocations, and goes on as `auto` where trials are left; the others are Optuna's.",
    )
    options: dict[str, Any] = Field(
        default_factory=dict,
        description="Options of the sampler: those of Optuna's class, such as {population_size = 40}. Of "
        "`continuous`: `steps` of the optimizer for each cost (40), and `mixtures = true` for the search of "
        "Aghababaei-Harandi and Amini (2024), which gives one point for each factorization and looks at no data.",
    )
    weakening: tuple[float, float] = Field(
        default=(0.0, 2.0),
        description="Range of the global weakening: 0 = full rank, 1 = the prior's rank, 2 = rank one.",
    )
    multiplier: float = Field(
        default=3.0,
        ge=0,
        allow_inf_nan=False,
        description="Each layer's rank is the global weakening's times a factor that is searched from "
        "2^-multiplier to 2^multiplier.",
    )
    round_to: int = Field(default=1, ge=1, description="Whole-numbered axis values are rounded to a multiple of this.")
    orthogonality: StrengthSetting = Field(
        default=Strength(),
        description='Strength of the orthogonality penalty on frames: "off", a number, or a range {low, high} '
        "to search.",
    )
    entropy: StrengthSetting = Field(
        default=Strength(),
        description='Strength of the entropy penalty on quantized factors: "off", a number, or a range '
        "{low, high} to search. It is the loss that one bit for each weight of the dense model is worth, so that its "
        "useful range has the scale of the task's loss: about the least to the largest increase of the loss that a "
        "smaller file is worth. With a cross-entropy, or a squared error as a share of the targets' variance, that is "
        "0.01 to 1; with a squared error in other units, so much times their variance.",
    )
    sparsity: StrengthSetting = Field(
        default=Strength(),
        description='Strength of the sparsity penalty, under which training itself lowers ranks: "off", a number, or a '
        "range {low, high} to search. After each step every component of a factorization (what its ranks count) loses "
        "norm: the average one learning rate × strength, over 1 − momentum with SGD; others in proportion to what they "
        "cost of the parameters or MACs that are asked for; those that reach zero are dropped. Ranks begin to fall "
        "where strength × learning rate × steps, over 1 − momentum with SGD, is about 2, and layers are lost at a few "
        "times that.",
    )
    row: int = Field(
        default=0,
        ge=0,
        description="How many further results each trial has at the full budget: the model that it has trained, cut to "
        "so many costs between its own and a tenth of that, evenly on a logarithmic scale, of the parameters or MACs "
        "that are asked for. Layers that it leaves dense stay so. Each is measured, kept and chosen as a trial is, "
        "under a number of its own, and is not trained further. `trials` counts trainings alone. Of most use with "
        "`[training] ordered`.",
    )
    seeds: SeedSettings = Field(default=SeedSettings(), description="Points to ask before the sampler takes over.")
    rungs: RungSettings | None = Field(
        default=None,
        description="Early stopping: what is measured at small budgets decides which trials go on. Default: off, "
        "every trial is trained to the full budget.",
    )

    @field_validator("objectives")
    @classmethod
    def _objectives_differ(cls, objectives: tuple[Objective, ...]) -> tuple[Objective, ...]:
        if not objectives:
            raise ValueError("a search has at least one objective; found none")
        _all_different("objectives", [objective.name for objective in objectives])
        return objectives

    @field_validator("weakening")
    @classmethod
    def _is_a_range(cls, weakening: tuple[float, float]) -> tuple[float, float]:
        low, high = weakening
        if not 0 <= low <= high <= 2:
            raise ValueError(f"weakenings range from low to high with 0 ≤ low ≤ high ≤ 2; found {list(weakening)}")
        return weakening

    @field_validator("sampler")
    @classmethod
    def _is_known(cls, sampler: str) -> str:
        if sampler not in NAMES:
            raise ValueError(f"there is no sampler {sampler!r}{nearest(sampler, NAMES)}")
        return sampler

    @model_validator(mode="after")
    def _reference_is_about_objectives(self) -> Self:
        names = [objective.name for objective in self.objectives]
        if unknown := sorted(set(self.reference) - set(names)):
            raise ValueError(f"reference is given for objectives: {', '.join(names)}; found {', '.join(unknown)}")
        return self

    @model_validator(mode="after")
    def _options_fit_the_sampler(self) -> Self:
        check_options(self.sampler, self.options)
        return self

    def require_measured(self, measured: Iterable[str]) -> None:
        """Refuse objectives and constraints on what is not measured.

        Raises:
            StudyFileError: one is not among these names.
        """
        known = sorted(measured)
        for key, named in (("objectives", self.objectives), ("constraints", self.constraints)):
            for each in named:
                if each.name not in known:
                    raise StudyFileError(
                        f"[search] {key} names {each.name!r}, which trials do not measure on the selection data"
                        f"{nearest(each.name, known)}"
                    )

    @property
    def asked(self) -> tuple[str, ...]:
        """The measurements that objectives and constraints are about."""
        return tuple([each.name for each in self.objectives] + [each.name for each in self.constraints])

    @property
    def uses_options(self) -> bool:
        """Whether seed points or sampler need to know how far each layer's options are off."""
        return self.sampler in (AUTO, BOLACO, CONTINUOUS) or self.seeds.allocations + self.seeds.continuous > 0

    @property
    def penalties(self) -> dict[str, Strength]:
        """The strengths by the name that they have in a point; sparsity only if it is on: older points have none."""
        strengths = {"orthogonality": self.orthogonality, "entropy": self.entropy}
        return strengths if self.sparsity == Strength() else {**strengths, "sparsity": self.sparsity}


def _all_different(what: str, names: list[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{what} have different names; found twice: {', '.join(twice)}")
