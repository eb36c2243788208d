"""A cheap search, then an expensive confirmation: a study beside, with its own front; the first one stays as it is."""

from __future__ import annotations

import signal
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import rank_search as rs
from rank_search.launch import LaunchSettings
from rank_search.observe import SearchProgress
from rank_search.store import StudyRecord
from tests.store.store_tools import slow_front
from tests.story.forks import Death, Forks
from tests.story.small import Command, Small
from tests.story.stripes import batches, network


def rows(small: Small, name: str) -> list[rs.TrialRow]:
    with rs.Store.open(small.store) as store:
        return sorted(store.trials(store.study(name)), key=lambda row: row.number)


def front(small: Small, name: str = "stripes") -> list[rs.TrialRow]:
    with rs.Store.open(small.store) as store:
        return store.front(store.study(name))


def record(small: Small, name: str = "stripes") -> StudyRecord:
    with rs.Store.open(small.store) as store:
        return store.study(name)


@pytest.fixture
def forks(tmp_path: Path) -> Iterator[Forks]:
    with Forks(tmp_path) as started:
        yield started


def test_the_whole_front_is_confirmed_in_its_order(copied: Small, command: Command) -> None:
    before, members, files = rows(copied, "stripes"), front(copied), set(copied.artifacts.iterdir())
    answer = command.fine("confirm", copied.store, "stripes", "--epochs", "1", "--format", "json")
    after = rows(copied, "stripes@1")
    assert [row.point for row in after] == [row.point for row in members]
    assert [row.sampler["label"] for row in after] == [f"confirms {row.number}" for row in members]
    assert {row.budget for row in after} == {1.0}
    assert any(one.measurements["error"] != two.measurements["error"] for one, two in zip(members, after, strict=True))
    complete = [row for row in after if row.state is rs.State.COMPLETE]
    brute = slow_front([list(row.losses.values()) for row in complete])
    confirmed = front(copied, "stripes@1")
    assert {row.number for row in confirmed} == {complete[place].number for place in brute}
    assert all("test_error" in row.measurements for row in confirmed)
    assert "stripes@1" in answer.err
    for printed, one, two in zip(answer.json, members, after, strict=True):
        assert (printed["trial"], printed["confirms"]) == (two.number, one.number)
        assert printed["before"]["error"] == one.measurements["error"]
        assert printed["after"].items() >= two.measurements.items()
        assert "macs" not in printed["before"]
        assert printed["after"]["macs"] == one.measurements["macs"]
    assert rows(copied, "stripes") == before, "nothing of the study changes"
    assert set(copied.artifacts.iterdir()) == files


def test_every_verb_works_on_it(copied: Small, command: Command, tmp_path: Path) -> None:
    number = front(copied)[-1].number
    command.fine("confirm", copied.store, "stripes", number)
    name = "stripes@5"
    assert record(copied, name).budget == 5.0, "ten times the study's half epoch"
    assert f"confirms {number}" in command.fine("trials", copied.store, name).out
    assert f"confirms {number}" in command.fine("show", copied.store, name, 0).out
    assert [row["trial"] for row in command.fine("front", copied.store, name, "--format", "json").json] == [0]
    command.fine("check", copied.store, name)
    command.fine("status", copied.store, name)
    command.fine("export", copied.store, name, 0, "-o", tmp_path / "exported")
    inputs = torch.randn(3, 1, 8, 8)
    with rs.Store.open(copied.store) as store:
        built = rs.build_model(store, name, 0)
    torch.testing.assert_close(rs.load(tmp_path / "exported")(inputs), built(inputs))
    studies = command.fine("studies", copied.store, "--format", "json").json
    assert [(each["study"], each["on_front"]) for each in studies][-1] == (name, 1)
    with sqlite3.connect(copied.store) as connection:
        found = connection.execute("SELECT DISTINCT trial FROM pareto_front WHERE study = ?", (name,)).fetchall()
    connection.close()
    assert found == [(0,)]


def test_a_confirmed_trial_ends_as_one_of_a_longer_study(copied: Small) -> None:
    """The oracle: the study file with more epochs, whose first trial has the same point and the same rng seed."""
    member = front(copied)[-1]
    found = rs.confirm(copied.store, "stripes", [member.number], epochs=2)
    choices = {
        layer: {"factorization": each.factorization, **each.values} if each.values else "dense"
        for layer, each in member.point.layers.items()
    }
    study = rs.load_study(copied.file)
    kept = study.model_dump(mode="json", by_alias=True)
    kept["study"]["name"] = "by hand"
    kept["training"]["epochs"] = 2
    point: dict[str, Any] = {"name": "it", "layers": choices} | {"entropy": member.point.penalties.get("entropy")}
    kept["search"]["seeds"] = {"dense": False, "allocations": 0, "fractions": [], "weakenings": [], "points": [point]}
    by_hand = rs.Study.model_validate({**kept, "folder": study.folder})
    result = rs.run_study(by_hand, trials=1, store=copied.store)
    (expected,), (confirmation,) = rows(copied, "by hand"), found.trials
    assert expected.point == member.point
    assert expected.measurements == confirmation.after.measurements
    assert expected.rng_seed == confirmation.after.rng_seed
    assert result.study.dense == found.study.dense


def test_it_goes_on_and_repeats_nothing(copied: Small, command: Command) -> None:
    first, second, third = (row.number for row in front(copied)[:3])
    command.fine("confirm", copied.store, "stripes", second, "--epochs", 1)
    began = rows(copied, "stripes@1")
    answer = command.fine("confirm", copied.store, "stripes", third, second, first, second, "--epochs", 1)
    after = rows(copied, "stripes@1")
    assert after[0].started == began[0].started
    assert [row.sampler["confirms"] for row in after] == [second, third, first]
    assert answer.err.splitlines()[-1].startswith("2 added")
    again = command.fine("confirm", copied.store, "stripes", first, second, "--epochs", 1, "--format", "json")
    assert [row["confirms"] for row in again.json] == [first, second]
    assert again.err.splitlines()[-1].startswith("0 added")
    assert rows(copied, "stripes@1") == after


class EnoughError(Exception):
    """Stands for whatever ends a process."""


def test_interrupted_it_goes_on_with_what_was_in_flight(copied: Small) -> None:
    def stop(progress: SearchProgress) -> None:
        if progress.finished == 1:
            raise EnoughError

    with pytest.raises(EnoughError):
        rs.confirm(copied.store, "stripes", epochs=1, report=stop)
    began = rows(copied, "stripes@1")
    assert len(began) == 1
    found = rs.confirm(copied.store, "stripes", epochs=1)
    assert found.added == len(found.trials) - 1
    assert rows(copied, "stripes@1")[0].started == began[0].started


@pytest.mark.faults
def test_killed_again_and_again_it_finds_the_same(copied: Small, forks: Forks, tmp_path: Path) -> None:
    undisturbed = copied.copy_to(tmp_path / "undisturbed")
    rs.confirm(undisturbed.store, "stripes", epochs=1)
    deaths = 0
    while code := forks.run(
        "confirm", copied.store, "stripes", "--epochs", 1, death=Death("launch/driver.py", 8 + 8 * deaths)
    ):
        assert code == -signal.SIGKILL
        deaths += 1
    assert deaths >= 2
    expected, after = (
        [(row.number, row.point_json, row.sampler_json, dict(row.measurements), row.rng_seed) for row in each]
        for each in (rows(undisturbed, "stripes@1"), rows(copied, "stripes@1"))
    )
    assert after == expected
    assert record(copied, "stripes@1").dense == record(undisturbed, "stripes@1").dense


def test_worker_processes_confirm_the_same(copied: Small) -> None:
    numbers = [row.number for row in front(copied)[-2:]]
    here = rs.confirm(copied.store, "stripes", numbers, epochs=1)
    there = rs.confirm(copied.store, "stripes", numbers, epochs=1.5, workers=2)
    assert [each.after.point for each in there.trials] == [each.after.point for each in here.trials]
    assert {each.after.worker for each in here.trials}.isdisjoint(each.after.worker for each in there.trials)


def test_drivers_that_confirm_different_trials_at_once(copied: Small, forks: Forks) -> None:
    numbers = [row.number for row in front(copied)]
    halves = (numbers[::2], numbers[1::2] + numbers[:1])
    runs = [forks.start("confirm", copied.store, "stripes", *half, "--epochs", 1) for half in halves]
    assert [run.wait() for run in runs] == [0, 0]
    after = rows(copied, "stripes@1")
    assert sorted(row.sampler["confirms"] for row in after) == sorted(numbers)
    assert [row.number for row in after] == list(range(len(numbers)))


def test_confirmed_trials_are_judged_by_the_constraints(copied: Small) -> None:
    """A bound that nothing keeps, brought in by hand: what a longer training breaks is infeasible."""
    with sqlite3.connect(copied.store) as connection:
        changed = "json_set({}, '$.{}', {})"
        for column, key, value in (
            ("space", "study.search.constraints", "json_array('bits <= 8.0')"),
            ("fingerprint", '"search.constraints"', "\"['bits <= 8.0']\""),
        ):
            connection.execute(f"UPDATE rs_study SET {column} = {changed.format(column, key, value)}")
    connection.close()
    found = rs.confirm(copied.store, "stripes", [front(copied)[0].number], epochs=1)
    assert [(each.after.state, each.after.reason[:4]) for each in found.trials] == [(rs.State.INFEASIBLE, "bits")]
    assert found.front == ()


def test_the_launch_table_of_a_file_is_taken(copied: Small, command: Command) -> None:
    text = Path(copied.file).read_text(encoding="utf-8")
    slow = copied.folder / "slow.toml"
    slow.write_text(text + "\n[launch]\ntime_limit = 0.000001\n", encoding="utf-8")
    number = front(copied)[-1].number
    arguments = ("confirm", copied.store, "stripes", number, "--epochs", 1, "--study", slow, "--format", "json")
    (row,) = command.fine(*arguments).json
    assert (row["state"], "time_limit" in row["reason"]) == ("failed", True)


# ---- what is refused -------------------------------------------------------------------------------------


def test_what_cannot_be_confirmed_is_refused(copied: Small, command: Command) -> None:
    def refused(*arguments: object) -> str:
        return command.refused("confirm", *arguments)

    infeasible = next(row.number for row in rows(copied, "stripes") if row.state is rs.State.INFEASIBLE)
    message = refused(copied.store, "stripes", infeasible)
    assert f"Trial {infeasible} of study 'stripes' is infeasible" in message
    assert "no trial 99" in refused(copied.store, "stripes", 99)
    assert "no study 'strips'" in refused(copied.store, "strips")
    for epochs in ("0.5", "0.1", "-3", "nan", "inf"):
        assert "trains for 0.5 epochs" in refused(copied.store, "stripes", "--epochs", epochs)
    missing = copied.folder / "missing.sqlite"
    assert "There is no store at" in refused(missing, "stripes")
    assert not missing.exists()
    assert [each["study"] for each in command.fine("studies", copied.store, "--format", "json").json] == ["stripes"]


def test_another_network_than_the_study_had_is_refused(copied: Small, command: Command) -> None:
    task = copied.folder / "stripes.py"
    task.write_text(task.read_text(encoding="utf-8").replace("manual_seed(0)", "manual_seed(5)"), encoding="utf-8")
    message = command.refused("confirm", copied.store, "stripes", "--study", copied.file)
    assert "weights" in message
    assert [each["study"] for each in command.fine("studies", copied.store, "--format", "json").json] == ["stripes"]


def compressed(folder: Path) -> rs.Compressed:
    torch.manual_seed(0)
    model: nn.Module = network().eval()
    return rs.compress(
        model,
        train=batches(80, seed=1),
        selection=batches(80, seed=2),
        test=batches(80, seed=3),
        trials=4,
        store=folder / "mine.sqlite",
        training={"epochs": 0},
    )


def test_a_study_made_in_python_is_confirmed_from_python(tmp_path: Path, command: Command) -> None:
    found = compressed(tmp_path)
    message = command.refused("confirm", found.store, found.name)
    assert "made in Python" in message
    confirmed = rs.confirm(found.store, found.name, task=found.task, launch=LaunchSettings(max_retries=0))
    assert confirmed.study.name == "compressed@1", "at least one epoch"
    assert [each.before.number for each in confirmed.trials] == [row.number for row in found.front]
    with rs.Store.open(found.store) as store:
        model = rs.build_model(store, confirmed.study.name, confirmed.front[0].number, found.task)
    assert model(torch.zeros(1, 1, 8, 8)).shape == (1, 4)


def test_an_empty_front_has_nothing_to_confirm(copied: Small, command: Command) -> None:
    with sqlite3.connect(copied.store) as connection:
        connection.execute("UPDATE rs_trial SET dominated_by = (SELECT min(id) FROM rs_trial)")
    connection.close()
    assert "has no member" in command.refused("confirm", copied.store, "stripes")


def test_files_go_beside_those_of_the_study(copied: Small) -> None:
    elsewhere = copied.folder / "elsewhere"
    study = rs.load_study(copied.file)
    placed = study.model_copy(update={"study": study.study.model_copy(update={"artifacts": str(elsewhere)})})
    other = str(copied.folder / "other.sqlite")
    rs.run_study(placed, trials=3, store=other)
    found = rs.confirm(other, "stripes", epochs=1)
    longer, shorter = sorted(elsewhere.iterdir())
    assert longer.name.startswith("stripes%401-")
    assert shorter.name.startswith("stripes-")
    assert found.study.artifacts == str(longer)
