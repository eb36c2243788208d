"""What of a batch is for the model, in the form of the example."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from rank_search.errors import TaskError
from rank_search.tasks import inputs_in

A, B, Y = torch.ones(1, 2), torch.ones(1, 3), torch.ones(1)


@pytest.mark.parametrize(
    ("batch", "example", "found"),
    [
        (A, A, A),
        ((A, Y), A, A),
        ([A, Y], A, A),
        ((A, B), (A, B), (A, B)),
        ([A, B, Y], (A, B), (A, B)),
        (([A, B], Y), (A, B), (A, B)),
        ({"b": B, "a": A, "labels": Y}, {"a": A, "b": B}, {"a": A, "b": B}),
        (({"a": A, "b": B}, Y), {"a": A, "b": B}, {"a": A, "b": B}),
        ({"a": A}, {"a": A, "cached": False}, {"a": A, "cached": False}),
        ([{"a": A}, Y], ({"a": A},), ({"a": A},)),
        ({"a": A}, ({"a": A},), ({"a": A},)),
        ([[A, B], Y], [A, B], [A, B]),
        ({"a": A}, None, {"a": A}),
    ],
)
def test_inputs_without_targets(batch: Any, example: Any, found: Any) -> None:
    inputs = inputs_in(batch, example)
    assert type(inputs) is type(found)
    assert inputs is found or str(inputs) == str(found)


@pytest.mark.parametrize(
    ("batch", "example", "complaint"),
    [
        ({"a": A, "c": Y}, {"a": A, "b": B}, "found a dict of a, c. A batch is a dictionary of a, b"),
        ({"a": A}, A, "found a dict of a. A batch is a tensor"),
        ((A,), (A, B), "found a tuple of Tensor. A batch is 2 of them"),
        ("text", A, "found a str"),
        (A, {"a": A}, "found a Tensor. A batch is a dictionary of a"),
    ],
)
def test_other_batches_are_refused(batch: Any, example: Any, complaint: str) -> None:
    with pytest.raises(TaskError, match=complaint):
        inputs_in(batch, example)
