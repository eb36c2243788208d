"""Gaussian inputs: of the form of the example, and reproducible."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rank_search.errors import SourceError
from rank_search.sources import gaussian_inputs


def test_they_have_the_form_of_the_example() -> None:
    table = torch.arange(4)
    example = {"image": torch.zeros(1, 3, 4, 4, dtype=torch.float16), "more": (torch.zeros(1, 2), None), "table": table}
    batches = gaussian_inputs(example, batches=3, batch_size=5, seed=0)
    assert len(batches) == 3
    for batch in batches:
        assert batch["image"].shape == (5, 3, 4, 4)
        assert batch["image"].dtype == torch.float16
        assert batch["more"][0].shape == (5, 2)
        assert batch["more"][1] is None
        assert batch["table"] is table


def test_they_are_standard_normal_and_repeat() -> None:
    (batch,) = gaussian_inputs(torch.zeros(1, 1000), batches=1, batch_size=50, seed=1)
    assert abs(float(batch.mean())) < 0.02
    assert float(batch.std()) == pytest.approx(1, abs=0.02)
    assert torch.equal(batch, gaussian_inputs(torch.zeros(1, 1000), batches=1, batch_size=50, seed=1)[0])
    assert not torch.equal(batch, gaussian_inputs(torch.zeros(1, 1000), batches=1, batch_size=50, seed=2)[0])


def test_a_recurrent_network_that_takes_time_first_gets_it_first() -> None:
    model = nn.LSTM(3, 4)
    (batch,) = gaussian_inputs(torch.zeros(7, 1, 3), batches=1, batch_size=5, seed=0, model=model)
    assert batch.shape == (7, 5, 3)


@pytest.mark.parametrize(
    ("example", "fault"),
    [
        (torch.zeros(1, 5, dtype=torch.long), r"whole numbers in it: int64 of shape \(1, 5\)"),
        ({"image": torch.zeros(1, 5), "mask": torch.ones(1, 5, dtype=torch.bool)}, r"bool of shape \(1, 5\)"),
        (torch.tensor(1.0), "no tensor with a batch"),
        ({"text": "a"}, "no tensor with a batch"),
    ],
)
def test_what_cannot_be_drawn_is_refused(example: object, fault: str) -> None:
    with pytest.raises(SourceError, match=fault):
        gaussian_inputs(example, batches=1, batch_size=2, seed=0)
