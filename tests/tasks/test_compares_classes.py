"""Which outputs are known as logits of classes along their last dimension."""

from __future__ import annotations

from functools import partial
from typing import Literal

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import rank_search as rs
from rank_search.tasks import LossAlone, compares_classes

LOGITS = torch.zeros(4, 3)


def task(loss: object = F.cross_entropy) -> rs.Supervised:
    return rs.Supervised(nn.Linear(2, 3), [], [], loss_function=loss)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "loss", [F.cross_entropy, partial(F.cross_entropy, label_smoothing=0.1), nn.CrossEntropyLoss()]
)
def test_those_of_a_cross_entropy(loss: object) -> None:
    assert compares_classes(task(loss), LOGITS)


@pytest.mark.parametrize("outputs", [torch.zeros(4, 3, 5, 5), torch.zeros(4, 1), torch.zeros(()), {"logits": LOGITS}])
def test_not_where_classes_lie_elsewhere_or_there_is_one(outputs: Tensor | dict[str, Tensor]) -> None:
    assert not compares_classes(task(), outputs)


def test_not_those_of_another_loss() -> None:
    assert not compares_classes(task(F.mse_loss), LOGITS)


def test_other_tasks_say_so_by_how_they_distil() -> None:
    assert compares_classes(rs.LanguageModel.__new__(rs.LanguageModel), torch.zeros(2, 7, 11))
    assert not compares_classes(LossAlone(nn.Linear(2, 3), LOGITS, [], lambda model, batch: batch), LOGITS)


@pytest.mark.parametrize(("outputs", "expected"), [("auto", True), ("values", False)])
def test_of_agreement_as_it_compares_them(outputs: Literal["auto", "values"], expected: bool) -> None:
    batch = torch.zeros(4, 2)
    assert compares_classes(rs.AgreementTask(nn.Linear(2, 3), [batch], [batch], outputs=outputs), LOGITS) == expected
