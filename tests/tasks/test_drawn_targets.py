"""Gradients of the loss on targets drawn from the model's own predictions, against the exact Fisher information."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import rank_search as rs
from rank_search.errors import TaskError
from rank_search.layers import Layer
from rank_search.tasks import LossAlone, Supervised, input_moments, loss_moments, seeded
from rank_search.tasks.drawn_targets import drawn_cross_entropy

DRAWS = 4000
"""Copies of each input, each with a target of its own."""


class Net(nn.Module):
    """Two layers that run at each position; outputs are batch × classes × length."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(3, 4), nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        return (2 * self.last(torch.tanh(self.first(x)))).transpose(1, 2)  # type: ignore[no-any-return]


LAYERS = {name: Layer.of(getattr(Net(), name), name=name) for name in ("first", "last")}


def net() -> Net:
    with seeded(0):
        return Net().eval()


def inputs(length: int = 2) -> Tensor:
    return torch.randn(3, length, 3, generator=torch.Generator().manual_seed(1))


def task(targets: Tensor, loss: Callable[..., Any] = F.cross_entropy, model: nn.Module | None = None) -> Supervised:
    """Each example so many times in its one batch."""
    batch = [(inputs().repeat(DRAWS, 1, 1), targets.repeat(DRAWS, *[1] * (targets.dim() - 1)))]
    return Supervised(net() if model is None else model, batch, batch, loss_function=loss)


def expected(counted: Tensor, factor: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    """Σ over examples and positions of each layer's gradients' Jᵀ·F·J, all copies together, n positions in the mean.

    F is `factor` of one position's outputs: the second moment of the gradient there. J by autograd, a row at a time.
    """
    model = net()
    found = {name: torch.zeros(layer.out_features, layer.out_features) for name, layer in LAYERS.items()}
    for x, counts in zip(inputs(), counted, strict=True):
        for position in torch.arange(len(x))[counts]:
            h = model.first(x[position])
            z = model.last(torch.tanh(h))
            y = 2 * z
            F_y = factor(y.detach())
            for name, at in (("first", h), ("last", z)):
                J = torch.stack([torch.autograd.grad(each, at, retain_graph=True)[0] for each in y])
                found[name] += J.T @ F_y @ J
    n = DRAWS * int(counted.sum())
    return {name: DRAWS * each / n**2 for name, each in found.items()}


def of_softmax(y: Tensor) -> Tensor:
    p = y.softmax(0)
    return p.diag() - torch.outer(p, p)


def close(found: Any, wanted: dict[str, Tensor]) -> None:
    for name, moment in wanted.items():
        assert torch.linalg.norm(found[name] - moment) < 0.04 * torch.linalg.norm(moment), name


ALL = torch.ones(3, 2, dtype=torch.bool)
LABELS = torch.tensor([[0, 0], [0, -100], [3, 0]])


@pytest.mark.parametrize("loss", [F.cross_entropy, nn.CrossEntropyLoss(label_smoothing=0.1), lambda y, t: y.sum()])
@pytest.mark.parametrize("labels", [torch.zeros(3, 2, dtype=torch.long), LABELS])
def test_of_classes_the_moment_is_the_exact_fisher_information(labels: Tensor, loss: Callable[..., Any]) -> None:
    each = task(labels, loss)
    close(loss_moments(each, each.network, LAYERS, 1, sampled=True).gradients, expected(labels >= 0, of_softmax))


def test_positions_with_another_ignored_target_do_not_count() -> None:
    each = task(LABELS.clamp(min=0), nn.CrossEntropyLoss(ignore_index=3))
    wanted = expected(LABELS != 3, of_softmax)
    close(loss_moments(each, each.network, LAYERS, 1, sampled=True).gradients, wanted)


@pytest.mark.parametrize("loss", [F.mse_loss, nn.MSELoss()])
def test_of_squared_errors_it_is_that_of_normal_noise(loss: Callable[..., Any]) -> None:
    each = task(torch.zeros(3, 5, 2), loss)
    wanted = {name: moment / 25 for name, moment in expected(ALL, lambda y: torch.eye(5)).items()}
    close(loss_moments(each, each.network, LAYERS, 1, sampled=True).gradients, wanted)


@pytest.mark.parametrize("loss", [F.binary_cross_entropy_with_logits, nn.BCEWithLogitsLoss()])
def test_of_answers_it_is_that_of_one_coin_for_each_output(loss: Callable[..., Any]) -> None:
    each = task(torch.zeros(3, 5, 2), loss)
    wanted = expected(ALL, lambda y: (y.sigmoid() * (1 - y.sigmoid())).diag() / 25)
    close(loss_moments(each, each.network, LAYERS, 1, sampled=True).gradients, wanted)


class Tokens(nn.Module):
    """A language model whose outputs are one layer's."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(9, 6), nn.Linear(6, 9)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.table(ids).cumsum(1))  # type: ignore[no-any-return]


@pytest.mark.parametrize("mask_token", [None, 8])
def test_of_language_models_it_is_that_of_what_they_predict(mask_token: int | None) -> None:
    with seeded(2):
        model = Tokens().eval()
        text = torch.randint(8, (7,)).repeat(DRAWS)
    each = rs.LanguageModel(model, text, text[:7], length=7, windows=DRAWS, mask_token=mask_token, masked=1.0)
    window = text[:7] if mask_token is None else torch.full((7,), mask_token)
    with torch.no_grad():
        logits = model(window[None])[0]
    looked_at = logits if mask_token is not None else logits[:-1]
    wanted = sum((of_softmax(each) for each in looked_at), torch.zeros(9, 9)) / (DRAWS * len(looked_at) ** 2)
    layers = {"head": Layer.of(model.head, name="head")}
    close(loss_moments(each, model, layers, 1, sampled=True).gradients, {"head": wanted})


def test_no_label_plays_a_part_and_the_seed_says_what_is_drawn() -> None:
    one, other = (task(torch.full((3, 2), label)) for label in (0, 3))
    model = net()
    first, again = (loss_moments(each, model, LAYERS, 1, 5, sampled=True).gradients for each in (one, other))
    assert all(torch.equal(first[name], again[name]) for name in LAYERS)
    another = loss_moments(one, model, LAYERS, 1, 6, sampled=True).gradients
    assert not any(torch.equal(first[name], another[name]) for name in LAYERS)


class Lazy:
    """Batches drawn as they are asked for."""

    def __iter__(self) -> Any:
        for _ in range(3):
            yield torch.randn(5, 2, 3), torch.zeros(5, 2, dtype=torch.long)


def test_the_inputs_are_those_of_a_plain_pass_bit_by_bit() -> None:
    each = Supervised(net(), Lazy(), Lazy())
    found = loss_moments(each, each.network, LAYERS, 3, 1, sampled=True).inputs
    plain = input_moments(each, each.network, LAYERS, 3, 1)
    assert all(torch.equal(found[name], plain[name]) for name in LAYERS)


def test_a_class_that_is_certain_says_nothing() -> None:
    model = net()
    with torch.no_grad():
        model.last.bias[2] = 200.0
    each = task(torch.zeros(3, 2, dtype=torch.long), model=model)
    assert not loss_moments(each, model, LAYERS, 1, sampled=True).gradients


def test_of_a_model_that_is_nearly_certain_few_batches_say_as_much() -> None:
    """With drawn classes, one of its 5,000 answers would be another than the usual one."""
    logits = torch.tensor([9.0, 0.0, 0.0, -1.0]).repeat(5000, 1).requires_grad_()
    with seeded(3):
        (gradient,) = torch.autograd.grad(drawn_cross_entropy(logits), logits)
    exact = of_softmax(logits[0].detach()) / 5000
    assert torch.linalg.norm(gradient.T @ gradient - exact) < 0.05 * torch.linalg.norm(exact)


class Square(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x @ x.mT


@pytest.mark.parametrize(
    ("targets", "loss"),
    [
        (torch.zeros(3, 5, 2), lambda y, t: (y - t).square().mean()),
        (torch.zeros(3, 5, 2), F.l1_loss),
        (torch.zeros(3, 5, 2, dtype=torch.long), lambda y, t: F.poisson_nll_loss(y, t)),
    ],
)
def test_outputs_of_no_known_distribution_are_refused(targets: Tensor, loss: Callable[..., Any]) -> None:
    each = task(targets, loss)
    with pytest.raises(TaskError, match=r"shape \(12000, 5, 2\) with targets of .* are not known as a distribution"):
        loss_moments(each, each.network, LAYERS, 1, sampled=True)


def test_classes_along_either_of_two_dimensions_are_no_guess() -> None:
    x, targets = torch.randn(2, 3, 4), torch.zeros(2, 3, dtype=torch.long)
    layers: dict[str, Layer] = {}

    def of(loss: Callable[..., Any]) -> Any:
        each = Supervised(Square(), [(x, targets)], [(x, targets)], loss_function=loss)
        return loss_moments(each, each.network, layers, 1, sampled=True)

    with pytest.raises(TaskError, match=r"sampled_loss, or leave .* targets at"):
        of(lambda y, t: F.cross_entropy(y, t))
    with pytest.raises(TaskError, match="does not depend on what any layer gives"):  # along the second, as ever
        of(F.cross_entropy)


def test_a_task_that_cannot_draw_is_told_to_write_how() -> None:
    model, x = net(), inputs()
    each = LossAlone(model, x[:1], [x], lambda model, batch: model(batch).sum())
    with pytest.raises(TaskError, match=r"LossAlone does not say .*\. Write its method sampled_loss .*targets at"):
        loss_moments(each, model, LAYERS, 1, sampled=True)


@pytest.mark.parametrize(
    ("answer", "message"),
    [(lambda: 1 / 0, r"The task's sampled_loss\(\) raised ZeroDivisionError"), (lambda: 1.0, "must be one number")],
)
def test_what_it_gives_is_checked(answer: Callable[[], Any], message: str) -> None:
    class Own(Plain):
        def sampled_loss(self, model: nn.Module, batch: Any) -> Any:
            return answer()

    with pytest.raises(TaskError, match=message):
        loss_moments(Own(), net(), LAYERS, 1, sampled=True)


class Plain(rs.Task):
    """Inputs without labels, and no loss but that on drawn targets."""

    def model(self) -> nn.Module:
        return net()

    def example(self) -> Tensor:
        return inputs()[:1]

    def training(self) -> Iterable[Any]:
        return [inputs()]

    selection = test = training

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        raise AssertionError

    def sampled_loss(self, model: nn.Module, batch: Any) -> Tensor:
        logits = model(batch).transpose(1, 2)
        drawn = torch.distributions.Categorical(logits=logits).sample()
        return F.cross_entropy(logits.flatten(0, 1), drawn.flatten())

    def evaluate(self, model: nn.Module, batches: Iterable[Any]) -> dict[str, float]:
        return {}


def test_a_task_of_ones_own_takes_no_labels() -> None:
    found = loss_moments(Plain(), net(), LAYERS, 1, sampled=True)
    assert found.gradients.keys() == set(LAYERS)
