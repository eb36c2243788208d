"""A study of a network that is first trained as factors of full rank: once, for all trials, workers and exports."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import rank_search as rs
from rank_search.errors import LayerError, StudyMismatchError, TaskError, TrialError
from rank_search.launch import this_process
from rank_search.layers import Factorization
from rank_search.priors import SpectraCache, TensorFiles, tensor_files
from rank_search.run import prepare
from rank_search.run import pretrain as room
from rank_search.run.pretrain import full_rank, overparameterized
from rank_search.study import Problem, read_problem
from rank_search.tasks import LossAlone
from rank_search.training import FineTuning
from rank_search.training.penalties import orthogonality
from tests.story.small import Command, Small, write_study
from tests.story.stripes import task


def begun(folder: Path, study: dict[str, Any] | None = None, own: dict[str, Any] | None = None, **more: Any) -> Small:
    settings = {"epochs": 1.0, "learning_rate": 0.01, **(own or {})}
    tables = {"study": {"method": "overparameterized", **(study or {})}, "overparameterized": settings}
    return write_study(folder, **tables, **more)


def problem(small: Small) -> Problem:
    return read_problem(rs.load_study(small.file))


class Counting:
    """The loss of the task, which knows how often it was asked for."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        self.calls += 1
        return F.cross_entropy(outputs, targets)


def counted() -> tuple[rs.Supervised, Counting]:
    made, loss = task(), Counting()
    return rs.Supervised(
        made.network, made.training_batches, made.selection_batches, made.test_batches, loss_function=loss
    ), loss


def same(one: nn.Module, other: nn.Module) -> bool:
    theirs = other.state_dict()
    return all(torch.equal(tensor, theirs[name]) for name, tensor in one.state_dict().items())


@pytest.fixture
def no_training(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    def forbid() -> None:
        def never(*arguments: object) -> None:
            raise AssertionError("the over-parameterized network is trained once")

        monkeypatch.setattr(room, "fine_tune", never)

    return forbid


@pytest.mark.parametrize("factorization", ["svd", "svd-spatial", "tucker2"])
def test_untrained_it_is_the_users_network(tmp_path: Path, factorization: str) -> None:
    layers = {"factorizations": [factorization, "svd"]}
    small = begun(tmp_path, own={"epochs": 0, "factorization": factorization}, layers=layers)
    prepared = prepare(rs.load_study(small.file))
    point = full_rank(prepared.problem)
    assert {name: choice.factorization for name, choice in point.layers.items()} == {
        "second": factorization,
        "last": "svd",
    }
    inputs = torch.randn(5, 1, 8, 8)
    torch.testing.assert_close(prepared.problem.model(inputs), prepared.problem.original(inputs), rtol=1e-4, atol=1e-4)
    assert type(prepared.problem.model.get_submodule("second")) is nn.Conv2d


def test_what_has_no_full_rank_is_refused(tmp_path: Path, command: Command) -> None:
    small = begun(tmp_path, layers={"factorizations": ["cp", "svd"]})
    message = command.refused("run", small.file)
    assert "layer 'second' as CP with rank 29" in message
    named = begun(tmp_path, own={"factorization": "svd"}, layers={"factorizations": ["cp", "svd"]})
    assert full_rank(problem(named)).layers["second"].values == {"rank": 12}
    unknown = begun(tmp_path, own={"factorization": "tucker3"})
    assert "[overparameterized] factorization is 'tucker3'" in command.refused("space", unknown.file)
    with pytest.raises(LayerError):
        full_rank(problem(unknown))


def test_forms_that_lose_their_rank_in_training_are_left_out(tmp_path: Path) -> None:
    layers = {"factorizations": ["soft-threshold", "soft-rank", "svd"]}
    point = full_rank(problem(begun(tmp_path, layers=layers)))
    assert {choice.factorization for choice in point.layers.values()} == {"svd"}
    named = problem(begun(tmp_path, own={"factorization": "soft-rank"}, layers=layers))
    with pytest.raises(LayerError, match="training lowers that of 'soft-rank'"):
        full_rank(named)


def test_it_is_distilled_from_the_users_network_if_training_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[FineTuning] = []
    monkeypatch.setattr(room, "fine_tune", lambda task, model, effort, *rest: seen.append(effort))
    for share in (0.0, 0.5):
        begun_problem = problem(begun(tmp_path, training={"distillation": share}))
        overparameterized(begun_problem)
        assert seen.pop().teacher is (begun_problem.original if share else None)
    assert not begun_problem.original.training


def test_the_penalty_keeps_the_frames_orthogonal(tmp_path: Path) -> None:
    """Without it training leads them astray, from orthonormal frames, which the fit begins with."""

    def deviation(strength: float) -> float:
        layers = {"factorizations": ["tucker2", "svd"]}
        small = begun(tmp_path, own={"epochs": 3, "orthogonality": strength}, layers=layers)
        model = overparameterized(problem(small))
        assert [type(each).__name__ for each in model.modules() if isinstance(each, Factorization)] == [
            "Tucker2",
            "ChannelSVD",
        ]
        return float(orthogonality(model, "so").detach())

    astray, a_little, kept = deviation(0.0), deviation(0.1), deviation(10.0)
    assert astray > 4 * kept
    assert astray > a_little > kept


def test_it_is_trained_once(tmp_path: Path) -> None:
    small = begun(tmp_path, priors={"calibration": 0})  # which would ask for losses, too
    study = rs.load_study(small.file)
    made, loss = counted()
    first = prepare(study, made)
    batches = len(made.training_batches)  # type: ignore[arg-type]
    assert loss.calls == batches + 1, "one epoch, and a rehearsal"
    second = prepare(study, made)
    assert loss.calls == batches + 1
    assert same(first.problem.model, second.problem.model)
    assert not same(first.problem.model, first.problem.original)
    assert same(first.problem.original, task().network)
    (file,) = (small.folder / "spectra").glob("overparameterized-*.safetensors")
    file.unlink()
    third = prepare(study, made)
    assert loss.calls == 2 * (batches + 1)
    assert same(first.problem.model, third.problem.model), "trained again, it is the same"


@pytest.mark.parametrize(
    ("tables", "shared"),
    [
        ({"training": {"epochs": 5}}, True),
        ({"study": {"name": "another"}}, True),
        ({"study": {"seed": 1}}, False),
        ({"training": {"optimizer": "sgd"}}, False),
        ({"own": {"orthogonality": 2.0}}, False),
        ({"own": {"ordered": 0.0}}, True),
        ({"own": {"ordered": 0.5}}, False),
        ({"layers": {"exclude": ["first", "last"]}}, False),
    ],
)
def test_studies_share_it_exactly_if_it_is_made_from_the_same(
    tmp_path: Path, tables: dict[str, Any], shared: bool
) -> None:
    for changed in ({}, tables):
        prepare(rs.load_study(begun(tmp_path, **changed).file))
    assert len(list((tmp_path / "spectra").glob("overparameterized-*"))) == (1 if shared else 2)


def test_other_code_or_other_software_trains_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = begun(tmp_path)
    prepare(rs.load_study(small.file))
    code = small.folder / "stripes.py"
    code.write_text(code.read_text(encoding="utf-8") + "# another loss\n", encoding="utf-8")
    prepare(rs.load_study(small.file))
    assert len(list((tmp_path / "spectra").glob("overparameterized-*"))) == 2
    monkeypatch.setattr(room, "software", lambda: "rank-search 0, torch 0")
    prepare(rs.load_study(small.file))
    assert len(list((tmp_path / "spectra").glob("overparameterized-*"))) == 3


def test_a_study_of_it_goes_on_and_exports(tmp_path: Path, no_training: Callable[[], None], command: Command) -> None:
    small = begun(tmp_path / "s")
    began = rs.run_study(rs.load_study(small.file), trials=5)
    no_training()
    result = rs.run_study(rs.load_study(small.file))
    assert (began.added, result.added, result.complete) == (5, 4, True)
    begin, dense = prepare(rs.load_study(small.file)).problem, result.study.dense
    with rs.Store.open(small.store) as store:
        rows = {row.sampler["label"]: row for row in store.trials(store.study("stripes"))}
    assert dense["error"] == error(begin.original), "what is compared with is the user's own network"
    command.fine("check", small.store, "stripes")
    weights = begin.model.get_submodule("second").get_parameter("weight")
    prior = next(each for each in result.study.priors if (each.layer, each.factorization) == ("second", "svd"))
    spectrum = SpectraCache(None).bases("second", weights.detach()).spectrum(lambda weight: weight.flatten(1))
    assert prior.energy_kept == pytest.approx(float((spectrum.values[: prior.rank] ** 2).sum() / spectrum.energy))
    assert rows["fraction 0.5"].state is rs.State.COMPLETE
    for file in (small.folder / "spectra").iterdir():
        file.unlink()
    member = result.front[0].number
    command.fine("export", small.store, "stripes", member, "-o", tmp_path / "exported")
    inputs = torch.randn(3, 1, 8, 8)
    with rs.Store.open(small.store) as store:
        built = rs.build_model(store, "stripes", member)
    torch.testing.assert_close(rs.load(tmp_path / "exported")(inputs), built(inputs))


def error(model: nn.Module) -> float:
    selection = list(task().selection())
    with torch.no_grad():
        wrong = torch.cat([model(inputs).argmax(-1) != targets for inputs, targets in selection])
    return float(wrong.double().mean())


def test_the_dense_point_stands_for_the_network_that_trials_begin_from(tmp_path: Path) -> None:
    """With all layers free in MACs, so that the dense point is feasible."""
    small = begun(tmp_path, own={"learning_rate": 0.05}, search={"constraints": []})
    study = rs.load_study(small.file)
    result = rs.run_study(study, trials=1)
    with rs.Store.open(small.store) as store:
        (row,) = store.trials(store.study("stripes"))
    begin = prepare(study).problem
    assert row.sampler["label"] == "dense"
    assert row.measurements["error"] == error(begin.model)
    assert result.study.dense["error"] == error(begin.original)
    assert row.measurements["macs"] == result.study.dense["macs"]


def test_worker_processes_begin_from_the_same(tmp_path: Path) -> None:
    measured = []
    for workers in (1, 2):
        small = begun(tmp_path / str(workers), search={"constraints": []})
        rs.run_study(rs.load_study(small.file), workers=workers, trials=4)
        with rs.Store.open(small.store) as store:
            rows = store.trials(store.study("stripes"))
        measured.append({row.number: (row.point.key, dict(row.measurements)) for row in rows})
    assert measured[0] == measured[1]


def test_worker_processes_read_the_file(tmp_path: Path) -> None:
    """Other weights are put into it by hand: the dense trial, measured by a worker, has their error."""
    small = begun(tmp_path, search={"constraints": []})
    study = rs.load_study(small.file)
    model = prepare(study).problem.model
    with torch.no_grad():
        model.get_submodule("last").get_parameter("weight").neg_()
    (file,) = (tmp_path / "spectra").glob("overparameterized-*.safetensors")
    TensorFiles(tmp_path / "spectra").save(file.stem, model.state_dict())
    rs.run_study(study, workers=2, trials=1)
    with rs.Store.open(small.store) as store:
        (row,) = store.trials(store.study("stripes"))
    assert row.measurements["error"] == error(model) > 0.5
    assert row.worker != this_process()


def test_a_study_goes_on_only_with_the_same_settings(tmp_path: Path) -> None:
    rs.run_study(rs.load_study(begun(tmp_path).file), trials=1)
    for changed, key in (
        ({"own": {"epochs": 0.5}}, "overparameterized.epochs is 1.0 in the store, 0.5 now"),
        ({"study": {"method": "factorized"}}, "study.method is overparameterized in the store, nothing now"),
    ):
        with pytest.raises(StudyMismatchError, match=key):
            rs.run_study(rs.load_study(begun(tmp_path, **changed).file), trials=2)


def test_a_study_without_it_is_what_it_was_before_there_was_such_a_thing(small: Small) -> None:
    with rs.Store.open(small.store) as store:
        study = store.study("stripes")
    assert not [key for key in study.fingerprint if "overparameterized" in key or key == "study.method"]
    assert "overparameterized" not in study.space["study"]


def test_a_training_that_diverges_is_said(tmp_path: Path) -> None:
    small = begun(tmp_path, own={"learning_rate": 1e30, "epochs": 2}, training={"optimizer": "sgd"})
    with pytest.raises(TrialError, match="Lower \\[overparameterized\\] learning_rate"):
        prepare(rs.load_study(small.file))


def test_a_task_that_cannot_draw_targets_is_refused_before_it_is_trained(
    tmp_path: Path, no_training: Callable[[], None]
) -> None:
    no_training()
    made = task()
    silent = LossAlone(made.network, made.example(), made.training_batches, made.loss)
    small = begun(tmp_path, priors={"metric": "loss", "targets": "sampled"})
    with pytest.raises(TaskError, match="LossAlone does not say what its models' predictions are drawn from"):
        prepare(rs.load_study(small.file), silent)


def test_it_is_confirmed_from_the_same_network(tmp_path: Path, no_training: Callable[[], None]) -> None:
    small = begun(tmp_path)
    result = rs.run_study(rs.load_study(small.file), trials=4)
    no_training()
    found = rs.confirm(small.store, "stripes", [result.front[-1].number], epochs=1)
    assert found.added == 1


def test_compress_takes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    made = task()
    found = rs.compress(
        made.network,
        train=made.training_batches,
        selection=made.selection_batches,
        test=made.test_batches,
        trials=3,
        store=tmp_path / "mine.sqlite",
        method="overparameterized",
        overparameterized={"epochs": 0.5},
        training={"epochs": 0},
    )
    assert found.front
    assert list((tmp_path / "cache").rglob("overparameterized-*.safetensors"))


# ---- killed on the way -----------------------------------------------------------------------------------


class Killed(BaseException):
    """No error of the training: nobody but the test catches it."""


def mortal(steps: int) -> rs.Supervised:
    """The task, whose process is as good as dead after so many steps in which something is trained, rehearsals too."""
    made, left = task(), iter(range(steps))

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        if outputs.requires_grad and next(left, None) is None:
            raise Killed
        return F.cross_entropy(outputs, targets)

    return replace(made, loss_function=loss)


def on_the_way(folder: Path) -> list[Path]:
    return list((folder / "spectra").glob("recovery-*"))


@pytest.mark.faults
def test_killed_twice_it_is_the_same_network(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    own = {"epochs": 2.0, "ordered": 0.5}
    whole = prepare(rs.load_study(begun(tmp_path / "calm", own=own, launch={"checkpoint_every": 0}).file))
    assert on_the_way(tmp_path / "calm") == []
    study = rs.load_study(begun(tmp_path, own=own, launch={"checkpoint_every": 1e-9}).file)
    with caplog.at_level("INFO", "rank_search"):
        for steps in (6, 8):  # one of them is the rehearsal
            with pytest.raises(Killed):
                prepare(study, mortal(steps))
            assert len(on_the_way(tmp_path)) == 1
        survived = prepare(study)
    assert same(survived.problem.model, whole.problem.model)
    assert on_the_way(tmp_path) == []
    began = [each.getMessage() for each in caplog.records if "over-parameterized network for" in each.getMessage()]
    assert [said.rpartition(" ")[2] for said in began] == ["0.", "0.625.", "1.5."]


def test_a_folder_that_is_full_for_a_moment_costs_one_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write, full = tensor_files.replace_whole, [True]

    def replace_whole(path: Path, content: bytes, **options: Any) -> None:
        if path.name.startswith("recovery-") and full:
            full.pop()
            raise OSError(28, "No space left on device")
        write(path, content, **options)

    monkeypatch.setattr(tensor_files, "replace_whole", replace_whole)
    study = rs.load_study(begun(tmp_path, launch={"checkpoint_every": 1e-9}).file)
    with pytest.raises(Killed):
        prepare(study, mortal(6))
    assert "No space left" in caplog.text
    assert len(on_the_way(tmp_path)) == 1
    full.append(True)
    prepare(study)
    assert len(list((tmp_path / "spectra").glob("overparameterized-*"))) == 1


def test_it_starts_over_with_other_code_and_after_damage(tmp_path: Path) -> None:
    study = rs.load_study(begun(tmp_path, priors={"calibration": 0}, launch={"checkpoint_every": 1e-9}).file)

    def left() -> Path:
        with pytest.raises(Killed):
            prepare(study, mortal(6))
        (file,) = on_the_way(tmp_path)
        return file

    def taken() -> int:
        made, loss = counted()
        prepare(study, made)
        (file,) = (tmp_path / "spectra").glob("overparameterized-*")
        file.unlink()
        return loss.calls - 1

    left()
    assert taken() == 3, "the last three of eight batches"
    left().write_bytes(b"half of it")
    assert taken() == 8
    left()
    code = tmp_path / "stripes.py"
    code.write_text(code.read_text(encoding="utf-8") + "# changed\n", encoding="utf-8")
    assert taken() == 8


def test_a_training_that_diverges_leaves_nothing(tmp_path: Path) -> None:
    launch = {"checkpoint_every": 1e-9}
    small = begun(tmp_path, own={"learning_rate": 1e30}, training={"optimizer": "sgd"}, launch=launch)
    with pytest.raises(TrialError, match="diverged"):
        prepare(rs.load_study(small.file))
    assert on_the_way(tmp_path) == []
