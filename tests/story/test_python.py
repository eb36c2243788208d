"""The whole path from Python: a model in memory, a task of one's own, objectives, constraints, ties."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import rank_search as rs
from rank_search.layers.costs import count_macs
from rank_search.run import run_study
from rank_search.study import Study

Pairs = list[tuple[Tensor, Tensor]]


def batches(seed: int, count: int = 64) -> Pairs:
    """Images of one bright row, whose place is the class."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 4, (count,), generator=generator)
    images = 0.3 * torch.randn(count, 1, 4, 4, generator=generator)
    images[torch.arange(count), 0, labels] += 1
    return [(images[part], labels[part]) for part in torch.arange(count).split(32)]


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(256, 24),
        nn.ReLU(),
        nn.Linear(24, 4),
    )


@pytest.fixture(scope="module")
def trained() -> nn.Module:
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(12):
        for images, labels in batches(1, 128):
            optimizer.zero_grad()
            F.cross_entropy(model(images), labels).backward()
            optimizer.step()
    return model.eval()


def squeezed(model: nn.Module, folder: Path, **changes: Any) -> rs.Compressed:
    arguments: dict[str, Any] = {
        "train": batches(1),
        "selection": batches(2),
        "test": batches(3),
        "trials": 6,
        "store": folder / "mine.sqlite",
        "training": {"epochs": 1},
    }
    return rs.compress(model, **{**arguments, **changes})


def trials_of(found: rs.Compressed) -> list[rs.TrialRow]:
    with rs.Store.open(found.store) as store:
        return store.trials(store.study(found.name))


def test_compress_gives_a_front_models_and_exports(trained: nn.Module, tmp_path: Path) -> None:
    before = {name: tensor.clone() for name, tensor in trained.state_dict().items()}
    threads = torch.get_num_threads()
    found = squeezed(trained, tmp_path)
    assert found.dense["macs"] == count_macs(trained, [torch.zeros(1, 1, 4, 4)])
    member = min(found.front, key=lambda row: row.measurements["macs"])
    small = found.model(member.number)
    images = torch.cat([inputs for inputs, _ in batches(2)])
    labels = torch.cat([targets for _, targets in batches(2)])
    error = float((small(images).argmax(-1) != labels).double().mean())
    assert error == member.measurements["error"]
    found.export(member.number, tmp_path / "small")
    torch.testing.assert_close(rs.load(tmp_path / "small")(images), small(images))
    coded = (tmp_path / "small" / "model.coded").read_bytes()
    assert len(coded) * 8 == member.measurements["bits"]
    decoded = rs.decode(coded)
    assert all(torch.equal(decoded[name], tensor) for name, tensor in small.state_dict().items())
    assert all(torch.equal(before[name], tensor) for name, tensor in trained.state_dict().items())
    assert torch.get_num_threads() == threads


def test_the_same_call_goes_on(trained: nn.Module, tmp_path: Path) -> None:
    first = trials_of(squeezed(trained, tmp_path, trials=3))
    second = trials_of(squeezed(trained, tmp_path, trials=5))
    assert [row.started for row in second[:3]] == [row.started for row in first]
    assert [row.number for row in second] == [0, 1, 2, 3, 4]


def test_another_model_is_refused(trained: nn.Module, tmp_path: Path) -> None:
    squeezed(trained, tmp_path, trials=1)
    with pytest.raises(rs.RankSearchError, match="weights"):
        squeezed(network(), tmp_path, trials=2)


def accuracy(outputs: Tensor, targets: Tensor) -> float:
    return float((outputs.argmax(-1) == targets).double().mean())


def test_what_is_maximized_has_its_largest_value_first(trained: nn.Module, tmp_path: Path) -> None:
    objectives = [{"name": "accuracy", "direction": "maximize"}, "params"]
    found = squeezed(
        trained, tmp_path, metric=accuracy, metric_name="accuracy", search={"objectives": objectives}, trials=8
    )
    values = [row.measurements["accuracy"] for row in found.front]
    assert values == sorted(values, reverse=True)
    assert [row.losses["accuracy"] for row in found.front] == [-value for value in values]
    assert "test_accuracy" in found.front[0].measurements


def test_latency_is_measured_when_it_is_asked_for(trained: nn.Module, tmp_path: Path) -> None:
    found = squeezed(
        trained, tmp_path, search={"objectives": ["error", "latency"]}, latency={"repeats": 3, "batch": 4}, trials=2
    )
    assert found.dense["latency_ratio"] == 1
    for row in trials_of(found):
        assert row.measurements["latency"] == row.measurements["latency_ratio"] * found.dense["latency"] > 0


def test_an_infeasible_point_is_recorded_without_training(trained: nn.Module, tmp_path: Path) -> None:
    class Counting(list[tuple[Tensor, Tensor]]):
        passes = 0

        def __iter__(self) -> Any:
            Counting.passes += 1
            return super().__iter__()

    found = squeezed(
        trained, tmp_path, train=Counting(batches(1)), trials=4, search={"constraints": ["macs <= 0.5 * dense"]}
    )
    rows = trials_of(found)
    infeasible = [row for row in rows if row.state == "infeasible"]
    assert infeasible
    assert infeasible[0].number == 0  # the dense seed
    assert all("macs <= 0.5 * dense" in row.reason for row in infeasible)
    assert all(set(row.measurements) == {"params", "macs"} for row in infeasible)
    assert all(row.measurements["macs"] <= 0.5 * found.dense["macs"] for row in found.front)
    trained_ones = sum(row.state == "complete" for row in rows)
    assert Counting.passes <= 1 + 3 * trained_ones  # a rehearsal; no pass for an infeasible one


def test_a_measured_constraint_keeps_a_trial_off_the_front(trained: nn.Module, tmp_path: Path) -> None:
    found = squeezed(trained, tmp_path, search={"constraints": ["bits <= 0.6 * dense"]})
    for row in trials_of(found):
        over = row.measurements["bits"] > 0.6 * found.dense["bits"]
        assert row.state == ("infeasible" if over else "complete")
    assert all(row.measurements["bits"] <= 0.6 * found.dense["bits"] for row in found.front)


def test_tied_layers_share_their_choice_and_rules_and_rounding_hold(trained: nn.Module, tmp_path: Path) -> None:
    layers = {
        "tie": [["2", "4"]],
        "exclude": ["0"],
        "factorizations": ["svd", "tucker2"],
        "rules": [{"match": "7", "factorizations": ["svd"]}, {"match": "9", "factorizations": []}],
    }
    found = squeezed(trained, tmp_path, layers=layers, search={"round_to": 4}, trials=14)
    for row in trials_of(found):
        chosen = row.point.layers
        assert set(chosen) == {"2", "4", "7"}
        kinds = {chosen[name].factorization for name in ("2", "4") if not chosen[name].is_dense}
        assert len(kinds) <= 1
        values = [value for choice in chosen.values() for value in choice.values.values()]
        assert all(value % 4 == 0 for value in values)


class OwnTask(rs.Task):
    """A task with two measurements, whose test data may be touched only after the search."""

    def __init__(self, model: nn.Module) -> None:
        self._model, self.calls = model, []  # type: ignore[var-annotated]

    def model(self) -> nn.Module:
        return self._model

    def example(self) -> Tensor:
        return torch.zeros(1, 1, 4, 4)

    def training(self) -> Pairs:
        return batches(1)

    def selection(self) -> Pairs:
        self.calls.append("selection")
        return batches(2)

    def test(self) -> Pairs:
        self.calls.append("test")
        return batches(3)

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return F.cross_entropy(model(batch[0]), batch[1])

    def evaluate(self, model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> Mapping[str, float]:
        pairs = [(model(inputs), targets) for inputs, targets in batches]
        losses = [float(F.cross_entropy(*pair)) for pair in pairs]
        return {"accuracy": sum(accuracy(*pair) for pair in pairs) / len(pairs), "nats": sum(losses) / len(losses)}


def test_a_task_of_ones_own_and_the_test_data_comes_last(trained: nn.Module, tmp_path: Path) -> None:
    study = Study.model_validate(
        {
            "study": {"name": "own", "trials": 4},
            "task": {"factory": "(in memory)"},
            "search": {"objectives": [{"name": "accuracy", "direction": "maximize"}, "nats", "bits"]},
        }
    )
    task = OwnTask(trained)
    result = run_study(study, task=task, store=str(tmp_path / "own.sqlite"))
    first, asked, *rest = [place for place, call in enumerate(task.calls) if call == "test"]
    searched = [place for place, call in enumerate(task.calls) if call == "selection"]
    assert first < searched[1]  # a look at whether there is any
    assert asked > max(searched)  # the same, before the front is measured
    assert len(rest) == 1 + len(result.front)  # the dense model's, for the record, and each member's
    assert {"test_accuracy", "test_nats"} <= set(result.front[0].measurements)


def test_the_same_seed_repeats_the_study(trained: nn.Module, tmp_path: Path) -> None:
    found = []
    for folder in ("a", "b"):
        search = {"objectives": ["error", "bits"], "entropy": {"low": 1e-2, "high": 1.0}, "sampler": "nsga2"}
        rows = trials_of(squeezed(trained, tmp_path / folder, search=search, trials=16))
        found.append([(row.point.key, dict(row.measurements)) for row in rows])
    assert found[0] == found[1]


def test_a_small_space_ends_cleanly(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 4), nn.ReLU(), nn.Linear(4, 4))
    found = squeezed(model, tmp_path, trials=40, layers={"include": ["1"], "factorizations": ["svd"]})
    rows = trials_of(found)
    assert {row.point.key for row in rows} == {row.point.key for row in rows}
    ranks = sorted(choice.values.get("rank", 0) for row in rows for choice in row.point.layers.values())
    assert ranks == [0, 1, 2, 3]  # dense, and every rank that saves something
