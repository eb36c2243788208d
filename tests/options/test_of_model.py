"""The four functions on a model in memory: the table, the allocation, the fitted model, and what it is made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import rank_search as rs
from rank_search.errors import LayerError, TaskError
from rank_search.layers import DirectBases, load_plugin
from rank_search.layers import factorize as factorize_from_bases
from rank_search.layers.costs import count_macs, count_params
from rank_search.options.of_model import LOOKED_AT
from rank_search.point import DENSE

X = torch.zeros(1, 3, 8, 8)


def network() -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 12, 3, padding=1),
            nn.BatchNorm2d(12),
            nn.ReLU(),
            nn.Conv2d(12, 16, 3, padding=1),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(64, 24),
        ).eval()


def images(count: int = 3) -> list[Tensor]:
    drawn = torch.Generator().manual_seed(1)
    return [torch.randn(16, 3, 8, 8, generator=drawn).cumsum(-1).relu() for _ in range(count)]


@pytest.fixture(scope="module")
def model() -> nn.Sequential:
    return network()


@pytest.fixture(scope="module")
def table(model: nn.Sequential) -> rs.OptionTable:
    return rs.options(model, images(), example=X)


@pytest.fixture(scope="module")
def blind(model: nn.Sequential) -> rs.OptionTable:
    return rs.options(model, example=X)


def inputs_of(model: nn.Module, layer: str) -> Tensor:
    """What the layer is called with on the images."""
    seen: list[Tensor] = []
    handle = model.get_submodule(layer).register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        for batch in images():
            model(batch)
    handle.remove()
    return torch.cat(seen)


def some(table: rs.OptionTable) -> list[rs.Option]:
    """A few options of each layer, of each factorization."""
    return [option for options in table.of.values() for option in options[1::9]]


def test_a_cost_is_that_of_the_module_that_is_made(model: nn.Sequential, table: rs.OptionTable) -> None:
    dense = {"params": count_params(model), "macs": count_macs(model, [X])}
    assert table.dense == dense
    for option in some(table):
        made = rs.factorize(model, option.choices, table)
        (layer,) = option.choices
        rest = table.of[layer][0]
        assert count_params(made) == dense["params"] - rest.params + option.params
        assert count_macs(made, [X]) == dense["macs"] - rest.macs + option.macs


def test_an_error_is_that_of_the_outputs_on_the_batches(model: nn.Sequential, table: rs.OptionTable) -> None:
    """The squared error of the layer's outputs without its bias, relative to their square, on the very inputs."""
    for option in some(table):
        ((layer, choice),) = option.choices.items()
        fitted = rs.factorize(model, {layer: choice}, table).get_submodule(layer)
        inputs, module = inputs_of(model, layer), model.get_submodule(layer)
        with torch.no_grad():
            bias = module(torch.zeros_like(inputs[:1]))
            wanted = (module(inputs) - bias).double()
            error = float((fitted(inputs) - module(inputs)).double().square().sum() / wanted.square().sum())
        assert option.error == pytest.approx(error, rel=1e-3, abs=1e-6), option


def test_without_batches_an_error_is_that_of_the_weights(model: nn.Sequential, blind: rs.OptionTable) -> None:
    for option in some(blind):
        ((layer, choice),) = option.choices.items()
        fitted = rs.factorize(model, {layer: choice}, blind).get_submodule(layer)
        assert isinstance(fitted, rs.Factorization)
        dense, weight = fitted.dense().detach(), model.get_submodule(layer).get_parameter("weight").detach()
        error = float((dense - weight).square().sum() / weight.square().sum())
        assert option.error == pytest.approx(error, rel=1e-3, abs=1e-6)


def test_a_fit_from_the_table_is_a_fit_from_bases_of_its_own(model: nn.Sequential, blind: rs.OptionTable) -> None:
    choice = rs.allocate(blind, macs=0.5)
    weights = {name: model.get_submodule(name).get_parameter("weight") for name in choice.layers}
    plugins = {name: load_plugin(name) for name in ("svd", "tucker2")}
    layers = blind.fits.layers
    direct = factorize_from_bases(model, choice.point, layers, plugins, lambda name: DirectBases(weights[name]))
    for (name, ours), theirs in zip(
        rs.factorize(model, choice, blind).state_dict().items(), direct.state_dict().values(), strict=True
    ):
        assert torch.equal(ours, theirs), name


def test_each_weight_is_decomposed_once(model: nn.Sequential, monkeypatch: pytest.MonkeyPatch) -> None:
    from rank_search.priors import cache

    decomposed: list[tuple[int, ...]] = []
    whole = cache.decompose
    monkeypatch.setattr(cache, "decompose", lambda matrix: decomposed.append(tuple(matrix.shape)) or whole(matrix))
    table = rs.options(model, example=X)
    made = len(decomposed)
    assert 0 < made == len(set(decomposed))
    for each in rs.allocate(table)[::10]:
        rs.factorize(model, each, table)
    assert len(decomposed) == made


def test_the_model_stays_as_it_is_and_the_small_one_is_its_own() -> None:
    model = network().train()
    before = {name: each.clone() for name, each in model.state_dict().items()}
    table = rs.options(model, images(), example=X)
    small = rs.factorize(model, rs.allocate(table, macs=0.5), table, images())
    assert model.training
    assert not small.training
    assert not {id(each) for each in small.parameters()} & {id(each) for each in model.parameters()}
    with torch.no_grad():
        for each in small.parameters():
            each.zero_()
    assert all(torch.equal(each, before[name]) for name, each in model.state_dict().items())


def test_batch_norms_take_the_statistics_of_the_factorized_model(model: nn.Sequential, table: rs.OptionTable) -> None:
    choice = rs.allocate(table, macs=0.2)
    small = rs.factorize(model, choice, table, images())
    with torch.no_grad():
        means = torch.stack([small[0](batch).mean((0, 2, 3)) for batch in images()]).mean(0)
    torch.testing.assert_close(small.get_buffer("1.running_mean"), means, rtol=1e-4, atol=1e-5)
    assert small.get_submodule("1").momentum == 0.1  # type: ignore[comparison-overlap]
    kept = rs.factorize(model, choice, table)
    assert torch.equal(kept.get_buffer("1.running_mean"), model.get_buffer("1.running_mean"))


def test_an_allocation_a_point_and_choices_by_layer_make_the_same(model: nn.Sequential, table: rs.OptionTable) -> None:
    choice = rs.allocate(table, macs=0.5)
    outputs = [rs.factorize(model, each, table)(images(1)[0]) for each in (choice, choice.point, choice.layers)]
    assert torch.equal(outputs[0], outputs[1])
    assert torch.equal(outputs[0], outputs[2])


@pytest.mark.parametrize("moved", [{"device": "meta"}, {"dtype": torch.float64}], ids=str)
def test_a_model_that_was_moved_is_refused(table: rs.OptionTable, moved: dict[str, Any]) -> None:
    now = f"{str(moved.get('dtype', 'float32')).removeprefix('torch.')} on {moved.get('device', 'cpu')}"
    with pytest.raises(LayerError, match=rf"Layer '3' is {now}, and was float32 on cpu .* Make the table again"):
        rs.factorize(network().to(**moved), {"3": rs.Choice("svd", {"rank": 2})}, table)


def test_a_table_of_other_weights_is_refused(table: rs.OptionTable) -> None:
    model = network()
    with torch.no_grad():
        model[3].weight.mul_(1.01)
    with pytest.raises(LayerError, match=r"Layer '3' has other weights .* Make the table again"):
        rs.factorize(model, {"3": rs.Choice("svd", {"rank": 2})}, table)


def test_a_choice_that_does_not_fit_is_refused(model: nn.Sequential, table: rs.OptionTable) -> None:
    with pytest.raises(LayerError, match="nowhere"):
        rs.factorize(model, {"nowhere": rs.Choice("svd", {"rank": 2})}, table)
    with pytest.raises(LayerError, match="999"):
        rs.factorize(model, {"3": rs.Choice("svd", {"rank": 999})}, table)
    for rank in (1.5, 2.0, "2", None, [2]):
        with pytest.raises(LayerError, match="must be a whole number"):
            rs.factorize(model, {"3": rs.Choice("svd", {"rank": rank})}, table)
    with pytest.raises(LayerError, match=r"front of \d+ allocations, .* Take front\[i\]"):
        rs.factorize(model, rs.allocate(table), table)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"cuts": 1}, "cuts = 1 measures the loss, and none is given"),
        ({"cuts": -1}, "cuts is -1"),
        ({"batches": None, "loss": lambda model, batch: model(batch).sum()}, "no batches to take it on"),
        ({"layers": ["3"]}, "layers= is list"),
    ],
)
def test_what_would_be_ignored_is_refused(model: nn.Sequential, given: dict[str, Any], said: str) -> None:
    with pytest.raises(LayerError, match=said):
        rs.options(model, **{"batches": images(), "example": images()[0][:1], **given})


def pairs() -> list[Any]:
    return [(batch, torch.zeros(16)) for batch in images()]


def loader() -> Any:
    return DataLoader(TensorDataset(torch.cat(images()), torch.zeros(48)), 16)


@pytest.mark.parametrize(
    "batches",
    [pairs(), loader(), [list(pair) for pair in pairs()], [(batch,) for batch in images()], iter(images())],
    ids=["pairs", "loader", "lists", "alone", "iterator"],
)
def test_batches_are_inputs_or_begin_with_them(model: nn.Sequential, table: rs.OptionTable, batches: Any) -> None:
    found = rs.options(model, batches, example=X)
    assert [each.error for each in found] == [each.error for each in table]


class Sum(nn.Module):
    """Two inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Linear(16, 16), nn.Linear(16, 16)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.one(a) + self.other(b)


@pytest.mark.parametrize("form", [lambda a, b: (a, b), lambda a, b: ((a, b), a), lambda a, b: [a, b, a]])
def test_batches_of_a_model_with_two_inputs_are_two_tensors(form: Any) -> None:
    torch.manual_seed(0)
    model, a, b = Sum(), torch.randn(50, 16), torch.randn(50, 16) * torch.linspace(0, 3, 16)
    table = rs.options(model, [form(a, b)], example=(a[:1], b[:1]))
    expected = (b.T @ b / 50).float()
    moment = table.fits.bases("other").moment
    assert moment is not None
    torch.testing.assert_close(moment, expected)
    rs.factorize(model, rs.allocate(table, params=0.6), table, [form(a, b)])


def test_what_is_no_batch_is_refused(model: nn.Sequential) -> None:
    with pytest.raises(TaskError, match="found a dict"):
        rs.options(model, [{"images": X}], example=X)
    with pytest.raises(TaskError, match="batches are empty"):
        rs.options(model, [], example=X)
    with pytest.raises(TaskError, match="does not run on the inputs of batch 0"):
        rs.options(model, [torch.zeros(2, 5)], example=X)


def test_no_more_batches_are_taken_than_are_looked_at(model: nn.Sequential) -> None:
    batches = iter(images(1) * (LOOKED_AT + 2))
    rs.options(model, batches, example=X)
    assert len(list(batches)) == 2


def test_layers_are_chosen_as_in_a_study_file(model: nn.Sequential) -> None:
    table = rs.options(model, example=X, round_to=4, layers={"exclude": ["0"], "factorizations": ["svd"]})
    assert list(table.of) == ["3", "8"]
    chosen = [choice for option in table for choice in option.choices.values()]
    assert {choice.factorization for choice in chosen} == {DENSE, "svd"}
    assert all(choice.values["rank"] % 4 == 0 for choice in chosen if not choice.is_dense)
    with pytest.raises(LayerError, match=r"layers= is wrong: exclud.*exclude"):
        rs.options(model, example=X, layers={"exclud": ["0"]})
    with pytest.raises(LayerError, match="nothing"):
        rs.options(model, example=X, layers={"include": ["nothing"]})


def test_tied_layers_are_one_group() -> None:
    model = nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 32))
    table = rs.options(model, example=torch.zeros(1, 32), layers={"tie": [["*"]]})
    assert list(table.of) == ["0"]
    choice = rs.allocate(table, params=0.5)
    assert choice.layers["0"] == choice.layers["2"]
    assert "0, 2" in repr(table)


def test_what_is_cached_is_not_fitted_again(
    model: nn.Sequential, table: rs.OptionTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = rs.options(model, images(), example=X, cache=tmp_path)
    assert [each.error for each in first] == [each.error for each in table]

    def refuse(self: nn.Module, *args: object) -> None:
        raise ArithmeticError("fitted again")

    for name in ("svd", "tucker2"):
        monkeypatch.setattr(load_plugin(name), "fit", refuse)
    assert [each.error for each in rs.options(model, images(), example=X, cache=tmp_path)] == [
        each.error for each in first
    ]
    with pytest.raises(rs.RankSearchError, match="fitted again"):
        rs.options(model, example=X, cache=tmp_path)


def test_half_precision_counts_half_the_bits() -> None:
    model = nn.Sequential(nn.Linear(32, 32)).to(torch.bfloat16)
    table = rs.options(model, example=torch.zeros(1, 32, dtype=torch.bfloat16))
    assert table.dense_bits == 16 * 33 * 32
    found = rs.allocate(table, bits=0.5)
    assert found.bits == 16 * found.params
    assert found.bits <= table.dense_bits / 2


def test_a_table_shows_itself(table: rs.OptionTable) -> None:
    shown = repr(table).splitlines()
    assert len(shown) == 2 + len(table.of)
    assert shown[0].startswith(f"{len(table)} options for 3 layers")
    assert table._repr_html_().count("<tr>") == 1 + len(table.of)
    frame = table.to_pandas()
    assert list(frame.columns) == ["group", "layer", "form", "params", "macs", "error"]
    assert frame["error"].tolist() == [each.error for each in table]


def test_the_layers_of_the_small_model_cost_what_was_allocated(model: nn.Sequential, table: rs.OptionTable) -> None:
    choice = rs.allocate(table, macs=0.4, params=0.5)
    found = rs.layers(rs.factorize(model, choice, table), X)
    assert (found.total.params, found.total.macs) == (choice.params, choice.macs)
    assert sum(row.params for row in found) == choice.params
    for name, chosen in choice.layers.items():
        assert found[name].values == chosen.values
        assert chosen.is_dense or found[name].kind == chosen.factorization
