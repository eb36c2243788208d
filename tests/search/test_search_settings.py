"""The [search] part of a study file: what is accepted, and what complaints say."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from rank_search.point import Objective
from rank_search.search import SearchSettings, Strength
from rank_search.search.samplers import SAMPLERS
from rank_search.search.settings import SeedPointSettings, SeedSettings


def test_defaults() -> None:
    settings = SearchSettings()
    assert settings.sampler == "auto"
    assert settings.seeds == SeedSettings(dense=True, allocations=10, fractions=(), weakenings=(), points=())
    assert settings.penalties == {"orthogonality": Strength(), "entropy": Strength()}


def test_everything_given_survives_json() -> None:
    given = {
        "objectives": ["error", {"name": "accuracy", "direction": "maximize"}, "bits"],
        "reference": {"error": 0.5},
        "constraints": ["macs <= 0.5 * dense", "params < 1234567", "error <= 0.1"],
        "sampler": "nsga2",
        "options": {"population_size": 40, "mutation_prob": 0.1},
        "weakening": [0.1, 1.5],
        "multiplier": 2,
        "round_to": 8,
        "orthogonality": {"low": 0.01, "high": 10},
        "entropy": 0.001,
        "sparsity": {"low": 0.3, "high": 5},
        "seeds": {
            "dense": False,
            "fractions": [0.5],
            "weakenings": [],
            "points": [{"name": "a", "layers": {"*": "dense", "fc": {"factorization": "svd", "rank": 3}}}],
        },
    }
    settings = SearchSettings.model_validate(given)
    assert settings.objectives[1] == Objective("accuracy", "maximize")
    assert settings.constraints[1].limit == 1234567
    assert SearchSettings.model_validate(json.loads(settings.model_dump_json())) == settings


def test_sparsity_is_a_penalty_of_points_where_it_is_on() -> None:
    """Where it is off, points are what they were before there was one."""
    found = [SearchSettings.model_validate({"sparsity": each}).penalties for each in (0.0, "off", 2.0)]
    assert found[:2] == [SearchSettings().penalties] * 2
    assert found[2] == {**found[0], "sparsity": Strength(2.0, 2.0)}


@pytest.mark.parametrize("model", [SearchSettings, SeedSettings, SeedPointSettings])
def test_every_key_is_described(model: type[BaseModel]) -> None:
    assert [name for name, field in model.model_fields.items() if not field.description] == []


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        (
            {"sampler": "tpee"},
            "did you mean 'tpe'\\? There are: auto, bolaco, continuous, gp, nsga2, nsga3, random, tpe",
        ),
        (
            {"sampler": "tpe", "options": {"n_startup": 3}},
            "'tpe' has no option 'n_startup'; did you mean 'n_startup_trials'",
        ),
        ({"options": {"n_startup_trials": 3}}, "'auto' has no option 'n_startup_trials'.*There are: none"),
        ({"seeds": {"allocations": -1}}, "greater than or equal to 0"),
        ({"sampler": "random", "options": {"depth": 3}}, "'random' has no option 'depth'.*There are: none"),
        (
            {"sampler": "nsga2", "options": {"population_size": 1}},
            "'nsga2' refuses its options.*greater than",
        ),
        ({"sampler": "tpe", "options": {"seed": 3}}, "'tpe' has no option 'seed'"),
        ({"objectives": []}, "at least one objective"),
        ({"objectives": ["error", "error"]}, "objectives have different names; found twice: error"),
        ({"objectives": [3]}, "an objective is the name of a measurement.*found 3"),
        ({"objectives": [{"name": "a", "direction": "up"}]}, "an objective is the name of a measurement"),
        ({"reference": {"eror": 1}}, "reference is given for objectives: error, macs; found eror"),
        ({"constraints": ["macs"]}, "A bound is NAME <= NUMBER.*found 'macs'"),
        ({"constraints": [3]}, "a constraint is a text such as .*found 3"),
        ({"weakening": [1, 0.5]}, r"weakenings range from low to high .*found \[1.0, 0.5\]"),
        ({"weakening": [0, 2.5]}, "weakenings range from low to high"),
        ({"multiplier": -1}, "greater than or equal to 0"),
        ({"round_to": 0}, "greater than or equal to 1"),
        ({"entropy": "on"}, "'on' is no strength"),
        ({"entropy": {"low": 1, "high": 0.1}}, "{'low': 1, 'high': 0.1} is no strength; .*0 < low < high"),
        ({"entropy": True}, "True is no strength"),
        ({"orthogonality": -1}, "-1 is no strength"),
        ({"seeds": {"fractions": [0.5, 1.5]}}, "less than or equal to 1"),
        (
            {"seeds": {"points": [{"name": "a"}, {"name": "a"}]}},
            "seed points .* found twice: a",
        ),
        ({"seeds": {"points": [{"name": "a", "layers": {"x": "dens"}}]}}, "a choice for layers is .*found 'dens'"),
        ({"seeds": {"points": [{"name": "a", "layers": {"x": {"rank": 3}}}]}}, "a choice for layers is"),
        ({"smpler": "tpe"}, "Extra inputs are not permitted"),
    ],
)
def test_complaints(given: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint) as caught:
        SearchSettings.model_validate(given)
    assert caught.value.error_count() == 1


@pytest.mark.parametrize("sampler", ["auto", *SAMPLERS])
def test_every_sampler_goes_without_options(sampler: str) -> None:
    assert SearchSettings(sampler=sampler).options == {}


@pytest.mark.parametrize("name", ["accuracy", "val_acc", "mAP", "top-5 acc", "test_f1", "psnr"])
def test_what_is_better_when_higher_needs_its_direction(name: str) -> None:
    for objective in (name, {"name": name}, Objective(name)):
        with pytest.raises(ValidationError, match=f'write {{name = "{name}", direction = "maximize"}}'):
            SearchSettings(objectives=(objective, "macs"))  # type: ignore[arg-type]
    kept = SearchSettings.model_validate({"objectives": [name]}, context={"kept": True})
    assert kept.objectives == (Objective(name),)
    said = SearchSettings.model_validate({"objectives": [{"name": name, "direction": "minimize"}]})
    assert said.objectives == kept.objectives
    with pytest.raises(ValidationError, match=r'"objectives": \[{"name": "'):
        SearchSettings.model_validate({"objectives": [name]}, context={"python": True})


@pytest.mark.parametrize(
    ("constraint", "kept"),
    [
        ("error <= dense + 0.01", "error <= dense + 0.01"),
        ("macs <= dense / 5", "macs <= 0.2 * dense"),
        ("macs<=17%", "macs <= 0.17 * dense"),
        ("error <= 17%", "error <= 0.17"),
        ("bits <= 200k", "bits <= 200000.0"),
        ("macs <= 0.5 * dense", "macs <= 0.5 * dense"),
    ],
)
def test_a_constraint_may_be_relative(constraint: str, kept: str) -> None:
    settings = SearchSettings.model_validate({"constraints": [constraint]})
    assert settings.model_dump(mode="json")["constraints"] == [kept]
    assert SearchSettings.model_validate({"constraints": [kept]}) == settings


@pytest.mark.parametrize(
    ("constraint", "said"),
    [
        ("conv2 = dense", "keeps it dense"),
        ("macs = 5", "on one side of its limit"),
        ("a <= 5m", "is no bound"),
    ],
)
def test_a_constraint_is_a_bound_on_a_measurement(constraint: str, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        SearchSettings.model_validate({"constraints": [constraint]})
