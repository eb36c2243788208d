"""Sequential calibration: each block is fitted to what the factorized blocks before it give."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import rank_search as rs
from rank_search.errors import TaskError
from rank_search.layers import DirectBases, factorize, opened_for, weight_of
from rank_search.options.in_order import block_of, factorize_in_order
from rank_search.point import Choice, Point
from rank_search.quantization import reestimate_on
from rank_search.tasks import ForwardPass, LossAlone, LossPass
from tests.layers.test_tied import Speaker
from tests.layers.test_tied import batches as tokens
from tests.layers.test_tied import made as spoken
from tests.options.test_of_model import X, images, network

WIDTH = 12


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.back, self.into = nn.Linear(20, WIDTH), nn.Linear(WIDTH, 20)  # not in the order in which they run

    def forward(self, x: Tensor) -> Tensor:
        return x + self.back(torch.relu(self.into(x)))  # type: ignore[no-any-return]


class Residual(nn.Module):
    """Two blocks and a head, and a layer that runs for one example alone."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.alone = nn.Linear(WIDTH, 16), nn.Linear(WIDTH, WIDTH)
        self.blocks = nn.ModuleList([Block(), Block()])

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        x = self.alone(x) if len(x) == 1 else x
        return self.head(x)  # type: ignore[no-any-return]


class Grouped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1, groups=2)
        self.last = nn.Linear(16, 24)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.relu(self.second(torch.relu(self.first(x)))).mean((2, 3)))  # type: ignore[no-any-return]


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(WIDTH, 16, batch_first=True), nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x)[0])  # type: ignore[no-any-return]


class Attending(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.attention = nn.Linear(WIDTH, WIDTH), nn.MultiheadAttention(WIDTH, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        seen = self.first(x)
        return self.attention(seen, seen, seen, need_weights=False)[0]  # type: ignore[no-any-return]


def drawn(kind: type[nn.Module]) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return kind().eval()


def sequences(count: int = 3) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(8, 6, WIDTH, generator=generator).cumsum(-1) for _ in range(count)]


def halves(table: rs.OptionTable) -> dict[str, Choice]:
    """The closest form with at most half of its parameters for each layer that has one."""
    found: dict[str, Choice] = {}
    for options in table.of.values():
        small = [each for each in options[1:] if each.params <= options[0].params / 2]
        if small:
            found |= min(small, key=lambda each: each.error).choices
    return found


def by_hand(
    model: nn.Module,
    choices: Mapping[str, Choice],
    table: rs.OptionTable,
    batches: Sequence[Tensor],
    blocks: Sequence[Sequence[str]],
    gradients: Mapping[str, Tensor] | None = None,
) -> nn.Module:
    """A new model for every block, in which those before it are factorized; moments from all inputs at once."""
    done: dict[str, DirectBases] = {}
    parts = table.fits.layers, table.fits.plugins
    for block in blocks:
        point = Point({name: choices[name] for name in done})
        now = opened_for(factorize(model, point, *parts, done.__getitem__), block).eval()
        if done:
            reestimate_on(now, batches)
        for name, seen in inputs(now, block, batches).items():
            groups = table.fits.layers[name].groups
            moments = [(x.T @ x / len(x)).float() for x in seen.chunk(groups, dim=1)]
            moment = moments[0] if groups == 1 else torch.stack(moments)
            done[name] = DirectBases(weight_of(model, name), moment, (gradients or {}).get(name), groups)
    made = factorize(model, Point({name: choices[name] for name in done}), *parts, done.__getitem__).eval()
    reestimate_on(made, batches)
    return made


def inputs(model: nn.Module, names: Sequence[str], batches: Sequence[Tensor]) -> dict[str, Tensor]:
    """All columns that these layers see, in float64."""
    seen: dict[str, list[Tensor]] = {name: [] for name in names}

    def hook(name: str, module: nn.Module, x: Tensor) -> None:
        is_convolution = isinstance(module, nn.Conv2d)
        rows = F.unfold(x, 3, padding=1).transpose(1, 2) if is_convolution else x
        seen[name].append(rows.reshape(-1, rows.shape[-1]).double())

    handles = [
        model.get_submodule(name).register_forward_pre_hook(
            lambda module, given, name=name: hook(name, module, given[0])
        )
        for name in names
    ]
    with torch.no_grad():
        for batch in batches:
            model(batch)
    for handle in handles:
        handle.remove()
    return {name: torch.cat(each) for name, each in seen.items()}


def assert_same(one: nn.Module, other: nn.Module) -> None:
    expected = other.state_dict()
    assert one.state_dict().keys() == expected.keys()
    for name, tensor in one.state_dict().items():
        torch.testing.assert_close(tensor, expected[name], rtol=2e-3, atol=2e-4, msg=name)


def differ(one: nn.Module, other: nn.Module, name: str) -> bool:
    first, second = (each.get_submodule(name).dense() for each in (one, other))  # type: ignore[operator]
    return not torch.allclose(first, second, rtol=1e-2, atol=1e-3)


def test_a_block_sees_what_the_factorized_blocks_before_it_give() -> None:
    model, batches = drawn(Residual), sequences()
    table = rs.options(model, batches, example=batches[0][:1], layers={"exclude": ["alone"]})
    choices = halves(table)
    blocks = [["blocks.0.into", "blocks.0.back"], ["blocks.1.into", "blocks.1.back"], ["head"]]
    assert {name for block in blocks for name in block} == set(choices)
    made = rs.factorize(model, choices, table, batches, sequential=True)
    assert_same(made, by_hand(model, choices, table, batches, blocks))
    plain = rs.factorize(model, choices, table, batches)
    assert not differ(made, plain, "blocks.0.back")  # of one block: it sees what dense layers of its block give
    assert differ(made, plain, "blocks.1.into")
    assert differ(made, plain, "head")


def test_its_outputs_are_closer_there() -> None:
    model, batches = drawn(Residual), sequences()
    table = rs.options(model, batches, example=batches[0][:1], layers={"exclude": ["alone"]})
    choices = halves(table)
    made = rs.factorize(model, choices, table, batches, sequential=True)
    plain = rs.factorize(model, choices, table, batches)
    (x,) = inputs(made, ["head"], batches).values()
    errors = []
    for each in (made, plain):
        form = each.get_submodule("head").dense().detach()  # type: ignore[operator]
        errors.append(float((x @ (form - weight_of(model, "head")).double().T).square().sum()))
    assert errors[0] < 0.99 * errors[1]


@pytest.mark.parametrize(
    ("make", "names"), [(network, ["0", "3", "8"]), (lambda: drawn(Grouped), ["first", "second", "last"])]
)
def test_convolutions_grouped_ones_and_those_behind_batch_norms_with_statistics_taken_again(
    make: Callable[[], nn.Module], names: list[str]
) -> None:
    model, batches = make(), images()
    table = rs.options(model, batches, example=X, layers={"factorizations": ["svd", "tucker2", "svd-spatial"]})
    choices = halves(table)
    assert set(choices) == set(names)
    made, plain = (rs.factorize(model, choices, table, batches, sequential=each) for each in (True, False))
    assert_same(made, by_hand(model, choices, table, batches, [[name] for name in names]))
    assert all(differ(made, plain, name) for name in names[1:])


def test_an_embedding_is_fitted_to_how_often_its_rows_are_looked_up() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Embedding(40, WIDTH), nn.Linear(WIDTH, 16)).eval()
    batches = tokens()
    table = rs.options(model, batches, example=batches[0][:1])
    choices = {"0": Choice("svd", {"rank": 4}), "1": Choice("svd", {"rank": 3})}
    made, plain = (rs.factorize(model, choices, table, batches, sequential=each) for each in (True, False))
    assert not differ(made, plain, "0")
    x = torch.cat([made[0](ids) for ids in batches]).flatten(0, 1).double()  # type: ignore[index]
    known = DirectBases(weight_of(model, "1"), (x.T @ x / len(x)).float())
    parts = table.fits.layers, table.fits.plugins
    assert not differ(made, factorize(model, Point({"1": choices["1"]}), *parts, lambda name: known), "1")
    assert differ(made, plain, "1")


def test_fits_to_the_loss_keep_what_the_loss_sees_of_the_dense_model() -> None:
    model, batches = drawn(Residual), sequences()

    def loss(model: nn.Module, batch: Tensor) -> Tensor:
        return model(batch).logsumexp(-1).mean()  # type: ignore[no-any-return]

    table = rs.options(model, batches, example=batches[0][:1], layers={"exclude": ["alone"]}, loss=loss)
    choices = halves(table)
    gradients = {name: table.fits.bases(name).gradients for name in choices}  # type: ignore[attr-defined]
    blocks = [["blocks.0.into", "blocks.0.back"], ["blocks.1.into", "blocks.1.back"], ["head"]]
    made = rs.factorize(model, choices, table, batches, sequential=True)
    for name, tensor in by_hand(model, choices, table, batches, blocks, gradients).state_dict().items():
        torch.testing.assert_close(made.state_dict()[name], tensor, rtol=1e-2, atol=1e-2, msg=name)
    assert differ(made, rs.factorize(model, choices, table, batches), "blocks.1.into")


@pytest.mark.parametrize(
    ("kind", "blocks"),
    [
        (Recurrent, [["lstm.input_0"], ["lstm.recurrent_0"], ["head"]]),
        (Attending, [["first"], ["attention.q"], ["attention.k"], ["attention.v"], ["attention.o"]]),
    ],
)
def test_layers_in_opened_modules(kind: type[nn.Module], blocks: list[list[str]]) -> None:
    model, batches = drawn(kind), sequences()
    table = rs.options(model, batches, example=batches[0][:1], round_to=1)
    choices = halves(table)
    chosen = [[name for name in block if name in choices] for block in blocks]
    assert {name for block in chosen for name in block} == set(choices)
    made = rs.factorize(model, choices, table, batches, sequential=True)
    assert_same(made, by_hand(model, choices, table, batches, [block for block in chosen if block]))
    assert differ(made, rs.factorize(model, choices, table, batches), chosen[-1][0])


def test_a_tied_weight_is_fitted_before_its_first_use() -> None:
    model, batches = spoken(Speaker), tokens()
    table = rs.options(model, batches, example=batches[0][:1])
    choices = {"head": Choice("svd", {"rank": 5}), "inner": Choice("svd", {"rank": 4})}
    assert ForwardPass(batches).order(model, table.fits.layers) == ["head", "inner"]
    made, plain = (rs.factorize(model, choices, table, batches, sequential=each) for each in (True, False))
    assert not differ(made, plain, "head")
    head = {"head": choices["head"]}
    between = rs.factorize(model, head, table, batches)
    x = inputs(between, ["inner"], batches)["inner"]
    known = DirectBases(weight_of(model, "inner"), (x.T @ x / len(x)).float())
    expected = factorize(
        model, Point({"inner": choices["inner"]}), table.fits.layers, table.fits.plugins, lambda name: known
    )
    assert not differ(made, expected, "inner")
    assert differ(made, plain, "inner")


def test_a_layer_that_no_batch_reaches_keeps_its_fit(caplog: pytest.LogCaptureFixture) -> None:
    model, batches = drawn(Residual), sequences()
    table = rs.options(model, batches, example=batches[0][:1])
    choices = halves(table) | {"alone": Choice("svd", {"rank": 3})}
    caplog.clear()
    made, plain = (rs.factorize(model, choices, table, batches, sequential=each) for each in (True, False))
    assert not differ(made, plain, "alone")
    assert differ(made, plain, "head")
    assert not caplog.records  # it was said when the table was made


class Counted(list[Tensor]):
    """Batches that know how often they were gone through."""

    passes = 0

    def __iter__(self) -> Iterator[Tensor]:
        self.passes += 1
        return super().__iter__()


def test_what_is_known_of_the_dense_model_is_not_looked_at_again() -> None:
    model, batches = drawn(Residual), Counted(sequences())
    table = rs.options(model, batches, example=batches[0][:1], layers={"exclude": ["alone"]})
    choices, fits = halves(table), table.fits
    expected = rs.factorize(model, choices, table, batches, sequential=True)
    looking = LossPass(LossAlone(model, batches[0][:1], batches, lambda net, batch: net(batch).sum()), len(batches))
    knowing = replace(looking, known_order=tuple(looking.order(model, fits.layers)))
    for calibration, passes in ((looking, 3), (knowing, 2)):  # for the order, and for the blocks behind the first
        batches.passes = 0
        made = factorize_in_order(model, Point(choices), fits.layers, fits.plugins, fits.bases, calibration)
        assert batches.passes == passes
        assert_same(made, expected)


def test_the_models_are_left_as_they_are() -> None:
    model, batches = drawn(Residual), sequences()
    table = rs.options(model, batches, example=batches[0][:1], layers={"exclude": ["alone"]})
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    made = rs.factorize(model, halves(table), table, batches, sequential=True)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    for module in (*model.modules(), *made.modules()):
        assert "forward" not in vars(module)
        assert not module._forward_pre_hooks
    same = rs.factorize(model, {}, table, batches, sequential=True)
    assert_same(same, model)


def test_without_batches_there_is_no_order() -> None:
    model = drawn(Residual)
    table = rs.options(model, example=sequences()[0][:1])
    with pytest.raises(TaskError, match="there are none"):
        rs.factorize(model, halves(table), table, sequential=True)


@pytest.mark.parametrize(
    ("name", "block"),
    [
        ("transformer.h.11.attn.c_attn.2of3", "transformer.h.11"),
        ("layer1.0.conv2", "layer1.0"),
        ("decoder.block.3.layer.1.EncDecAttention.q", "decoder.block.3.layer.1"),
        ("lstm.recurrent_0", "lstm.recurrent_0"),
        ("7", "7"),
    ],
)
def test_a_block_is_what_shares_a_number(name: str, block: str) -> None:
    assert block_of(name) == block
