"""Recurrent cells, opened: the laws, and what PyTorch's own give."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from rank_search_plugins.recurrent import OpenedCell, OpenedGRUCell, OpenedLSTMCell, OpenedRNNCell
from torch import Tensor, nn

import rank_search as rs
from rank_search.layers import count_params, tensors_of
from rank_search.layers.costs import count_macs
from rank_search.testing import OpenedLaws

WIDTH, HIDDEN = 5, 7
OPENERS: dict[type[nn.RNNCellBase], type[OpenedCell]] = {
    nn.LSTMCell: OpenedLSTMCell,
    nn.GRUCell: OpenedGRUCell,
    nn.RNNCell: OpenedRNNCell,
}
FORMS: list[tuple[type[nn.RNNCellBase], dict[str, Any]]] = [
    (nn.LSTMCell, {}),
    (nn.LSTMCell, {"bias": False}),
    (nn.GRUCell, {}),
    (nn.GRUCell, {"bias": False}),
    (nn.RNNCell, {}),
    (nn.RNNCell, {"nonlinearity": "relu", "bias": False}),
]


def cell(kind: type[nn.RNNCellBase], **options: Any) -> Any:
    torch.manual_seed(0)
    return kind(WIDTH, HIDDEN, **options).double().eval()


def inputs(*shape: int) -> Tensor:
    return torch.randn(*shape, WIDTH, generator=torch.Generator().manual_seed(1)).double()


class TestOpenedLSTMCell(OpenedLaws):
    opener = OpenedLSTMCell
    samples = ((cell(nn.LSTMCell), inputs(3)), (cell(nn.LSTMCell, bias=False), inputs(3)))


class TestOpenedGRUCell(OpenedLaws):
    opener = OpenedGRUCell
    samples = ((cell(nn.GRUCell), inputs(3)), (cell(nn.GRUCell, bias=False), inputs(3)))


class TestOpenedRNNCell(OpenedLaws):
    opener = OpenedRNNCell
    samples = ((cell(nn.RNNCell), inputs(3)), (cell(nn.RNNCell, nonlinearity="relu"), inputs(3)))


@pytest.mark.parametrize("shape", [(3,), ()], ids=["batch", "alone"])
@pytest.mark.parametrize(("kind", "options"), FORMS, ids=str)
def test_states_are_pytorchs(kind: type[nn.RNNCellBase], options: dict[str, Any], shape: tuple[int, ...]) -> None:
    module = cell(kind, **options)
    found = OPENERS[kind](module).eval()
    state = torch.randn(*shape, HIDDEN).double()
    for begun in (None, (state, state.flip(-1)) if kind is nn.LSTMCell else state):
        expected, answer = module(inputs(*shape), begun), found(inputs(*shape), begun)
        assert type(answer) is type(expected)
        for one, other in zip(tensors_of(expected), tensors_of(answer), strict=True):
            torch.testing.assert_close(other, one, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("kind", "options"), FORMS, ids=str)
def test_as_much_is_counted_as_of_the_closed_one(kind: type[nn.RNNCellBase], options: dict[str, Any]) -> None:
    module = cell(kind, **options)
    assert count_macs(OPENERS[kind](module), [inputs(3)]) == count_macs(module, [inputs(3)]) > 0
    assert count_params(OPENERS[kind](module)) == count_params(module)


class Decoder(nn.Module):
    """Steps through a sequence itself."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.out = nn.GRUCell(6, 16), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(len(x), 16)
        for step in x.unbind(1):
            h = self.cell(step, h)
        out: Tensor = self.out(h)
        return out


def test_a_network_that_loops_itself_is_factorized() -> None:
    torch.manual_seed(0)
    model, batches = Decoder().eval(), [torch.randn(32, 9, 6) for _ in range(2)]
    assert [row.layer for row in rs.layers(model, batches[0]) if not row.skipped] == [
        "cell.input",
        "cell.recurrent",
        "out",
    ]
    table = rs.options(model, batches, example=batches[0])
    small = rs.factorize(model, rs.allocate(table, params=0.7), table)
    assert count_params(small) <= 0.7 * count_params(model)
    assert small(batches[0]).shape == (32, 4)
