"""What the search looks at where `[data]` says so: sources, labels, and what they rule out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import rank_search as rs
from rank_search.errors import SourceError, StudyFileError, TaskError
from rank_search.layers import factorize, take_inventory
from rank_search.layers.bases import DirectBases
from rank_search.point import Choice, Point
from rank_search.run import prepare
from rank_search.study import Study, load_study, read_problem
from rank_search.study.factory import example_of
from rank_search.tasks import AgreementTask, LayerErrorTask, input_moments, task_measurements
from tests.study.study_modules import normed_network

ONE = torch.zeros(1, 3, 6, 6)
FAST = {"steps": 2, "batch_size": 64, "batches": 2}


def made(source: Any, model: nn.Module | None = None, example: Any = ONE, **keys: Any) -> rs.Task:
    return rs.without_data(model or normed_network(), example, source, settings=keys)


def measured(task: rs.Task, model: nn.Module) -> dict[str, float]:
    return task_measurements(task, model.eval(), task.selection(), "selection data")


class Hidden(rs.Task):
    """A task of a network whose training and selection data nobody may look at."""

    def __init__(self) -> None:
        self.network = normed_network()

    def model(self) -> nn.Module:
        return self.network

    def example(self) -> Tensor:
        return ONE

    def training(self) -> Any:
        raise AssertionError("the training data is looked at")

    selection = training

    def test(self) -> list[tuple[Tensor, Tensor]]:
        return [(torch.ones(4, 3, 6, 6), torch.zeros(4).long())]

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        raise AssertionError("the loss is asked for")

    def evaluate(self, model: nn.Module, batches: Any) -> dict[str, float]:
        (batch,) = batches
        return {"error": float((model(batch[0]).argmax(1) != batch[1]).double().mean())}


@pytest.mark.parametrize("source", ["synthetic", "gaussian"])
def test_inputs_are_made_when_they_are_asked_for_and_no_batch_twice(source: str) -> None:
    task = made(source, **FAST)
    assert isinstance(task, AgreementTask)
    training, selection = list(task.training()), list(task.selection())
    assert [tuple(each.shape) for each in (*training, *selection)] == [(64, 3, 6, 6)] * 3
    assert len({float(each.sum()) for each in (*training, *selection)}) == 3
    assert all(torch.equal(one, other) for one, other in zip(training, task.training(), strict=True))
    assert task.keeps_statistics()
    assert task.test() is None


def test_a_language_model_writes_its_own_sequences() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 9)).eval()
    task = made("synthetic", model, torch.zeros(1, 5, dtype=torch.long), sequences=3, length=7)
    (batch,) = task.selection()
    assert batch.shape == (3, 7)
    assert set(measured(task, model)) == {"kl", "disagreement", "output_error"}


WRITER = nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 9)).eval()


@pytest.mark.parametrize(
    ("model", "example"),
    [(normed_network(), ONE), (WRITER, torch.zeros(1, 5, dtype=torch.long))],
    ids=["images", "text"],
)
def test_while_inputs_are_made_the_layers_are_not_watched(model: nn.Module, example: Tensor) -> None:
    """The first to ask for them may be a calibration pass: its moments are of the inputs alone."""
    task = made("synthetic", model, example, **FAST, sequences=16, length=12)
    layers = take_inventory(model, example).layers
    first, again = (input_moments(task, model, layers, 2) for _ in range(2))
    assert first.keys() == again.keys() == layers.keys()
    assert all(torch.equal(first[name], again[name]) for name in layers)


def test_synthetic_inputs_of_a_network_without_batch_norms_are_refused_before_anything_is_computed() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(108, 4))
    model.register_forward_pre_hook(lambda *_: pytest.fail("it has run"))
    with pytest.raises(SourceError, match=r'no batch norms.*source = "none"'):
        made("synthetic", model)


def test_the_weights_alone() -> None:
    """Σ ‖W − Ŵ‖²/‖W‖² over the layers."""
    task = made("none")
    assert isinstance(task, LayerErrorTask)
    model = task.model()
    assert measured(task, model) == {"layer_error": 0.0}
    assert list(task.training()) == []
    study = Study.model_validate(tables("none"))
    problem = read_problem(study, task)
    layers, plugins = problem.inventory.layers, problem.plugins
    point = Point({"second": Choice("svd", {"rank": 2}), "last": Choice("svd", {"rank": 1})})
    bases = {name: DirectBases(model.get_submodule(name).weight.detach()) for name in point.layers}
    small = factorize(model, point, layers, plugins, bases.__getitem__)
    expected = 0.0
    for name in point.layers:
        weight = model.get_submodule(name).weight.detach()
        expected += float((weight - small.get_submodule(name).dense().detach()).square().sum() / weight.square().sum())
    assert measured(problem.task, small)["layer_error"] == pytest.approx(expected, rel=1e-5)
    assert 0 < expected < 2


def test_analytic_moments_are_what_fits_and_errors_look_at() -> None:
    assert not prepare(Study.model_validate(tables("none")), Hidden()).moments.inputs
    prepared = prepare(Study.model_validate(tables("analytic")), Hidden())
    assert prepared.batches == 0
    assert set(prepared.moments.inputs) == {"second", "last"}  # what comes behind a batch norm
    assert prepared.bases["second"].moment is not None


def test_analytic_moments_of_a_network_without_batch_norms_are_none(caplog: pytest.LogCaptureFixture) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(108, 4))
    task = made("analytic", model)
    assert isinstance(task, LayerErrorTask)
    assert not task.known_moments
    assert 'the same as "none" here' in caplog.text


@pytest.mark.parametrize("source", ["synthetic", "gaussian", "analytic", "none"])
def test_of_a_task_nothing_is_looked_at_but_the_test_data(tmp_path: Path, source: str) -> None:
    study = Study.model_validate({**tables(source), "folder": tmp_path})
    result = rs.run_study(study, task=Hidden(), store=str(tmp_path / "hidden.sqlite"), trials=3)
    assert len(result.front) > 1
    name = study.search.objectives[0].name
    for row in result.front:
        assert 0 <= row.measurements["test_error"] <= 1
        assert row.measurements[name] >= 0
    assert {"error", "test_error"} & set(result.study.dense) == {"test_error"}
    assert not result.untested
    with rs.Store.open(tmp_path / "hidden.sqlite") as store:
        assert name in store.study(study.name).objectives_in_words
        again = rs.run_study(study, task=Hidden(), store=str(tmp_path / "hidden.sqlite"), trials=3)
    assert again.added == 0


def test_a_task_without_its_labels(tmp_path: Path) -> None:
    batches = [(torch.randn(8, 3, 6, 6, generator=torch.Generator().manual_seed(3)), torch.zeros(8).long())]
    task = rs.Supervised(normed_network(), batches, batches, batches, loss_function=lambda *_: pytest.fail("labels"))
    data = {"labels": False}
    study = Study.model_validate({**tables("task"), "data": data, "training": {"epochs": 1}, "folder": tmp_path})
    result = rs.run_study(study, task=task, store=str(tmp_path / "own.sqlite"), trials=3)
    row = max(result.front, key=lambda each: each.measurements["kl"])
    assert row.measurements["test_kl"] == pytest.approx(row.measurements["kl"])
    assert "without labels" in result.study.meanings["kl"]


def tables(source: str, **more: Any) -> dict[str, Any]:
    objective = "layer_error" if source in ("analytic", "none") else "kl"
    keys = FAST if source in ("synthetic", "gaussian") else {}
    return {
        "study": {"name": "bare", "trials": 3},
        "task": {"factory": "none"},
        "data": {"source": source, **keys},
        "layers": {"factorizations": ["svd"]},
        "search": {"objectives": [objective, "macs"]},
        "training": {"epochs": 0},
        **more,
    }


FILE = '[study]\nname = "bare"\n[task]\nfactory = "bare_net.py:network"\n[data]\nsource = "{source}"\n{more}\n'


@pytest.mark.parametrize(
    ("source", "more", "said"),
    [
        ("none", "[training]\nepochs=0", 'search: \'error\' is not measured.*objectives = \\["layer_error", "macs"\\]'),
        ("synthetic", '[search]\nobjectives=["kl","macs"]\nconstraints=["error <= 0.1"]', "search: 'error' is not"),
        ("none", '[search]\nobjectives=["layer_error","macs"]', "training.epochs needs inputs.*Set epochs = 0"),
        (
            "analytic",
            '[search]\nobjectives=["layer_error"]\n[training]\nepochs=0\n[priors]\nsequential=true',
            "priors.sequential needs inputs.*Leave it out",
        ),
        ("gaussian", '[search]\nobjectives=["kl"]\n[priors]\nmetric="loss"', 'priors.targets.*Set targets = "sampled"'),
        ("gaussian", 'labels = false\n[search]\nobjectives=["kl"]', 'labels = false is of source = "task"'),
        ("synthetic", "batch_size = 8", "batch_size.*greater than or equal to 64"),
        ("real", "", "data.source"),
    ],
)
def test_a_study_file_that_asks_for_what_cannot_be_had_is_refused(
    tmp_path: Path, source: str, more: str, said: str
) -> None:
    file = tmp_path / "bare.toml"
    file.write_text(FILE.format(source=source, more=more))
    with pytest.raises(StudyFileError, match=f"(?s){said}"):
        load_study(file)


def test_a_factory_may_return_a_network_where_data_is_made_up(tmp_path: Path) -> None:
    (tmp_path / "bare_net.py").write_text("from torch import nn\ndef network():\n    return nn.Linear(6, 4)\n")
    common = {"study": {"name": "bare"}, "folder": tmp_path}
    search = {"search": {"objectives": ["layer_error", "macs"]}, "training": {"epochs": 0}}
    task = {"factory": "bare_net.py:network", "example": "1x6"}
    found = read_problem(Study.model_validate({**common, **search, "task": task, "data": {"source": "none"}}))
    assert isinstance(found.task, LayerErrorTask)
    assert found.task.example().shape == (1, 6)
    with pytest.raises(TaskError, match=r"network without an example.*--example"):
        read_problem(
            Study.model_validate(
                {**common, **search, "task": {"factory": "bare_net.py:network"}, "data": {"source": "none"}}
            )
        )
    with pytest.raises(TaskError, match=r"returned Linear.*\[data\] source"):
        read_problem(Study.model_validate({**common, "task": task}))


def test_examples_in_words() -> None:
    assert example_of("1x3x8x8").shape == (1, 3, 8, 8)
    assert example_of("1x5, int64").dtype == torch.int64
    assert torch.equal(example_of("2x3"), example_of("2x3"))
    for wrong in ("", "axb", "1x0", "1x3,complex", "1x3,float99"):
        with pytest.raises(TaskError, match="1x3x32x32"):
            example_of(wrong)


def test_wrong_settings_in_python_are_named() -> None:
    with pytest.raises(StudyFileError, match=r"without_data\(\) takes.*\n  batches"):
        made("gaussian", batches=0)
