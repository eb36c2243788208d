"""What a run says and refuses: directions, failures, frozen checkpoints, and what is measured on the test data."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import rank_search as rs
from rank_search.errors import StudyFileError
from rank_search.point import State
from rank_search.run.allocations_alone import allocations_alone
from rank_search.store import Front, artifact_folder
from tests.story.small import Command, Small, write_study
from tests.story.stripes import batches, network

SEARCH: dict[str, Any] = {"objectives": ["error", "macs"], "entropy": 0.0, "orthogonality": 0.0, "constraints": []}
UNTRAINED = {"epochs": 0.0}


def study_of(tmp_path: Path, factory: str, **changes: dict[str, Any]) -> Small:
    return write_study(tmp_path, **{"task": {"factory": f"faulty.py:{factory}"}, "search": SEARCH, **changes})


def rows_of(small: Small) -> list[rs.TrialRow]:
    with rs.Store.open(small.store) as store:
        return sorted(store.trials("stripes"), key=lambda row: row.number)


# ---- directions ----------------------------------------------------------------------------------------------


def test_space_and_run_say_which_way_is_better(tmp_path: Path, command: Command) -> None:
    objectives = ["error", {"name": "macs", "direction": "minimize"}]
    small = study_of(
        tmp_path, "sound", training=UNTRAINED, study={"trials": 2}, search={**SEARCH, "objectives": objectives}
    )
    assert "lower is better" in command.fine("space", small.file).out
    ran = command.fine("run", small.file)
    assert ran.err.startswith("Objectives: error is minimized, macs is minimized.")


def test_an_accuracy_without_a_direction_is_refused_in_a_file_and_in_python(tmp_path: Path, command: Command) -> None:
    small = study_of(tmp_path, "sound", search={**SEARCH, "objectives": ["val_accuracy", "macs"]})
    said = command.refused("run", small.file)
    assert "search.objectives.0" in said
    assert '{name = "val_accuracy", direction = "maximize"}' in said
    train, selection, test = (batches(40, seed) for seed in (1, 2, 3))
    loaders = {"train": train, "selection": selection, "test": test}
    with pytest.raises(StudyFileError) as refused:
        rs.compress(network(), **loaders, metric_name="accuracy", store=tmp_path / "s.sqlite")
    assert 'search={"objectives": [{"name": "accuracy", "direction": "maximize"}, …]}' in str(refused.value)
    assert not (tmp_path / "s.sqlite").exists()


def test_a_study_of_before_goes_on_whatever_its_name_says(tmp_path: Path) -> None:
    parts = [batches(40, seed) for seed in (1, 2, 3)]
    task = rs.Supervised(network(), *parts, metric=_agreement, metric_name="accuracy")
    search = {
        **SEARCH,
        "objectives": [{"name": "accuracy", "direction": "minimize"}, "macs"],
        "seeds": {"allocations": 2},
    }
    study = rs.Study.model_validate(
        {
            "study": {"name": "old", "trials": 2, "store": str(tmp_path / "s.sqlite"), "cache": str(tmp_path)},
            "task": {"factory": "(in memory)"},
            "search": search,
            "training": UNTRAINED,
        }
    )
    rs.run_study(study, task=task)
    with rs.Store.open(tmp_path / "s.sqlite") as store:
        assert rs.build_model(store, "old", 0, task) is not None  # from what the store keeps: a bare name


def test_a_dense_model_at_the_bad_end_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    parts = [batches(40, seed) for seed in (1, 2, 3)]
    task = rs.Supervised(network(), *parts, metric=lambda outputs, targets: 0.93, metric_name="thing")
    study = rs.Study.model_validate(
        {
            "study": {"name": "s", "trials": 1, "store": str(tmp_path / "s.sqlite"), "cache": str(tmp_path)},
            "task": {"factory": "(in memory)"},
            "search": {**SEARCH, "objectives": ["thing", "macs"], "seeds": {"allocations": 1}},
            "training": UNTRAINED,
        }
    )
    with caplog.at_level(logging.WARNING):
        rs.run_study(study, task=task)
    assert '{name = "thing", direction = "maximize"}' in caplog.text


def _agreement(outputs: Tensor, targets: Tensor) -> float:
    return float((outputs.argmax(-1) == targets).double().mean())


# ---- what the search added -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> tuple[rs.Result, list[rs.TrialRow]]:
    search = {**SEARCH, "seeds": {"allocations": 3}, "reference": {"error": 1.0}}
    folder = tmp_path_factory.mktemp("searched")
    small = study_of(folder, "sound", training=UNTRAINED, search=search, study={"trials": 9})
    return rs.run_study(rs.load_study(Path(small.file))), rows_of(small)


def as_measured(row: rs.TrialRow, label: str, error: float, macs: float) -> rs.TrialRow:
    sampler_json = json.dumps({**row.sampler, "label": label})
    return replace(row, losses={"error": error, "macs": macs}, sampler_json=sampler_json)


@pytest.mark.parametrize(
    ("error", "macs", "said"),
    [  # a third of the way from 0 to .9, times 1000 MACs; the allocations alone dominate 75 + 18 of these 300
        (0.06, 500.0, "have 77.5% of the front's hypervolume near the dense model."),
        (0.15, 495.0, "have 99.2% of the front's hypervolume near the dense model. 3 trials would have been enough."),
    ],
)
def test_a_run_says_what_its_allocations_are_worth_alone(
    searched: tuple[rs.Result, list[rs.TrialRow]], error: float, macs: float, said: str
) -> None:
    result, rows = searched
    record = replace(result.study, dense={"error": 0.0, "macs": 1000.0}, reference_point={"error": 0.9, "macs": 1000.0})
    labels = ("dense", 0.0, 1000.0), ("allocation 0.5", 0.15, 500.0), ("allocation 0.8", 0.06, 800.0)
    seeds = [as_measured(row, *each) for row, each in zip(rows, labels, strict=False)]
    found = as_measured(rows[3], "auto", error, macs)
    front = Front((*seeds, found), record, record.objectives)
    assert allocations_alone(record, seeds, front) == f"The 2 allocations that the search began with {said}"
    assert allocations_alone(record, seeds[:2], front) == ""  # one is no sweep
    assert allocations_alone(record, seeds, front[:3]) == ""  # nothing was added


def test_without_allocations_nothing_is_said_of_them(searched: tuple[rs.Result, list[rs.TrialRow]]) -> None:
    result, rows = searched
    assert allocations_alone(result.study, rows, result.front) == result.allocated
    assert allocations_alone(result.study, [], result.front) == ""


# ---- failures ------------------------------------------------------------------------------------------------


def test_a_run_in_which_trial_after_trial_fails_stops(tmp_path: Path, command: Command) -> None:
    small = study_of(tmp_path, "never_trains", study={"trials": 40}, launch={"max_failures": 3})
    answer = command("run", small.file)
    assert answer.code == 1
    assert "3 trials in a row have failed" in answer.err
    assert "no luck with this one" in answer.err
    assert "Traceback" not in answer.err.split("rank-search: ")[-1]
    assert [row.state for row in rows_of(small)][-3:] == [State.FAILED] * 3
    assert len(rows_of(small)) < 10


def test_a_run_in_which_every_trial_fails_is_no_success(tmp_path: Path, command: Command) -> None:
    seeds = {"dense": False, "allocations": 0, "fractions": [0.5, 0.25]}
    small = study_of(tmp_path, "never_trains", study={"trials": 2}, search={**SEARCH, "seeds": seeds})
    answer = command("run", small.file)
    assert answer.code == 1
    assert "Every trial has failed; the last: RuntimeError: no luck with this one" in answer.err


def test_a_frozen_checkpoint_is_trained(tmp_path: Path, command: Command) -> None:
    seeds = {"allocations": 0, "fractions": [0.5]}
    small = study_of(
        tmp_path, "frozen", study={"trials": 2}, search={**SEARCH, "seeds": seeds}, training={"epochs": 2.0}
    )
    answer = command.fine("run", small.file)
    assert "Every parameter of the model is frozen" in answer.err
    dense, cut = rows_of(small)
    assert {dense.state, cut.state} == {State.COMPLETE}
    folder = tmp_path / "untrained"
    still = study_of(folder, "frozen", study={"trials": 2}, search={**SEARCH, "seeds": seeds}, training=UNTRAINED)
    command.fine("run", still.file)
    assert cut.measurements["error"] < rows_of(still)[1].measurements["error"], "its copy has been trained"


# ---- test data -----------------------------------------------------------------------------------------------


def test_the_front_is_tested_when_it_is_asked_for(tmp_path: Path, command: Command) -> None:
    small = study_of(tmp_path, "sound", training=UNTRAINED, study={"test": "asked", "trials": 4})
    answer = command.fine("run", small.file)
    assert "--test measures them" in answer.err
    assert not any("test_error" in row.measurements for row in rows_of(small))
    asked = command.fine("run", small.file, "--test")
    assert "not measured" not in asked.err
    with rs.Store.open(small.store) as store:
        assert all("test_error" in row.measurements for row in store.front("stripes"))
        assert "test_error" in store.study("stripes").dense


def test_what_takes_too_long_is_left_for_later(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rank_search.run.front_on_test._LEAST_SECONDS", 0.0)
    small = write_study(tmp_path, search=SEARCH, training=UNTRAINED, study={"test_share": 0.0, "trials": 6})
    answer = command.fine("run", small.file)
    with rs.Store.open(small.store) as store:
        front = store.front("stripes")
        tested = [row.number for row in front if "test_error" in row.measurements]
    assert len(front) > 2
    assert tested == [front.knee().number]
    assert f"{len(front) - 1} of {len(front)} members of the front are not measured" in answer.err
    command.fine("run", small.file, "--test")
    with rs.Store.open(small.store) as store:
        assert all("test_error" in row.measurements for row in store.front("stripes"))


def test_none_measures_nothing_and_says_nothing(tmp_path: Path, command: Command) -> None:
    small = study_of(tmp_path, "NoTestData", training=UNTRAINED, study={"test": "none", "trials": 3})
    answer = command.fine("run", small.file)
    assert "test data" not in answer.err
    assert not any("test_error" in row.measurements for row in rows_of(small))


def test_a_task_without_test_data_is_allowed_and_said(tmp_path: Path, command: Command) -> None:
    small = study_of(tmp_path, "without_test_data", training=UNTRAINED, study={"trials": 3})
    answer = command.fine("run", small.file)
    assert "The task has no test data" in answer.err
    with rs.Store.open(small.store) as store:
        member = store.front("stripes")[0].number
    command.fine("export", small.store, "stripes", member, "-o", tmp_path / "made")


def test_when_to_test_may_change_from_run_to_run(tmp_path: Path, command: Command) -> None:
    small = study_of(tmp_path, "sound", training=UNTRAINED, study={"trials": 2})
    command.fine("run", small.file)
    again = study_of(tmp_path, "sound", training=UNTRAINED, study={"trials": 3, "test": "none", "test_share": 2.0})
    command.fine("run", again.file)
    assert len(rows_of(small)) == 3


# ---- what is kept for looking at it ----------------------------------------------------------------------------


@pytest.mark.parametrize(("factory", "examples"), [("sound", 80), ("counted", 1234)])
def test_the_study_knows_its_examples_and_what_layers_cost(
    tmp_path: Path, command: Command, factory: str, examples: int
) -> None:
    seeds = {"allocations": 0, "fractions": [0.5]}
    small = study_of(tmp_path, factory, training=UNTRAINED, study={"trials": 2}, search={**SEARCH, "seeds": seeds})
    command.fine("run", small.file)
    with rs.Store.open(small.store) as store:
        study, cut = store.study("stripes"), store.trial("stripes", 1)
        layer = next(name for name, choice in cut.point.layers.items() if not choice.is_dense)
        model = rs.build_model(store, "stripes", 1)
    assert study.examples == examples
    assert cut.layer_costs[layer]["params"] == sum(each.numel() for each in model.get_submodule(layer).parameters())
    assert cut.layer_costs[layer]["macs"] < study.layer_costs[layer]["macs"]
    saved = sum(study.layer_costs[name]["macs"] - cost["macs"] for name, cost in cut.layer_costs.items())
    assert study.dense["macs"] - cut.measurements["macs"] == saved
    shown = command.fine("show", small.store, "stripes", 1, "--format", "json").json[0]
    assert shown["layer_costs"][layer] == {"dense": study.layer_costs[layer], "trial": dict(cut.layer_costs[layer])}
    before, after = study.layer_costs[layer]["macs"], cut.layer_costs[layer]["macs"]
    assert f"{before:,} → {after:,}" in command.fine("show", small.store, "stripes", 1).out
    assert artifact_folder(small.store, study.folder).is_dir()
    assert torch.is_grad_enabled()
