"""Every parameter of a model is in a layer, or in a skipped row with a reason; what is no trained model is refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import rank_search as rs
from rank_search.errors import LayerError, TaskError
from rank_search.layers import Inventory, LayersSettings, count_params, take_inventory
from rank_search.layers.settings import LayerRule

X = torch.randn(3, 6, generator=torch.Generator().manual_seed(0))


class Conv1D(nn.Module):
    """GPT-2's linear layer, whose weight is in × out."""

    def __init__(self, out: int, entering: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(entering, out))
        self.bias = nn.Parameter(torch.zeros(out))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight + self.bias


class Own(nn.Module):
    """Parameters of its own beside modules."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.zeros(1, 6))
        self.conv1d, self.norm = Conv1D(6, 6), nn.LayerNorm(6)
        self.fc, self.tables = nn.Linear(6, 6), nn.ParameterList([torch.zeros(2, 2), torch.zeros(3)])

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.norm(self.conv1d(x + self.token)))  # type: ignore[no-any-return]


class Attends(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.attention = nn.Embedding(7, 4), nn.MultiheadAttention(4, 2, batch_first=True)
        self.rnn, self.head = nn.LSTM(4, 5, batch_first=True), nn.Linear(5, 7)
        self.tied = nn.Linear(4, 7)
        self.tied.weight = self.embed.weight

    def forward(self, x: Tensor) -> Tensor:
        h = self.embed(x)
        h = self.attention(h, h, h, need_weights=False)[0]
        return self.head(self.rnn(h)[0]) + self.tied(h)  # type: ignore[no-any-return]


def accounted(model: nn.Module, inventory: Inventory) -> int:
    layers = [model.get_submodule(name) for name in inventory.layers]
    return sum(map(count_params, layers)) + sum(each.params for each in inventory.skipped)


def weight_normed() -> nn.Module:
    return nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(6, 8)), nn.ReLU(), nn.Linear(8, 2))


@pytest.mark.parametrize(
    ("make", "example"),
    [
        (Own, X),
        (Attends, torch.zeros(1, 3, dtype=torch.long)),
        (weight_normed, X),
        (lambda: nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), nn.PReLU()), X),
        (lambda: torch.jit.script(nn.Sequential(nn.Linear(6, 6), nn.PReLU())), X),
    ],
)
@pytest.mark.filterwarnings("ignore:.*torch.jit.*is deprecated:DeprecationWarning")
def test_every_parameter_is_accounted_for_once(make: Callable[[], nn.Module], example: Tensor) -> None:
    model = make().eval()
    inventory = take_inventory(model, example)
    assert accounted(model, inventory) == count_params(model) == inventory.dense.params
    assert all(each.reason for each in inventory.skipped)


def test_parameters_outside_layers_have_rows_of_their_own() -> None:
    rows = {each.name: each for each in take_inventory(Own().eval(), X).skipped}
    assert list(rows) == ["token", "conv1d", "norm", "tables"]
    assert (rows["token"].kind, rows["token"].shape) == ("Parameter", (1, 6))
    assert "parameter of Own itself" in rows["token"].reason
    assert "Conv1D is not supported" in rows["conv1d"].reason
    assert rows["conv1d"].macs == 3 * 36
    assert "no matrix" in rows["norm"].reason


@pytest.mark.filterwarnings("ignore:.*torch.jit.*is deprecated:DeprecationWarning")
def test_a_scripted_module_is_named_as_such() -> None:
    model = torch.jit.script(nn.Sequential(nn.Linear(6, 6)))
    (row,) = take_inventory(model, X).skipped
    assert row.kind == "Linear"
    assert "scripted" in row.reason


def test_the_reason_of_a_parametrized_layer() -> None:
    assert "its weight is computed" in take_inventory(weight_normed().eval(), X).skipped[0].reason


def test_a_model_without_layers_gets_one_sentence() -> None:
    inventory = take_inventory(nn.Sequential(Conv1D(4, 6), nn.ReLU(), Conv1D(2, 4)).eval(), X)
    with pytest.raises(LayerError, match=r"no layer to factorize: Conv1D is not supported, .* \(0, 2\)"):
        inventory.require_layers()
    with pytest.raises(LayerError, match="no parameters"):
        take_inventory(nn.ReLU(), X).require_layers()
    take_inventory(nn.Sequential(nn.Linear(6, 2)), X).require_layers()


# ---- tied ----------------------------------------------------------------------------------------------


class Tied(nn.Module):
    def __init__(self, tie: Callable[[Tied], object]) -> None:
        super().__init__()
        self.a, self.b, self.out = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 2)
        tie(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.b(self.a(x)))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("tie", "names", "reason"),
    [
        (lambda m: setattr(m.b, "weight", nn.Parameter(m.a.weight.data)), ["a", "b"], "its weight is tied to b.weight"),
        (lambda m: setattr(m.b, "bias", m.a.bias), ["a", "b"], "its bias is tied to b.bias"),
        (lambda m: m.register_parameter("own", m.a.weight), ["a"], "its weight is tied to own"),
        (lambda m: m.register_buffer("own", m.a.bias.data), ["a"], "its bias is tied to own"),
        (lambda m: m.register_buffer("own", m.a.weight.data), ["a"], "its weight is tied to own"),
        (lambda m: setattr(m.b.weight, "data", m.a.weight.data.t()), ["a", "b"], "its weight is tied to b.weight"),
        (lambda m: m.out.register_parameter("own", m.a.weight), ["a", "out"], "its weight is tied to out.own"),
    ],
)
def test_a_layer_that_shares_a_tensor_is_skipped(tie: Callable[[Tied], object], names: list[str], reason: str) -> None:
    rows = {each.name: each.reason for each in take_inventory(Tied(tie).eval(), X).skipped}
    assert [name for name in rows if name != "own"] == names
    assert rows["a"] == reason


def test_parameters_beside_each_other_in_one_memory_are_not_tied() -> None:
    model = Tied(lambda m: None)
    flat = torch.randn(2, 6, 6)
    model.a.weight, model.b.weight = nn.Parameter(flat[0]), nn.Parameter(flat[1])
    assert list(take_inventory(model.eval(), X).layers) == ["a", "b", "out"]


# ---- what a replacement would lose, or cannot be made for ------------------------------------------------


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda layer: setattr(layer, "adapter", nn.Linear(6, 6)), "it holds adapter"),
        (lambda layer: layer.register_buffer("scale", torch.ones(1)), "it holds scale"),
        (lambda layer: layer.register_parameter("gain", nn.Parameter(torch.ones(1))), "it holds gain"),
        (lambda layer: layer.register_forward_hook(lambda *_: None), "hooks"),
        (lambda layer: layer.register_full_backward_hook(lambda *_: None), "hooks"),
        (lambda layer: setattr(layer, "forward", lambda x: x), "its forward has been set"),
    ],
)
def test_modules_inside_a_layer_are_accounted_for(change: Callable[[nn.Module], object], reason: str) -> None:
    model = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 2)).eval()
    change(model[0])
    inventory = take_inventory(model, X)
    assert "0" not in inventory.layers
    assert reason in next(each.reason for each in inventory.skipped if each.name == "0")
    assert accounted(model, inventory) == count_params(model)


class Empty(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.none, self.nothing = nn.Linear(6, 4), nn.Linear(0, 4), nn.Linear(6, 0)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.a(x) + self.none(x[:, :0]), self.nothing(x)], 1)


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors is a no-op:UserWarning")
def test_a_layer_of_no_inputs_or_no_outputs_is_skipped() -> None:
    inventory = take_inventory(Empty().eval(), X)
    assert list(inventory.layers) == ["a"]
    assert [each.reason for each in inventory.skipped] == ["it has no inputs", "it has no outputs"]


# ---- no trained model ------------------------------------------------------------------------------------


@pytest.mark.parametrize("look", [take_inventory, rs.layers])
def test_lazy_layers_without_weights_are_refused(look: Callable[[nn.Module, Tensor], object]) -> None:
    with pytest.raises(TaskError, match=r"not all set yet: 0\.weight, 0\.bias"):
        look(nn.Sequential(nn.LazyLinear(4)), X)


@pytest.mark.filterwarnings("ignore:Lazy modules are a new feature:UserWarning")
def test_lazy_layers_with_loaded_weights_are_layers() -> None:
    trained, lazy = nn.Sequential(nn.Linear(6, 4)), nn.Sequential(nn.LazyLinear(4))
    lazy.load_state_dict(trained.state_dict())
    assert take_inventory(lazy.eval(), X).layers["0"].shape == (4, 6)
    assert torch.equal(lazy(X), trained(X))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning")
def test_quantized_models_are_refused() -> None:
    model = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 2)).eval()
    quantized = torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)
    with pytest.raises(TaskError, match=r"quantized already \(0, 2\)"):
        take_inventory(quantized, X)


def test_exported_models_are_refused() -> None:
    exported = torch.export.export(nn.Sequential(nn.Linear(6, 2)).eval(), (X,)).module()
    with pytest.raises(TaskError, match=r"evaluation mode.*exported"):
        take_inventory(exported, X)


def test_a_state_of_something_else_is_refused() -> None:
    model = nn.Sequential(nn.Linear(6, 2))
    model[0].__class__ = type("Versioned", (nn.Linear,), {"get_extra_state": lambda self: {"version": 1}})
    with pytest.raises(TaskError, match="_extra_state is no ordinary tensor"):
        take_inventory(model, X)


def test_modes_come_back_module_by_module() -> None:
    model = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6)).train()
    model[1].eval()
    take_inventory(model, X)
    assert [module.training for module in model.modules()] == [True, True, False]


class InPlace(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.a(x.add_(1))  # type: ignore[no-any-return]


def test_the_example_is_not_changed() -> None:
    example = X.clone()
    take_inventory(InPlace().eval(), example)
    assert torch.equal(example, X)


# ---- names -----------------------------------------------------------------------------------------------


def test_a_name_as_it_is_listed_is_a_rule() -> None:
    model = nn.Sequential()
    for name in ("stage[0]", "stage[1]", "stage0"):
        model.add_module(name, nn.Linear(6, 6))
    layers = take_inventory(model.eval(), X).layers
    assert list(layers) == ["stage[0]", "stage[1]", "stage0"]
    assert list(take_inventory(model, X, exclude=["stage[0]"]).layers) == ["stage[1]"]
    assert list(take_inventory(model, X, exclude=["stage[[]?[]]"]).layers) == ["stage0"]
    assert list(take_inventory(model, X, include=["stage[[]0]"]).layers) == ["stage[0]"]
    rules = (LayerRule(match="stage[1]", factorizations=()),)
    settings = LayersSettings(factorizations=("svd",), rules=rules, tie=(("stage[1]", "stage[0]"),))
    assert settings.groups(layers) == {"stage[0]": ("stage[0]", "stage[1]", "stage0")}
