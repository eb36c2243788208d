"""The same study file on Ray: what a search finds does not depend on where its trials run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import s3fs
import torch

import rank_search as rs
from rank_search.artifacts import ArtifactStore
from rank_search.point import State
from rank_search.store import Store, TrialRow
from tests.story.small import Command, Small, write_study
from tests.story.stripes import batches, network

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("cluster")]


def trials(small: Small) -> dict[int, TrialRow]:
    with Store.open(small.store) as store:
        return {row.number: row for row in store.trials(store.study("stripes"))}


def found(rows: dict[int, TrialRow]) -> dict[int, tuple[Any, ...]]:
    """What was searched and measured, without when and where."""
    return {
        number: (row.state, row.point_json, row.sampler_json, dict(row.measurements)) for number, row in rows.items()
    }


@pytest.fixture
def untrained(tmp_path: Path) -> Small:
    return write_study(tmp_path / "s", task={"factory": "faulty.py:sound"}, study={"trials": 9})


def test_one_worker_finds_the_same_as_the_driver_alone(untrained: Small, tmp_path: Path, command: Command) -> None:
    alone = untrained.copy_to(tmp_path / "alone")
    command.fine("run", alone.file)
    command.fine("run", untrained.file, "--on", "ray", "--workers", 1)
    assert found(trials(untrained)) == found(trials(alone))
    assert len(trials(untrained)) == 9
    assert command.fine("check", untrained.store, "stripes").code == 0


def test_a_search_goes_on_elsewhere(untrained: Small, command: Command) -> None:
    command.fine("run", untrained.file, "--trials", 5)
    command.fine("run", untrained.file, "--on", "ray", "--workers", 2)
    command.fine("run", untrained.file, "--trials", 12)
    rows = trials(untrained)
    assert sorted(rows) == list(range(12))
    assert len({row.point.key for row in rows.values()}) == 12
    assert len({row.worker for row in rows.values()}) >= 3, "the driver, and two actors"
    command.fine("check", untrained.store, "stripes")


def test_the_study_file_says_the_same(tmp_path: Path, command: Command) -> None:
    launch = {
        "with": "ray",
        "workers": 2,
        "cpus_per_trial": 0.5,
        "memory_per_trial": 1.0,
        "tensorboard": str(tmp_path / "tb"),
    }
    small = write_study(tmp_path / "s", task={"factory": "faulty.py:sound"}, launch=launch, study={"trials": 5})
    command.fine("run", small.file, "--log", tmp_path / "run.jsonl")
    assert sorted(trials(small)) == list(range(5))
    trained = {number for number, row in trials(small).items() if row.state is State.COMPLETE}
    shown = {int(path.name.removeprefix("trial-")) for path in (tmp_path / "tb" / "stripes").iterdir()}
    assert trained <= shown
    assert '"event": "trial finished", "study": "stripes", "trial": 3' in (tmp_path / "run.jsonl").read_text()


def test_rungs_on_ray(tmp_path: Path, command: Command) -> None:
    search = {"rungs": {"first": 0.25, "factor": 2.0}, "constraints": []}
    small = write_study(
        tmp_path, task={"factory": "faulty.py:sound"}, search=search, study={"trials": 12}, training={"epochs": 1.0}
    )
    command.fine("run", small.file, "--on", "ray", "--workers", 2)
    rows = trials(small)
    assert sorted(rows) == list(range(12))
    assert {row.budget for row in rows.values()} == {0.25, 0.5, 1.0}
    assert {row.state for row in rows.values()} == {State.STOPPED, State.COMPLETE}
    with Store.open(small.store) as store:
        study = store.study("stripes")
        assert {row.budget for row in store.front(study)} == {1.0}
        assert store.check(study, ArtifactStore(small.artifacts)) == []
        promoted = store.front(study)[0].number
    assert "at smaller budgets" in command.fine("show", small.store, "stripes", promoted).out
    (shown,) = command.fine("show", small.store, "stripes", promoted, "--format", "json").json
    assert [each["budget"] for each in shown["earlier"]] == [0.25, 0.5]


def test_a_row_of_results_on_ray(tmp_path: Path, command: Command) -> None:
    search = {"row": 2, "constraints": [], "seeds": {"dense": False, "allocations": 0, "fractions": [0.8]}}
    training = {"epochs": 0.5, "ordered": 0.5}
    alone = write_study(tmp_path / "alone", search=search, study={"trials": 2}, training=training)
    command.fine("run", alone.file)
    small = write_study(tmp_path / "ray", search=search, study={"trials": 2}, training=training)
    command.fine("run", small.file, "--on", "ray", "--workers", 1)
    rows = trials(small)
    assert found(rows) == found(trials(alone))
    assert {row.cut_of for row in rows.values()} > {None}
    command.fine("check", small.store, "stripes")


def test_a_folder_that_workers_do_not_see_is_refused(
    untrained: Small, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rank_search.run import ray_cluster as cluster

    real = ArtifactStore.write

    def elsewhere(self: ArtifactStore, kind: str, stem: str, suffix: str, data: bytes) -> Any:
        written = real(self, kind, stem, suffix, data)
        if suffix == cluster.PROBE:
            self.delete(written.location)  # as if the workers had another folder of the same name
        return written

    monkeypatch.setattr(ArtifactStore, "write", elsewhere)
    answer = command("run", untrained.file, "--on", "ray", "--workers", 1)
    assert answer.code == 2
    assert "does not see" in answer.err
    assert "[study] artifacts" in answer.err
    assert "Traceback" not in answer.err
    assert trials(untrained) == {}


def test_a_task_that_cannot_be_sent_is_refused(tmp_path: Path, command: Command) -> None:
    small = write_study(tmp_path, task={"factory": "faulty.py:HoldsALock"})
    said = command.refused("run", small.file, "--on", "ray", "--workers", 1)
    assert "Cannot pickle the task, with its model and data, which workers share" in said
    assert "lock" in said


def test_a_package_that_a_node_lacks_is_named(tmp_path: Path, command: Command) -> None:
    small = write_study(tmp_path / "s", task={"factory": "faulty.py:lacking"})
    said = command("run", small.file, "--on", "ray", "--workers", 1)
    assert said.code == 2
    assert "only_on_the_driver" in said.err
    assert "install what is missing on every node" in said.err
    assert "Traceback" not in said.err


def test_a_cluster_without_room_is_refused(tmp_path: Path, command: Command) -> None:
    small = write_study(tmp_path, task={"factory": "faulty.py:sound"}, launch={"with": "ray", "gpus_per_trial": 4.0})
    said = command.refused("run", small.file)
    assert "4 GPU" in said
    assert "[launch]" in said


def test_a_model_in_memory(tmp_path: Path) -> None:
    torch.manual_seed(0)
    train, selection, test = (batches(80, seed) for seed in (1, 2, 3))
    result = rs.compress(
        network(),
        train=train,
        selection=selection,
        test=test,
        trials=4,
        name="memory",
        store=tmp_path / "memory.sqlite",
        training={"epochs": 0.2},
        launch={"with": "ray", "workers": 1},
    )
    with Store.open(tmp_path / "memory.sqlite") as store:
        rows = store.trials(store.study("memory"))
    assert len(rows) == 4
    assert result.front


def test_artifacts_in_a_bucket_that_all_nodes_see(
    tmp_path: Path, command: Command, cloud: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in cloud.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    s3fs.S3FileSystem().mkdir("searches")
    place = {"trials": 9, "artifacts": "s3://searches/ours"}
    small = write_study(tmp_path, task={"factory": "faulty.py:sound"}, study=place)
    command.fine("run", small.file, "--on", "ray", "--workers", 2)
    assert not small.artifacts.exists()
    command.fine("check", small.store, "stripes")
    with Store.open(small.store) as store:
        study = store.study("stripes")
        assert study.artifacts == f"s3://searches/ours/{study.uid}"
        front = store.front(study)
        kept = {each.location for row in front for each in row.artifacts}
        assert set(ArtifactStore(study.artifacts).names()) == kept
        model = rs.build_model(store, "stripes", front[-1].number)
    assert sum(each.numel() for each in model.parameters()) > 0
    command.fine("export", small.store, "stripes", front[-1].number, "-o", tmp_path / "out")
    s3fs.S3FileSystem.clear_instance_cache()


def test_an_export_takes_the_task_from_where_it_is_now(untrained: Small, tmp_path: Path, command: Command) -> None:
    command.fine("run", untrained.file, "--trials", 4)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for path in [*untrained.folder.glob("*.py"), *untrained.folder.glob("*.toml")]:
        path.rename(elsewhere / path.name)
    with Store.open(untrained.store) as store:
        number = store.front(store.study("stripes"))[0].number
    assert "faulty.py" in command.refused("export", untrained.store, "stripes", number, "-o", tmp_path / "out")
    where = ("--study", elsewhere / "stripes.toml")
    command.fine("export", untrained.store, "stripes", number, "-o", tmp_path / "out", *where)
    assert (tmp_path / "out" / "manifest.json").is_file()


def test_a_network_that_was_trained_over_parameterized_travels_and_is_confirmed_there(
    tmp_path: Path, command: Command
) -> None:
    measured = []
    for on in ("local", "ray"):
        own = {"epochs": 0.5, "learning_rate": 0.01}
        study = {"method": "overparameterized", "trials": 5}
        task = {"factory": "faulty.py:sound"}
        small = write_study(tmp_path / on, study=study, task=task, overparameterized=own)
        command.fine("run", small.file, "--on", on, "--workers", 1)
        rows = trials(small)
        best = max(number for number, row in rows.items() if row.state is State.COMPLETE)
        confirmed = command.fine(
            "confirm", small.store, "stripes", best, "--epochs", 1, "--on", on, "--workers", 1, "--format", "json"
        ).json
        measured.append((found(rows), confirmed))
        command.fine("check", small.store, "stripes@1")
    assert measured[0] == measured[1]
