from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rank_search.errors import TaskError
from rank_search.tasks import Supervised, checked_batches, error_rate, not_finite, task_loss, task_measurements

BATCHES = [(torch.randn(5, 3), torch.tensor([0, 1, 0, 1, 0])), (torch.randn(2, 3), torch.tensor([1, 1]))]


def make(**changed: Any) -> Supervised:
    given = {
        "network": nn.Linear(3, 2),
        **dict.fromkeys(("training_batches", "selection_batches", "test_batches"), BATCHES),
    }
    return Supervised(**{**given, **changed})


def test_the_metric_sees_all_outputs_of_a_pass_at_once() -> None:
    seen: list[tuple[int, int]] = []

    def metric(outputs: Tensor, targets: Tensor) -> float:
        seen.append((len(outputs), len(targets)))
        return 0.25

    task = make(metric=metric, metric_name="miss")
    assert task_measurements(task, task.model(), task.selection(), "selection data") == {"miss": 0.25}
    assert seen == [(7, 7)]


def test_the_default_metric_is_the_share_of_wrong_answers() -> None:
    outputs = torch.tensor([[2.0, 1.0], [0.0, 1.0], [3.0, 3.0]])
    assert error_rate(outputs, torch.tensor([0, 0, 0])) == pytest.approx(1 / 3)


def test_the_example_is_one_input() -> None:
    task = make()
    assert torch.equal(task.example(), BATCHES[0][0][:1])


def test_the_default_loss_is_cross_entropy() -> None:
    task = make()
    expected = nn.functional.cross_entropy(task.network(BATCHES[0][0]), BATCHES[0][1])
    assert torch.equal(task_loss(task, task.network, BATCHES[0]), expected)


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"network": "resnet"}, r"network is str; pass an nn\.Module"),
        ({"training_batches": iter(BATCHES)}, "training_batches .* only once"),
        ({"selection_batches": (batch for batch in BATCHES)}, "selection_batches .* only once"),
        ({"test_batches": 3}, "test_batches is int"),
    ],
)
def test_arguments_that_can_never_work_are_refused_at_once(changed: dict[str, Any], complaint: str) -> None:
    with pytest.raises(TaskError, match=complaint):
        make(**changed)


@pytest.mark.parametrize(
    "batch", [torch.zeros(2, 3), (torch.zeros(2, 3),), (torch.zeros(2, 3), [0, 1]), {"x": torch.zeros(2)}]
)
def test_batches_that_are_no_pairs_of_tensors_are_refused(batch: Any) -> None:
    task = make(selection_batches=[batch])
    with pytest.raises(TaskError, match=r"pairs of tensors .* rank_search\.Task"):
        task.example()
    with pytest.raises(TaskError, match="pairs of tensors"):
        task_loss(task, task.network, batch)


def test_a_pass_without_batches_is_refused() -> None:
    with pytest.raises(TaskError, match="selection data yielded no batch"):
        list(checked_batches([], "selection data"))


@pytest.mark.parametrize("loss", [1.0, torch.zeros(3), None])
def test_a_loss_is_one_number(loss: Any) -> None:
    task = make(loss_function=lambda outputs, targets: loss)
    with pytest.raises(TaskError, match="must be one number as a tensor"):
        task_loss(task, task.network, BATCHES[0])


@pytest.mark.parametrize("value", ["good", None, torch.zeros(2)])
def test_a_measurement_is_one_number(value: Any) -> None:
    task = make(metric=lambda outputs, targets: value)
    with pytest.raises(TaskError, match=r"'error' is .*; it must be one number"):
        task_measurements(task, task.network, task.selection(), "selection data")


def test_a_metric_cannot_take_the_name_of_a_measurement_of_every_trial() -> None:
    task = make(metric_name="bits")
    with pytest.raises(TaskError, match="gave bits, which is measured for every trial"):
        task_measurements(task, task.network, task.selection(), "selection data")


def test_a_tensor_of_one_element_is_a_number() -> None:
    task = make(metric=lambda outputs, targets: torch.tensor(0.5))
    assert task_measurements(task, task.network, task.selection(), "selection data") == {"error": 0.5}


def test_numbers_that_are_not_finite_are_named() -> None:
    assert not_finite({"b": float("nan"), "a": float("inf"), "c": 0.0}) == ["a", "b"]


class Named(nn.Module):
    """Called by names, with an output that has them, too."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)

    def forward(self, x: Tensor, scale: Tensor) -> dict[str, Tensor]:
        return {"logits": self.linear(x) * scale[:, None], "other": x}


def named_batches() -> list[dict[str, Tensor]]:
    return [{"x": x, "scale": torch.arange(1.0, len(x) + 1), "labels": y} for x, y in BATCHES]


def test_batches_may_be_dictionaries_with_labels() -> None:
    batches = named_batches()
    names = ("training_batches", "selection_batches", "test_batches")
    task = make(network=Named(), **dict.fromkeys(names, batches))
    examples = task.examples()
    assert [{*each} for each in examples] == [{"x", "scale"}] * 4
    assert torch.equal(examples[2]["x"], BATCHES[0][0][2:3])
    assert float(examples[2]["scale"]) == 3.0
    assert task.selection_examples() == 7
    logits = [task.network.linear(x) * torch.arange(1.0, len(x) + 1)[:, None] for x, _ in BATCHES]
    assert torch.equal(task_loss(task, task.network, batches[0]), nn.functional.cross_entropy(logits[0], BATCHES[0][1]))
    found = task_measurements(task, task.network, task.selection(), "selection data")
    assert found == {"error": error_rate(torch.cat(logits), torch.cat([y for _, y in BATCHES]))}
    distilled = task.distilled_loss(task.network, task.network, batches[0], 1.0, 2.0)
    assert float(distilled.detach()) == pytest.approx(0.0, abs=1e-6)


def test_dictionaries_without_labels_are_refused() -> None:
    batches = [{name: each for name, each in batch.items() if name != "labels"} for batch in named_batches()]
    with pytest.raises(TaskError, match=r"yielded a dict of x, scale; .* dictionaries with 'labels'"):
        make(network=Named(), selection_batches=batches).example()
