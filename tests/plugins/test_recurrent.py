"""Recurrent networks, opened: the laws, and what PyTorch's own give of every kind of sequence."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from rank_search_plugins.recurrent import OpenedGRU, OpenedLSTM, OpenedRecurrent, OpenedRNN
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

from rank_search.layers import count_params, tensors_of
from rank_search.layers.costs import count_macs
from rank_search.testing import OpenedLaws

BATCH, STEPS, WIDTH, HIDDEN = 3, 6, 5, 7
OPENERS = {nn.LSTM: OpenedLSTM, nn.GRU: OpenedGRU, nn.RNN: OpenedRNN}
FORMS: list[tuple[type[nn.RNNBase], dict[str, Any]]] = [
    (kind, {"num_layers": layers, "bidirectional": both, "batch_first": first, "bias": layers == 1, **more})
    for kind, more in (
        (nn.LSTM, {}),
        (nn.LSTM, {"proj_size": 3}),
        (nn.GRU, {}),
        (nn.RNN, {}),
        (nn.RNN, {"nonlinearity": "relu"}),
    )
    for layers, both, first in ((1, False, True), (2, True, False), (2, True, True))
]


def recurrent(kind: type[nn.RNNBase], **options: Any) -> nn.RNNBase:
    torch.manual_seed(0)
    made = kind(WIDTH, HIDDEN, **options).double()
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.4)
    return made.eval()


def opened(module: nn.RNNBase) -> OpenedRecurrent:
    return OPENERS[type(module)](module).train(module.training)


def sequences(batch_first: bool = True) -> Tensor:
    torch.manual_seed(1)
    x = torch.randn(BATCH, STEPS, WIDTH).double()
    return x if batch_first else x.transpose(0, 1)


def packed() -> PackedSequence:
    return pack_padded_sequence(sequences(), [3, 6, 2], batch_first=True, enforce_sorted=False)


def state_of(module: nn.RNNBase) -> Any:
    count = module.num_layers * (2 if module.bidirectional else 1)
    h, c = torch.randn(count, BATCH, module.proj_size or HIDDEN).double(), torch.randn(count, BATCH, HIDDEN).double()
    return (h, c) if isinstance(module, nn.LSTM) else h


def alone(state: Any) -> Any:
    return tuple(each[:, 0] for each in state) if isinstance(state, tuple) else state[:, 0]


class TestOpenedLSTM(OpenedLaws):
    opener = OpenedLSTM
    samples = (
        (recurrent(nn.LSTM, num_layers=2, bidirectional=True), sequences()),
        (recurrent(nn.LSTM, proj_size=3, batch_first=True, bias=False), sequences()),
        (recurrent(nn.LSTM), (packed(),)),
    )


class TestOpenedGRU(OpenedLaws):
    opener = OpenedGRU
    samples = ((recurrent(nn.GRU, num_layers=2, bidirectional=True), sequences()), (recurrent(nn.GRU), (packed(),)))


class TestOpenedRNN(OpenedLaws):
    opener = OpenedRNN
    samples = ((recurrent(nn.RNN), sequences()), (recurrent(nn.RNN, nonlinearity="relu", num_layers=2), sequences()))


@pytest.mark.parametrize(("kind", "options"), FORMS, ids=str)
def test_outputs_and_states_are_pytorchs(kind: type[nn.RNNBase], options: dict[str, Any]) -> None:
    module = recurrent(kind, **options)
    x, state = sequences(options["batch_first"]), state_of(module)
    calls = product((x, packed()), (None, state))
    for given, begun in (*calls, (sequences()[0], None), (sequences()[0], alone(state))):
        expected, found = module(given, begun), opened(module)(given, begun)
        assert type(found[0]) is type(expected[0])
        assert type(found[1]) is type(expected[1])
        for one, other in zip(tensors_of(expected), tensors_of(found), strict=True):
            torch.testing.assert_close(other, one, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("kind", "options"), FORMS, ids=str)
def test_as_much_is_counted_as_of_the_closed_one(kind: type[nn.RNNBase], options: dict[str, Any]) -> None:
    module = recurrent(kind, **options)
    x = sequences(options["batch_first"])
    assert count_macs(opened(module), [x]) == count_macs(module, [x]) > 0
    assert count_params(opened(module)) == count_params(module)


def test_dropout_is_between_layers_in_training_alone() -> None:
    made = opened(recurrent(nn.LSTM, num_layers=2, dropout=0.5))
    assert torch.equal(made(sequences())[0], made(sequences())[0])
    x = sequences()
    assert not torch.equal(made.train()(x)[0], made(x)[0])
    one = opened(recurrent(nn.GRU, num_layers=1)).train()
    assert torch.equal(one(sequences())[0], one(sequences())[0])


def test_a_weight_that_is_computed_is_not_opened() -> None:
    module = recurrent(nn.LSTM)
    weight = module._parameters.pop("weight_hh_l0")
    assert weight is not None
    module.weight_hh_l0 = weight * 0.5
    assert OpenedLSTM.refusal(module) == "weight_hh_l0 is no parameter of it any more, but computed"
