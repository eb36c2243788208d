"""Recurrent networks and cells, opened: the matrices of inputs and of states of each layer and direction, as layers."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from rank_search.layers import Opened, linear_of

_State = tuple[Tensor, ...]
"""What a step hands to the next: the outputs, for an LSTM the cell, too; each batch × features."""


class OpenedRecurrent(Opened):
    """A network of `nn.RNNBase` as the layers `input_0`, `recurrent_0`, `input_0_reverse`, `recurrent_0_reverse`, …

    The matrix of a layer's inputs takes a whole sequence at once; that of its states goes step by step, which is slower
    than PyTorch's one operation for all steps.
    """

    _flat_weights, _flat_weight_refs, _all_weights = (), (), ()  # of the module; not to be carried over
    _flat_weights_names = ()

    def __init__(self, module: nn.RNNBase) -> None:
        super().__init__(module)
        self.batch_first, self.dropout, self.num_layers = module.batch_first, module.dropout, module.num_layers
        self.directions = ("", "_reverse") if module.bidirectional else ("",)
        for layer in range(module.num_layers):
            for suffix in self.directions:
                for name, own in (("input", "ih"), ("recurrent", "hh")):
                    bias = getattr(module, f"bias_{own}_l{layer}{suffix}") if module.bias else None
                    weight = getattr(module, f"weight_{own}_l{layer}{suffix}")
                    self.add_module(f"{name}_{layer}{suffix}", linear_of(weight, bias))
                if module.proj_size:
                    weight = getattr(module, f"weight_hr_l{layer}{suffix}")
                    self.add_module(f"projection_{layer}{suffix}", linear_of(weight))
        self.widths = (module.proj_size or module.hidden_size, module.hidden_size)

    @classmethod
    def refusal(cls, module: nn.Module) -> str:
        names: Sequence[str] = getattr(module, "_flat_weights_names", ())
        missing = [name for name in names if module._parameters.get(name) is None]
        return f"{missing[0]} is no parameter of it any more, but computed" if missing else ""

    def flatten_parameters(self) -> None:
        """Nothing, as there is no one operation that takes all weights."""

    def forward(self, input: Tensor | PackedSequence, hx: Any = None) -> tuple[Any, Any]:
        given = None if hx is None else self._state_of(hx)
        if isinstance(input, PackedSequence):
            sizes = [int(size) for size in input.batch_sizes]
            begun = self._begun(input.data, sizes[0], given)
            x, ended = self._run(input.data, sizes, _of_rows(begun, input.sorted_indices))
            packed = PackedSequence(x, input.batch_sizes, input.sorted_indices, input.unsorted_indices)
            return packed, self._given_back(_of_rows(ended, input.unsorted_indices))
        if input.dim() == 2:
            given = None if given is None else [each.unsqueeze(1) for each in given]
            x, ended = self._run_plain(input.unsqueeze(self._batch), given)
            return x.squeeze(self._batch), self._given_back([each.squeeze(1) for each in ended])
        x, ended = self._run_plain(input, given)
        return x, self._given_back(ended)

    @property
    def _batch(self) -> int:
        return 0 if self.batch_first else 1

    def _run_plain(self, x: Tensor, given: list[Tensor] | None) -> tuple[Tensor, list[Tensor]]:
        return self._run(x, None, self._begun(x, x.shape[self._batch], given))

    def _run(self, x: Tensor, sizes: list[int] | None, begun: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """All layers. `sizes`: how many sequences have each step, of packed ones; states: layers · directions × …"""
        ended: list[_State] = []
        for layer in range(self.num_layers):
            outputs = []
            for suffix in self.directions:
                state = tuple(each[len(ended)] for each in begun)
                steps, state = self._along(f"{layer}{suffix}", x, sizes, state)
                outputs.append(torch.cat(steps) if sizes else torch.stack(steps, 1 - self._batch))
                ended.append(state)
            x = torch.cat(outputs, -1) if len(outputs) > 1 else outputs[0]
            if self.dropout and layer < self.num_layers - 1:
                x = F.dropout(x, self.dropout, self.training)
        return x, [torch.stack(each) for each in zip(*ended, strict=True)]

    def _along(self, place: str, x: Tensor, sizes: list[int] | None, state: _State) -> tuple[list[Tensor], _State]:
        """One layer in one direction; shorter sequences keep the state they ended with, or begin later."""
        inputs: Tensor = self.get_submodule(f"input_{place}")(x)
        steps = list(torch.split(inputs, sizes) if sizes else inputs.unbind(1 - self._batch))
        backwards = place.endswith("_reverse")
        outputs = []
        for step in reversed(steps) if backwards else steps:
            live = tuple(each[: len(step)] for each in state) if sizes else state
            after = self._step(place, step, live)
            outputs.append(after[0])
            state = tuple(map(_beside, after, state)) if sizes else after
        return outputs[::-1] if backwards else outputs, state

    def _projected(self, place: str, h: Tensor) -> Tensor:
        found: Tensor = self.get_submodule(f"projection_{place}")(h) if self.widths[0] != self.widths[1] else h
        return found

    def _recurrent(self, place: str, h: Tensor) -> Tensor:
        found: Tensor = self.get_submodule(f"recurrent_{place}")(h)
        return found

    def _begun(self, x: Tensor, batch: int, given: list[Tensor] | None) -> list[Tensor]:
        """The states at the beginning, layers · directions × batch × features: zeros if there are none."""
        if given is not None:
            return given
        count = self.num_layers * len(self.directions)
        return [x.new_zeros(count, batch, width) for width in self._state_widths()]

    # ---- what one of them is ---------------------------------------------------------------------------

    @abstractmethod
    def _step(self, place: str, inputs: Tensor, state: _State) -> _State:
        """One step of a layer: what its inputs give, batch × gates · hidden, and the state before."""

    def _state_widths(self) -> tuple[int, ...]:
        return self.widths[:1]

    def _state_of(self, hx: Any) -> list[Tensor]:
        return [hx]

    def _given_back(self, state: Sequence[Tensor]) -> Any:
        return state[0]


class OpenedLSTM(OpenedRecurrent):
    """`nn.LSTM`, whose state is its output h and its cell c; with `proj_size`, h = `projection_…`(o ⊙ tanh c)."""

    @classmethod
    def classes(cls) -> tuple[type[nn.Module], ...]:
        return (nn.LSTM,)

    def _step(self, place: str, inputs: Tensor, state: _State) -> _State:
        h, c = _lstm_state(inputs + self._recurrent(place, state[0]), state[1])
        return self._projected(place, h), c

    def _state_widths(self) -> tuple[int, ...]:
        return self.widths

    def _state_of(self, hx: Any) -> list[Tensor]:
        return list(hx)

    def _given_back(self, state: Sequence[Tensor]) -> Any:
        return tuple(state)


class OpenedGRU(OpenedRecurrent):
    """`nn.GRU`."""

    @classmethod
    def classes(cls) -> tuple[type[nn.Module], ...]:
        return (nn.GRU,)

    def _step(self, place: str, inputs: Tensor, state: _State) -> _State:
        (h,) = state
        return (_gru_state(inputs, self._recurrent(place, h), h),)


class OpenedRNN(OpenedRecurrent):
    """`nn.RNN`, with tanh or ReLU."""

    def __init__(self, module: nn.RNN) -> None:
        super().__init__(module)
        self.nonlinearity = module.nonlinearity

    @classmethod
    def classes(cls) -> tuple[type[nn.Module], ...]:
        return (nn.RNN,)

    def _step(self, place: str, inputs: Tensor, state: _State) -> _State:
        return (_rnn_state(inputs + self._recurrent(place, state[0]), self.nonlinearity),)


# ---- cells: for networks that loop themselves ------------------------------------------------------------


class OpenedCell(Opened):
    """A cell of `nn.RNNCellBase` as the layers `input` and `recurrent`."""

    def __init__(self, module: nn.RNNCellBase) -> None:
        super().__init__(module)
        self.hidden_size = module.hidden_size
        self.input = linear_of(module.weight_ih, module.bias_ih)
        self.recurrent = linear_of(module.weight_hh, module.bias_hh)

    def forward(self, input: Tensor, hx: Any = None) -> Any:
        return self._step(input, self._begun(input) if hx is None else hx)

    def _begun(self, input: Tensor) -> Any:
        return input.new_zeros(*input.shape[:-1], self.hidden_size)

    @abstractmethod
    def _step(self, input: Tensor, state: Any) -> Any:
        """The state after the inputs, (batch ×) features, and the state before; h, of an LSTM h and c."""


class OpenedLSTMCell(OpenedCell):
    """`nn.LSTMCell`."""

    @classmethod
    def classes(cls) -> tuple[type[nn.Module], ...]:
        return (nn.LSTMCell,)

    def _begun(self, input: Tensor) -> tuple[Tensor, Tensor]:
        zeros: Tensor = super()._begun(input)
        return zeros, zeros

    def _step(self, input: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        h, c = state
        return _lstm_state(self.input(input) + self.recurrent(h), c)


class OpenedGRUCell(OpenedCell):
    """`nn.GRUCell`."""

    @classmethod
    def classes(cls) -> tuple[type[nn.Module], ...]:
        return (nn.GRUCell,)

    def _step(self, input: Tensor, state: Tensor) -> Tensor:
        return _gru_state(self.input(input), self.recurrent(state), state)


class OpenedRNNCell(OpenedCell):
    """`nn.RNNCell`, with tanh or ReLU."""

    def __init__(self, module: nn.RNNCell) -> None:
        super().__init__(module)
        self.nonlinearity = module.nonlinearity

    @classmethod
    def classes(cls) -> tuple[type[nn.Module], ...]:
        return (nn.RNNCell,)

    def _step(self, input: Tensor, state: Tensor) -> Tensor:
        return _rnn_state(self.input(input) + self.recurrent(state), self.nonlinearity)


# ---- the next state ----------------------------------------------------------------------------------------


def _lstm_state(sums: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """The next output and cell, from the sums at the four gates, … × 4 hidden, and the cell before."""
    entry, forget, cell, exit = sums.chunk(4, -1)
    c = forget.sigmoid() * c + entry.sigmoid() * cell.tanh()
    return exit.sigmoid() * c.tanh(), c


def _gru_state(inputs: Tensor, states: Tensor, h: Tensor) -> Tensor:
    """The next state, from what the inputs and the state h before give to the three gates, each … × 3 hidden."""
    reset, update, new = inputs.chunk(3, -1)
    from_reset, from_update, from_new = states.chunk(3, -1)
    new = (new + (reset + from_reset).sigmoid() * from_new).tanh()
    return torch.lerp(new, h, (update + from_update).sigmoid())


def _rnn_state(sums: Tensor, nonlinearity: str) -> Tensor:
    return sums.tanh() if nonlinearity == "tanh" else sums.relu()


def _of_rows(states: list[Tensor], rows: Tensor | None) -> list[Tensor]:
    return states if rows is None else [each.index_select(1, rows) for each in states]


def _beside(after: Tensor, before: Tensor) -> Tensor:
    return torch.cat([after, before[len(after) :]]) if len(after) < len(before) else after
