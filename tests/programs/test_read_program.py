"""A network out of a file of torch.export.save: its layers are modules, and it computes what the original does."""

from __future__ import annotations

import copy
import inspect
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rank_search.errors import TaskError
from rank_search.programs import example_of_program, read_program, takes_any_batch
from tests.program_files import ANY_BATCH, decomposed, exported, normed, saved

LEVELS = {"for training": lambda program: program, "decomposed": decomposed}


@pytest.fixture(params=LEVELS)
def level(request: pytest.FixtureRequest) -> Callable[..., Any]:
    return LEVELS[request.param]


class Convolutions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Conv1d(2, 6, 3, padding="same", padding_mode="zeros")
        self.line_norm = nn.BatchNorm1d(6, affine=False)
        self.plane = nn.Conv2d(6, 6, (1, 3), groups=3, dilation=2, padding=2)
        self.up = nn.ConvTranspose2d(6, 4, 3, stride=2, output_padding=1, groups=2)
        self.space = nn.Conv3d(1, 3, 2, bias=False)
        self.last_norm = nn.BatchNorm3d(3)
        self.wide = nn.ConvTranspose1d(3, 2, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.line_norm(self.line(x)))
        x = self.up(F.gelu(self.plane(x.unsqueeze(2))))
        x = self.last_norm(self.space(x.unsqueeze(1)))
        found: Tensor = self.wide(x.flatten(2))
        return found


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(11, 6, padding_idx=0)
        self.norm = nn.LayerNorm(6)
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)
        self.head = nn.Linear(6, 11, bias=False)
        self.head.weight = self.table.weight
        self.register_buffer("scale", torch.full((), 3.0), persistent=False)

    def forward(self, ids: Tensor, shift: Tensor, factor: float = 1.0) -> dict[str, Any]:
        x = self.norm(self.table(ids)) + shift
        x = x + self.attention(x, x, x, need_weights=False)[0]
        left, right = x.split(3, -1)
        return {"logits": self.head(torch.cat([right, left], -1)) * self.scale * factor, "parts": (left, [right])}


def test_a_network_of_batch_norms_is_itself_again(tmp_path: Path, level: Callable[..., Any]) -> None:
    network, x = normed(), torch.randn(5, 1, 6, 6)
    program = exported(network, torch.randn(2, 1, 6, 6), shapes=ANY_BATCH)
    found = read_program(saved(level(program), tmp_path / "model.pt2"))
    with torch.no_grad():
        assert torch.allclose(found(x), network(x), rtol=0, atol=1e-6)
        assert torch.allclose(found(x=x), network(x), rtol=0, atol=1e-6)
    assert not found.training
    own = {name: type(each) for name, each in network.named_modules() if list(each.parameters(recurse=False))}
    again = {name: type(each) for name, each in found.named_modules() if list(each.parameters(recurse=False))}
    assert list(again.items()) == list(own.items())
    assert str(found.first) == str(network.first)
    assert str(found.norm) == str(network.norm)
    assert all(torch.equal(each, found.state_dict()[name]) for name, each in network.state_dict().items())
    assert takes_any_batch(found)
    example = example_of_program(found)
    assert isinstance(example, Tensor)
    assert example.shape == (1, 1, 6, 6)


def test_its_layers_can_be_replaced(tmp_path: Path, level: Callable[..., Any]) -> None:
    network, x = normed(), torch.randn(3, 1, 6, 6)
    program = exported(network, torch.randn(2, 1, 6, 6), shapes=ANY_BATCH)
    found = read_program(saved(level(program), tmp_path / "model.pt2"))
    for each in (network, found):
        torch.manual_seed(1)
        each.last = nn.Sequential(nn.Linear(12, 2, bias=False), nn.Linear(2, 4))
    with torch.no_grad():
        assert torch.allclose(found(x), network(x), rtol=0, atol=1e-6)


def test_training_moves_its_batch_norms_alone(tmp_path: Path) -> None:
    network, x = normed(), torch.randn(6, 1, 6, 6)
    program = exported(network, torch.randn(2, 1, 6, 6), shapes=ANY_BATCH)
    found = read_program(saved(program, tmp_path / "model.pt2")).train()
    assert torch.allclose(found(x), network.train()(x), rtol=0, atol=1e-6)
    assert torch.allclose(found.norm.running_mean, network.norm.running_mean)


def test_a_batch_norm_that_averages_over_all_batches(tmp_path: Path, level: Callable[..., Any]) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4, momentum=None))
    network(torch.randn(8, 4))
    program = level(exported(network.eval(), torch.randn(2, 4), shapes=ANY_BATCH))
    found, x = read_program(saved(program, tmp_path / "model.pt2")), torch.randn(8, 4)
    for each in (network, found):
        each.train()(x)
    assert torch.allclose(found.get_buffer("1.running_mean"), network.get_buffer("1.running_mean"))


def test_all_kinds_of_convolutions(tmp_path: Path, level: Callable[..., Any]) -> None:
    torch.manual_seed(0)
    network = Convolutions()
    network(torch.randn(8, 2, 9))
    network.eval()
    program = level(exported(network, torch.randn(2, 2, 9), shapes=ANY_BATCH))
    found, x = read_program(saved(program, tmp_path / "model.pt2")), torch.randn(3, 2, 9)
    with torch.no_grad():
        assert torch.allclose(found(x), network(x), rtol=0, atol=1e-5)
    assert {name: type(each) for name, each in found.named_children()} == {
        name: type(each) for name, each in network.named_children()
    }


def test_ties_containers_and_constants(tmp_path: Path, level: Callable[..., Any]) -> None:
    torch.manual_seed(0)
    network = Tied().eval()
    auto = {0: torch.export.Dim.AUTO, 1: torch.export.Dim.AUTO}
    shapes = {"ids": auto, "shift": None, "factor": None}
    given = {"shift": torch.randn(6), "factor": 2.0}
    program = level(exported(network, torch.zeros(2, 5, dtype=torch.int64), named=given, shapes=shapes))
    found = read_program(saved(program, tmp_path / "model.pt2"))
    ids, shift = torch.randint(0, 11, (3, 7)), torch.randn(6)
    with torch.no_grad():
        expected, computed = network(ids, shift, 2.0), found(ids, shift=shift)
    assert torch.allclose(computed["logits"], expected["logits"], rtol=0, atol=1e-4)
    assert torch.allclose(computed["parts"][1][0], expected["parts"][1][0], rtol=0, atol=1e-5)
    assert isinstance(computed["parts"], tuple)
    assert found.table.weight is found.head.weight
    assert isinstance(found.attention.out_proj, nn.Linear)
    assert found.state_dict().keys() == network.state_dict().keys()
    assert isinstance(example := example_of_program(found), dict)
    assert {name: each.shape for name, each in example.items()} == {"ids": (1, 5), "shift": (6,)}


def test_tied_layers_can_be_replaced(tmp_path: Path, level: Callable[..., Any]) -> None:
    class Words(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.head = nn.Embedding(11, 6), nn.Linear(6, 11, bias=False)
            self.head.weight = self.table.weight

        def forward(self, ids: Tensor) -> Tensor:
            found: Tensor = self.head(self.table(ids).sin())
            return found

    network, ids = Words().eval(), torch.randint(0, 11, (3, 5))
    program = level(exported(network, torch.zeros(2, 5, dtype=torch.int64), shapes=ANY_BATCH))
    found = read_program(saved(program, tmp_path / "model.pt2"))
    for each in (network, found):
        torch.manual_seed(1)
        each.table = nn.Sequential(nn.Embedding(11, 2), nn.Linear(2, 6))
        each.head = nn.Sequential(nn.Linear(6, 2, bias=False), nn.Linear(2, 11))
    with torch.no_grad():
        assert torch.allclose(found(ids), network(ids), rtol=0, atol=1e-6)


def test_it_can_be_copied_and_pickled_as_any_network(tmp_path: Path, level: Callable[..., Any]) -> None:
    program = level(exported(normed(), torch.randn(2, 1, 6, 6), shapes=ANY_BATCH))
    found, x = read_program(saved(program, tmp_path / "model.pt2")), torch.randn(3, 1, 6, 6)
    for again in (copy.deepcopy(found), pickle.loads(pickle.dumps(found))):
        assert torch.equal(again(x), found(x))
        assert list(inspect.signature(again.forward).parameters) == ["x"]
        nn.init.zeros_(again.last.weight)
        assert not torch.equal(again(x), found(x))


def test_a_parameter_that_more_than_its_layer_uses_stays_in_the_graph(tmp_path: Path) -> None:
    class Decayed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.other = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.one(x) + self.other(x) + self.one.weight.sum()

    network, x = Decayed().eval(), torch.randn(3, 4)
    found = read_program(saved(exported(network, torch.randn(2, 4), shapes=ANY_BATCH), tmp_path / "model.pt2"))
    assert not isinstance(found.one, nn.Linear)
    assert isinstance(found.other, nn.Linear)
    with torch.no_grad():
        assert torch.allclose(found(x), network(x))


class OwnBias(nn.Module):
    """The parameters of layers, used otherwise than their layers do."""

    def __init__(self) -> None:
        super().__init__()
        self.added, self.left = nn.Linear(6, 6), nn.Linear(6, 6)
        self.scaled, self.last = nn.BatchNorm1d(6), nn.Linear(6, 3)
        nn.init.constant_(self.scaled.weight, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(F.linear(x, self.added.weight) + self.added.bias)
        x = torch.relu(F.linear(x, self.left.weight))
        x = F.batch_norm(x, self.scaled.running_mean, self.scaled.running_var) * self.scaled.weight  # type: ignore
        found: Tensor = self.last(x)
        return found


class Frozen(nn.Module):
    """A batch norm, and a linear map, of buffers alone."""

    def __init__(self) -> None:
        super().__init__()
        for name, value in {"weight": 2.0, "bias": 1.0, "running_mean": 0.5, "running_var": 4.0}.items():
            self.register_buffer(name, torch.full((6,), value))
        self.map = nn.Module()
        self.map.register_buffer("weight", torch.randn(3, 6))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias), self.map.weight)


class Block(nn.Module):
    """A weight of its own, and a layer inside."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.weight = nn.Linear(6, 6), nn.Parameter(torch.randn(3, 6))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(self.inner(x), self.weight)


@pytest.mark.parametrize(
    ("network", "layers"),
    [
        (lambda: OwnBias(), {"last"}),
        (lambda: Frozen(), set()),
        (lambda: nn.Sequential(Block()), {"0.inner"}),
    ],
)
def test_a_module_that_would_compute_something_else_is_not_made(
    tmp_path: Path, level: Callable[..., Any], network: Callable[[], nn.Module], layers: set[str]
) -> None:
    torch.manual_seed(0)
    original, x = network().eval(), torch.randn(5, 6)
    program = level(exported(original, torch.randn(2, 6), shapes=ANY_BATCH))
    found = read_program(saved(program, tmp_path / "model.pt2"))
    with torch.no_grad():
        assert torch.allclose(found(x), original(x), rtol=0, atol=1e-6)
    assert {name for name, each in found.named_modules() if isinstance(each, nn.Linear | nn.BatchNorm1d)} == layers


def test_a_layer_that_is_called_twice_is_one(tmp_path: Path, level: Callable[..., Any]) -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            found: Tensor = self.layer(torch.tanh(self.layer(x)))
            return found

    network, x = Twice().eval(), torch.randn(3, 4)
    program = level(exported(network, torch.randn(2, 4), shapes=ANY_BATCH))
    found = read_program(saved(program, tmp_path / "model.pt2"))
    assert [name for name, _ in found.named_parameters()] == ["layer.weight", "layer.bias"]
    assert isinstance(found.layer, nn.Linear)
    with torch.no_grad():
        assert torch.allclose(found(x), network(x), rtol=0, atol=1e-6)


def test_any_number_of_inputs(tmp_path: Path, level: Callable[..., Any]) -> None:
    class Weighted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.other = nn.Linear(4, 3), nn.Linear(5, 3)

        def forward(self, x: Tensor, *rest: Tensor) -> Tensor:
            found: Tensor = self.one(x) * self.other(rest[0]) + rest[1]
            return found

    network, sizes = Weighted().eval(), ({0: torch.export.Dim("batch")},) * 3
    given = [torch.randn(2, each) for each in (4, 5, 3)]
    program = level(exported(network, *given, shapes=(sizes[0], sizes[1:])))
    found, inputs = read_program(saved(program, tmp_path / "model.pt2")), [each.repeat(3, 1) for each in given]
    with torch.no_grad():
        assert torch.allclose(found(*inputs), network(*inputs), rtol=0, atol=1e-6)
    assert isinstance(example := example_of_program(found), tuple)
    assert [each.shape for each in example] == [(1, 4), (1, 5), (1, 3)]
    with pytest.raises(ValueError, match="'rest_1' has size 2 in dimension 0, but input 'x' has size 6"):
        found(*inputs[:2], given[2])


def test_sizes_it_was_not_exported_for_are_refused(tmp_path: Path) -> None:
    program = exported(normed(), torch.randn(1, 1, 6, 6))
    found = read_program(saved(program, tmp_path / "model.pt2"))
    assert not takes_any_batch(found)
    with pytest.raises(ValueError, match="'x' has size 2 in dimension 0; it was exported for size 1 there"):
        found(torch.randn(2, 1, 6, 6))
    with pytest.raises(TypeError, match="given 2 inputs; it takes 1: x"):
        found(torch.randn(1, 1, 6, 6), torch.randn(1))


class Dropped(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Linear(4, 4), nn.Dropout(0.5))


class Counter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.seen.add_(1)
        return x * self.seen


class Gradients(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            x = x.sin()
        return x.cos()


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.ones(4).to(torch.float8_e4m3fn))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale.to(x.dtype)


class Expanded(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.ones(1).expand(4))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


class Nested(nn.Module):
    def forward(self, x: list[Tensor]) -> Tensor:
        return x[0]


@pytest.mark.parametrize(
    ("network", "said"),
    [
        (lambda: normed().train(), "as in training. Export the network after model.eval()"),
        (lambda: Dropped().train(), "aten.dropout.default is that of a network in training"),
        (lambda: Gradients().eval(), "wrap_with_set_grad_enabled'. Save program.run_decompositions() in its place"),
        (lambda: Small().eval(), "it uses the dtype that PyTorch's format has as number 29"),
        (lambda: Expanded().eval(), "make it contiguous before the export"),
    ],
)
def test_what_is_not_read_is_named(tmp_path: Path, network: Callable[[], nn.Module], said: str) -> None:
    file = saved(exported(network(), torch.randn(4, 1, 6, 4)), tmp_path / "model.pt2")
    with pytest.raises(TaskError, match="cannot be read") as caught:
        read_program(file)
    assert said in str(caught.value)


def test_no_grad_inside_is_read_once_it_is_decomposed(tmp_path: Path) -> None:
    program = decomposed(exported(Gradients(), torch.randn(2), shapes=ANY_BATCH))
    found, x = read_program(saved(program, tmp_path / "model.pt2")), torch.randn(5)
    assert torch.allclose(found(x), x.sin().cos())


def test_a_buffer_that_a_forward_changes(tmp_path: Path) -> None:
    program = exported(Counter(), torch.ones(2))
    found = read_program(saved(program, tmp_path / "model.pt2"))
    assert [float(found(torch.ones(2))[0]) for _ in range(3)] == [1, 2, 3]
    with pytest.raises(TaskError, match="it changes its own 'seen' in each forward"):
        read_program(saved(decomposed(program), tmp_path / "decomposed.pt2"))


def test_inputs_in_containers_are_refused(tmp_path: Path) -> None:
    file = saved(exported(Nested(), [torch.randn(2)]), tmp_path / "model.pt2")  # type: ignore[arg-type]
    with pytest.raises(TaskError, match="tensors in containers"):
        read_program(file)
