from __future__ import annotations

import math
from collections import OrderedDict
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from rank_search.errors import TaskError
from rank_search.layers import copied, opened_inventory
from rank_search.quantization import reestimate_batchnorm
from rank_search.tasks import (
    AgreementTask,
    LanguageModel,
    Supervised,
    has_test,
    input_moments,
    task_distilled_loss,
    task_loss,
    task_measurements,
    task_sampled_loss,
)
from rank_search.tasks.agreement_sums import AgreementSums
from rank_search.tasks.known_outputs import KnownOutputs

CLASSES = 5


def classifier() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, CLASSES)).eval()


def moved(model: nn.Module, by: float = 0.3) -> nn.Module:
    """A copy with other weights."""
    found, generator = copied(model), torch.Generator().manual_seed(1)
    with torch.no_grad():
        for each in found.parameters():
            each += by * torch.randn(each.shape, generator=generator)
    return found


def inputs(seed: int, count: int = 24) -> list[Tensor]:
    return list(torch.randn(count, 3, generator=torch.Generator().manual_seed(seed)).split(10))


def measured(task: AgreementTask, model: nn.Module) -> dict[str, float]:
    return task_measurements(task, model.eval(), task.selection(), "selection data")


def test_the_dense_model_agrees_with_itself_exactly() -> None:
    task = AgreementTask(classifier(), inputs(0), inputs(1))
    assert measured(task, task.model()) == {"kl": 0.0, "disagreement": 0.0, "output_error": 0.0}


def test_the_measures_are_those_of_all_outputs_in_float64() -> None:
    dense = classifier()
    other, whole = moved(dense), torch.cat(inputs(1))
    with torch.no_grad():
        y, z = dense(whole).double(), other(whole).double()
    p, q = y.softmax(1), z.softmax(1)
    found = measured(AgreementTask(dense, inputs(0), inputs(1)), other)
    assert found["kl"] == pytest.approx(float((p * (p / q).log()).sum(1).mean()), rel=1e-9)
    assert found["disagreement"] == float((y.argmax(1) != z.argmax(1)).double().mean()) > 0
    assert found["output_error"] == pytest.approx(float((y - z).square().sum() / y.square().sum()), rel=1e-6)


def test_targets_of_a_batch_are_not_looked_at() -> None:
    dense, other = classifier(), moved(classifier())
    plain = AgreementTask(dense, inputs(0), inputs(1))
    paired = AgreementTask(
        dense, inputs(0), [(each, torch.full((len(each),), -7)) for each in inputs(1)], None, inputs(0)[0][:1]
    )
    assert measured(plain, other) == measured(paired, other)


def test_the_dense_outputs_are_computed_once_for_all_models() -> None:
    dense = classifier()
    runs: list[int] = []
    dense[0].register_forward_hook(lambda *_: runs.append(1))
    task = AgreementTask(dense, inputs(0), inputs(1))
    for seed in range(3):
        measured(task, moved(nn.Sequential(*(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, CLASSES))), seed / 10))
    assert len(runs) == len(inputs(1))


def test_outputs_are_known_by_content_and_forgotten_beyond_the_memory() -> None:
    known, asked = KnownOutputs(most=24), list[Tensor]()

    def of(value: Tensor) -> Any:
        def compute() -> list[Tensor]:
            asked.append(value)
            return [value.clone()]

        return known.of((value,), compute)

    first, same, wide = torch.ones(3), torch.ones(3), torch.ones(30)
    assert of(first) is of(same)
    of(torch.ones(1, 3))
    of(wide)
    of(wide)
    assert len(asked) == 4


@given(st.integers(1, 6), st.integers(2, 5), st.integers(0, 1000))
def test_the_measures_of_parts_are_those_of_the_whole(rows: int, classes: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    y, z = torch.randn(2, 2 * rows, classes, generator=generator)
    whole, parts = AgreementSums(), AgreementSums()
    whole.add([z], [y], classes=True)
    for one, other in zip(z.split(rows), y.split(rows), strict=True):
        parts.add([one], [other], classes=True)
    assert parts.means() == pytest.approx(whole.means(), rel=1e-9)
    assert whole.means()["kl"] >= 0
    assert 0 <= whole.means()["disagreement"] <= 1


def test_outputs_of_zeros() -> None:
    nothing = AgreementSums()
    nothing.add([torch.zeros(2)], [torch.zeros(2)], classes=False)
    assert nothing.means() == {"output_error": 0.0}
    lost = AgreementSums()
    lost.add([torch.ones(2)], [torch.zeros(2)], classes=False)
    assert lost.means() == {"output_error": math.inf}


@pytest.mark.parametrize("whose", [0, 1])
def test_nan_in_the_outputs_stays_in_every_measure(whose: int) -> None:
    pair = [torch.tensor([[3.0, 1.0], [0.0, 1.0]]), torch.tensor([[1.0, 1.0], [0.0, 2.0]])]
    sums = AgreementSums()
    sums.add(pair[:1], pair[1:], classes=True)
    pair[whose][1, 0] = math.nan
    sums.add(pair[:1], pair[1:], classes=True)
    assert {name for name, value in sums.means().items() if math.isnan(value)} == {"kl", "disagreement", "output_error"}


def test_outputs_that_are_values_have_an_error_alone() -> None:
    class Nest(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 4)

        def forward(self, x: Tensor) -> dict[str, Any]:
            y = self.layer(x)
            return {"map": [y.view(-1, 2, 2), y[:, :1]], "count": torch.tensor(3)}

    torch.manual_seed(0)
    dense = Nest().eval()
    task = AgreementTask(dense, inputs(0), inputs(1))
    found = measured(task, moved(dense))
    assert set(found) == {"output_error"}
    assert found["output_error"] > 0
    loss = task_loss(task, moved(dense).train(), inputs(0)[0])
    assert loss.requires_grad
    assert float(task_loss(task, dense, inputs(0)[0]).detach()) == 0


@pytest.mark.parametrize(("outputs", "names"), [("classes", 3), ("values", 1)])
def test_what_outputs_are_can_be_said(outputs: Any, names: int) -> None:
    task = AgreementTask(classifier(), inputs(0), inputs(1), outputs=outputs)
    assert len(measured(task, task.model())) == names


class Scores(nn.Module):
    """One number, or a map of them, for each row of token ids or pixels."""

    def __init__(self, *sizes: int) -> None:
        super().__init__()
        self.weight, self.sizes = nn.Parameter(torch.randn(11, generator=torch.Generator().manual_seed(0))), sizes

    def forward(self, ids: Tensor) -> Tensor:
        return self.weight[ids].sum(1).view(-1, *([1] * len(self.sizes))).expand(-1, *self.sizes)


@pytest.mark.parametrize("sizes", [(), (2, 4, 4)])
def test_of_whole_numbers_too_only_predictions_of_tokens_are_classes(sizes: tuple[int, ...]) -> None:
    """Neither the scores of a batch, which are no predictions of one another, nor maps."""
    model, ids = Scores(*sizes), torch.arange(12).remainder(11).view(4, 3)
    assert set(measured(AgreementTask(model, [ids], [ids]), model)) == {"output_error"}


def test_values_are_not_taken_for_classes() -> None:
    model = nn.Linear(3, 1).eval()
    assert set(measured(AgreementTask(model, inputs(0), inputs(1)), model)) == {"output_error"}
    with pytest.raises(TaskError, match=r'\(10, 1\).*outputs = "values"'):
        measured(AgreementTask(model, inputs(0), inputs(1), outputs="classes"), model)


def test_the_loss_is_distillation() -> None:
    dense = classifier()
    task, other, batch = AgreementTask(dense, inputs(0), inputs(1)), moved(classifier()).train(), inputs(0)[0]
    with torch.no_grad():
        p = dense(batch).softmax(1)
    expected = (p * (p.log() - other(batch).log_softmax(1))).sum(1).mean()
    assert torch.allclose(task_loss(task, other, batch), expected, atol=1e-6)
    optimizer = torch.optim.Adam(other.parameters(), 1e-2)
    before = measured(task, other)["kl"]
    for _ in range(20):
        for each in inputs(0):
            optimizer.zero_grad()
            task_loss(task, other.train(), each).backward()
            optimizer.step()
    assert measured(task, other)["kl"] < before / 2


def test_a_share_of_distillation_has_a_temperature() -> None:
    dense = classifier()
    task, other, batch = AgreementTask(dense, inputs(0), inputs(1)), moved(classifier()), inputs(0)[0]
    warm = task_distilled_loss(task, other, dense, batch, 1.0, 4.0)
    with torch.no_grad():
        expected = 16 * F.kl_div(
            (other(batch) / 4).log_softmax(1), (dense(batch) / 4).softmax(1), reduction="batchmean"
        )
    assert torch.allclose(warm, expected, atol=1e-6)
    half = task_distilled_loss(task, other, dense, batch, 0.5, 4.0)
    assert torch.allclose(half, (warm + task_loss(task, other, batch)) / 2)


def test_targets_are_drawn_from_the_predictions() -> None:
    task = AgreementTask(classifier(), inputs(0), inputs(1))
    torch.manual_seed(0)
    loss = task_sampled_loss(task, task.network, inputs(0)[0])
    loss.backward()
    assert any(each.grad is not None and bool(each.grad.any()) for each in task.network.parameters())


def test_watching_the_dense_model_does_not_count_its_own_outputs() -> None:
    """The loss compares with the dense model, which is the one that calibration watches."""
    dense = classifier()
    layers = opened_inventory(dense, inputs(0)[0][:1]).layers
    found = input_moments(AgreementTask(dense, inputs(0), inputs(1)), dense, layers, 9)
    x = torch.cat(inputs(0)).double()
    assert torch.allclose(found["0"].double(), x.T @ x / len(x), atol=1e-6)


class Padded(nn.Module):
    """Tokens to logits, told of padding."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(7, 6)
        self.head = nn.Linear(6, 7)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> dict[str, Tensor]:
        return {"logits": self.head(self.table(input_ids))}


def test_named_inputs_and_padding() -> None:
    torch.manual_seed(0)
    dense = Padded().eval()
    ids, mask = torch.tensor([[1, 2, 3, 0], [4, 5, 0, 0]]), torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0]])
    batch = {"input_ids": ids, "attention_mask": mask, "labels": ids}
    one = {"input_ids": ids[:1], "attention_mask": mask[:1]}
    task = AgreementTask(dense, [batch], [batch], one_example=one)
    other = copied(dense)
    with torch.no_grad():
        other.table.weight[0] += 9  # what padding is looked up as
    assert measured(task, other) == {"kl": 0.0, "disagreement": 0.0, "output_error": 0.0}
    assert float(task_loss(task, other, batch).detach()) == pytest.approx(0, abs=1e-6)
    with torch.no_grad():
        other.table.weight[1] += 9
    assert measured(task, other)["kl"] > 0


def test_a_task_without_its_labels_is_tested_with_them() -> None:
    dense = classifier()
    pairs = [(each, dense(each).argmax(1)) for each in inputs(1)]
    own = Supervised(dense, [(each, torch.zeros(len(each)).long()) for each in inputs(0)], pairs, pairs)
    task = AgreementTask.of(own, dense)
    assert has_test(task)
    other = moved(dense)
    seen = measured(task, other)
    at_the_end = task_measurements(task, other, task.test() or (), "test data")
    assert at_the_end == {"error": seen["disagreement"], **seen}
    assert set(measured(task, other)) == {"kl", "disagreement", "output_error"}


def test_of_a_language_model_the_divergence_is_its_own() -> None:
    torch.manual_seed(0)
    dense = Padded().eval()
    own = LanguageModel(dense, *torch.randint(7, (3, 64)), length=8, windows=2)
    task, other = AgreementTask.of(own, dense), moved(dense)
    theirs = task_measurements(own, other, own.selection(), "selection data")
    assert measured(task, other)["kl"] == pytest.approx(theirs["kl"], rel=1e-6)


class Normed(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(OrderedDict(first=nn.Linear(3, 8), norm=nn.BatchNorm1d(8), last=nn.Linear(8, 4)))


@pytest.mark.parametrize(("made_up", "moves"), [("synthetic inputs", False), ("", True)])
def test_batch_norms_learn_from_real_inputs_only(made_up: str, moves: bool) -> None:
    torch.manual_seed(0)
    dense = Normed().eval()
    task = AgreementTask(dense, inputs(0), inputs(1), made_up=made_up)
    other = moved(dense).train()
    task_loss(task, other, inputs(0)[0]).backward()
    assert other.training
    assert all(each.training for each in other.modules())
    assert bool(other.norm.running_mean.any()) == moves
    assert other.first.weight.grad is not None
    reestimate_batchnorm(task, other)
    assert bool(other.norm.running_mean.any()) == moves


def test_heads_that_only_training_has_are_compared_with_their_like() -> None:
    class TwoHeads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.heads = nn.Linear(3, 6), nn.ModuleList([nn.Linear(6, 4), nn.Linear(6, 4)])

        def forward(self, x: Tensor) -> Any:
            found = [head(self.body(x)) for head in self.heads]
            return found if self.training else found[0]

    torch.manual_seed(0)
    dense = TwoHeads().eval()
    task = AgreementTask(dense, inputs(0), inputs(1))
    assert float(task_loss(task, moved(dense).train(), inputs(0)[0]).detach()) > 0
    assert set(measured(task, dense)) == {"kl", "disagreement", "output_error"}


def test_a_model_with_other_outputs_is_refused() -> None:
    task = AgreementTask(classifier(), inputs(0), inputs(1))
    with pytest.raises(TaskError, match=r"shape \(10, 2\) where the dense model gives outputs of shape \(10, 5\)"):
        measured(task, nn.Linear(3, 2))


def test_two_kinds_of_test_data_are_refused() -> None:
    own = Supervised(classifier(), [], [])
    with pytest.raises(TaskError, match="Give one"):
        AgreementTask(classifier(), inputs(0), inputs(1), inputs(2), measured_at_the_end=own)
