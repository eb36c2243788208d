"""Fused modules in a model: opened to be looked at, opened for good where a layer in them is factorized, else as is."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from rank_search_plugins.attention import OpenedAttention
from rank_search_plugins.recurrent import OpenedGRU
from torch import Tensor, nn

from rank_search.errors import BrokenPluginError, ContractError, LayerError
from rank_search.layers import (
    DirectBases,
    Example,
    Inventory,
    Opened,
    count_params,
    factorize,
    layer_by_layer,
    layer_in,
    layers,
    load_plugin,
    opened_for,
    openers,
    recompose,
    skeleton,
    take_inventory,
    weight_of,
)
from rank_search.layers.costs import count_macs
from rank_search.layers.opened_models import opened
from rank_search.point import Choice, Point
from rank_search.testing import OpenedLaws
from rank_search.testing.opened_laws import OPENED_LAWS, broken
from tests.made_up_entry import MadeUpEntry

SVD = {"svd": load_plugin("svd")}
WIDTH = 8


class Attending(nn.Module):
    """Attention, and a layer before it."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.before = nn.Linear(WIDTH, WIDTH)
        self.attention = nn.MultiheadAttention(WIDTH, 2, batch_first=True, **options)

    def forward(self, x: Tensor) -> Tensor:
        x = self.before(x)
        return self.attention(x, x, x, need_weights=False)[0]  # type: ignore[no-any-return]


class Tagger(nn.Module):
    """Recurrent networks, one of them used twice under two names."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.LSTM(WIDTH, 5, bidirectional=True, batch_first=True)
        self.again = self.first
        self.second = nn.GRU(10, WIDTH, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        self.first.flatten_parameters()
        x = self.second(self.first(x)[0])[0]
        return self.second(self.again(x)[0])[0]  # type: ignore[no-any-return]


MODELS: dict[str, Callable[[], nn.Module]] = {"attention": Attending, "recurrent": Tagger}
X = torch.randn(2, 6, WIDTH, generator=torch.Generator().manual_seed(0))
INSIDE = {"attention": ("attention.q", "attention.o"), "recurrent": ("first.recurrent_0_reverse", "second.input_0")}


def inventory(model: nn.Module, example: Example = X, exclude: tuple[str, ...] = ()) -> Inventory:
    return take_inventory(opened(model, example, exclude), example, exclude=exclude)


def low_rank(model: nn.Module, *names: str, rank: int = 3) -> nn.Module:
    point = Point({name: Choice("svd", {"rank": rank}) for name in names})
    found = inventory(model).layers
    return factorize(model, point, found, SVD, lambda name: DirectBases(weight_of(model, name)))


def opened_in(model: nn.Module) -> list[str]:
    return [name for name, module in model.named_modules() if isinstance(module, Opened)]


@pytest.mark.parametrize("name", MODELS)
def test_every_matrix_is_a_layer_and_the_costs_are_those_of_the_closed_model(name: str) -> None:
    model = MODELS[name]().eval()
    found = inventory(model)
    assert found.skipped == ()
    assert found.rest.macs == count_macs(model, [X]) - sum(row.macs for row in layers(model, X))  # attention's own
    with layer_by_layer():
        assert found.dense.macs == count_macs(model, [X])
    assert found.dense.params == count_params(model) == sum(row.params for row in layers(model, X))
    assert set(INSIDE[name]) < found.layers.keys()


@pytest.mark.parametrize("name", MODELS)
def test_what_is_opened_has_the_very_numbers_of_the_model(name: str) -> None:
    model = MODELS[name]().eval()
    view = opened(model, X)
    torch.testing.assert_close(view(X), model(X))
    assert opened_in(view)
    assert not opened_in(model)
    with torch.no_grad():
        for parameter in view.parameters():
            parameter.mul_(0.5)
    torch.testing.assert_close(view(X), model(X))
    assert torch.equal(weight_of(model, INSIDE[name][0]), weight_of(view, INSIDE[name][0]))


@pytest.mark.parametrize("name", MODELS)
def test_only_what_has_a_factorized_layer_is_opened_in_a_trial(name: str) -> None:
    model = MODELS[name]().eval()
    for layer in INSIDE[name]:
        made = low_rank(model, layer)
        assert opened_in(made) == [layer.rpartition(".")[0]]
        assert count_params(made) < count_params(model)
    assert not opened_in(low_rank(model))
    assert low_rank(model).state_dict().keys() == model.state_dict().keys()


@pytest.mark.parametrize("name", MODELS)
def test_full_rank_gives_the_models_outputs_and_a_skeleton_takes_the_state(name: str) -> None:
    model = MODELS[name]().eval()
    found = inventory(model).layers
    point = Point({each: Choice("svd", {"rank": min(layer.shape)}) for each, layer in found.items()})
    made = factorize(model, point, found, SVD, lambda each: DirectBases(weight_of(model, each)))
    torch.testing.assert_close(made(X), model(X), rtol=1e-4, atol=1e-5)
    empty = skeleton(model, point, found, SVD)
    empty.load_state_dict(made.state_dict())
    assert torch.equal(empty.eval()(X), made(X))


@pytest.mark.parametrize("name", MODELS)
def test_put_together_again_it_is_closed_with_the_trained_numbers(name: str) -> None:
    model = MODELS[name]().eval()
    made = low_rank(model, *INSIDE[name])
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1)
    closed = recompose(made, model, inventory(model).layers)
    assert closed.state_dict().keys() == model.state_dict().keys()
    assert [type(each) for each in closed.modules()] == [type(each) for each in model.modules()]
    torch.testing.assert_close(closed(X), made(X), rtol=1e-4, atol=1e-5)


def test_a_module_under_two_names_is_opened_under_both() -> None:
    model = Tagger().eval()
    assert inventory(model).layers["first.input_0"].aliases == ("again.input_0",)
    made = low_rank(model, "first.input_0")
    assert made.first is made.again
    assert isinstance(made.first, Opened)


def test_the_model_itself_may_be_opened() -> None:
    model = nn.GRU(WIDTH, 5).eval()
    found = inventory(model)
    assert list(found.layers) == ["input_0", "recurrent_0"]
    made = low_rank(model, "recurrent_0", rank=5)
    torch.testing.assert_close(made(X)[0], model(X)[0])
    assert type(recompose(made, model, found.layers)) is nn.GRU


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
@pytest.mark.parametrize("number", [0, 1])
def test_the_fast_path_is_left_exactly_where_something_is_opened(number: int) -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(WIDTH, 2, 12, dropout=0.0, batch_first=True)
    model = nn.TransformerEncoder(layer, 2).eval().requires_grad_(False)
    padding = torch.zeros(2, 6, dtype=torch.bool)
    padding[1, 4:] = True
    example = {"src": X, "src_key_padding_mask": padding}
    found = inventory(model, example).layers
    name = f"layers.{number}.self_attn.k"
    point = Point({name: Choice("svd", {"rank": WIDTH})})
    made = factorize(model, point, found, SVD, lambda each: DirectBases(weight_of(model, each)))
    torch.testing.assert_close(made(**example)[~padding], model(**example)[~padding])
    with torch.profiler.profile() as seen:
        made(**example)
    assert [each.key for each in seen.key_averages()].count("aten::_transformer_encoder_layer_fwd") == 1
    assert {each.key: each.count for each in seen.key_averages()}["aten::_transformer_encoder_layer_fwd"] == 1
    back = recompose(made, model, found)
    torch.testing.assert_close(back(**example), model(**example))


# ---- what stays closed -----------------------------------------------------------------------------------


class ReadsTheWeight(Attending):
    def forward(self, x: Tensor) -> Tensor:
        return F.linear(self.before(x), self.attention.in_proj_weight)


class Tied(Attending):
    def __init__(self) -> None:
        super().__init__()
        self.attention.out_proj.weight = self.before.weight


class Other(nn.MultiheadAttention):
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return super().forward(*args, **kwargs)


class Subclassed(Attending):
    def __init__(self) -> None:
        super().__init__()
        self.attention = Other(WIDTH, 2, batch_first=True)


def hooked() -> nn.Module:
    model = Attending()
    model.attention.register_forward_hook(lambda *_: None)
    return model


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (ReadsTheWeight, "the model does not run, or gives something else"),
        (Tied, "some of its weights are tied to before.weight"),
        (hooked, "it has hooks"),
        (Subclassed, "Other is not supported"),
        (lambda: nn.utils.parametrizations.weight_norm(Attending().attention, "in_proj_weight"), "computed from other"),
    ],
)
def test_what_cannot_be_opened_has_a_row_with_the_reason(make: Callable[[], nn.Module], reason: str) -> None:
    model = make().eval()
    example = X if isinstance(model, Attending) else (X, X, X)
    before = model(*example) if isinstance(example, tuple) else model(X)
    found = inventory(model, example)
    (row,) = [each for each in found.skipped if "attention" in each.name or not each.name]
    assert reason in row.reason
    after = model(*example) if isinstance(example, tuple) else model(X)
    torch.testing.assert_close(after, before)


def test_one_that_cannot_be_opened_does_not_keep_the_others_closed() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.other = ReadsTheWeight(), Attending()

        def forward(self, x: Tensor) -> Tensor:
            return self.other(self.one(x)[..., :WIDTH])  # type: ignore[no-any-return]

    found = inventory(Both().eval())
    assert "other.attention.q" in found.layers
    assert [each.name for each in found.skipped] == ["one.attention"]


def test_an_exclude_rule_that_names_the_module_keeps_it_closed() -> None:
    found = inventory(Attending().eval(), exclude=("att*n",))
    assert list(found.layers) == ["before"]
    assert [(each.name, each.reason) for each in found.skipped] == [("attention", "an exclude rule matches it")]
    assert "attention.q" not in inventory(Attending().eval(), exclude=("*.q",)).layers


def test_a_model_without_any_is_itself() -> None:
    model = nn.Sequential(nn.Linear(WIDTH, 2))
    assert opened(model, X) is model
    assert opened_for(model, ["0"]) is model


@pytest.mark.parametrize(("name", "words"), [("attention.x", "no layer 'attention.x'"), ("before.q", "is Linear")])
def test_a_layer_that_is_not_there_is_named(name: str, words: str) -> None:
    with pytest.raises(LayerError, match=words):
        layer_in(Attending(), name)


def test_padded_positions_do_not_become_nested_tensors_for_what_is_opened() -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(WIDTH, 2, 12, dropout=0.0, batch_first=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = nn.TransformerEncoder(layer, 2).eval().requires_grad_(False)
    padding = torch.zeros(2, 6, dtype=torch.bool)
    padding[:, 5] = True
    view = opened(model, {"src": X, "src_key_padding_mask": padding}, exclude=("layers.0.self_attn",))
    assert opened_in(view) == ["layers.1.self_attn"]
    assert view(X, src_key_padding_mask=padding).shape == X.shape
    assert model.use_nested_tensor


# ---- strangers -------------------------------------------------------------------------------------------


class Gated(nn.Module):
    """x ↦ σ(A·x) ⊙ B·x with A and B in one parameter."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.both = nn.Parameter(torch.randn(2 * WIDTH, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        gate, value = F.linear(x, self.both).chunk(2, -1)
        return gate.sigmoid() * value


class OpenedGated(Opened):
    def __init__(self, module: Gated) -> None:
        super().__init__(module)
        self.gate, self.value = (self.part(each) for each in module.both.chunk(2))

    def part(self, weight: Tensor) -> nn.Linear:
        made = nn.Linear(WIDTH, WIDTH, bias=False)
        made.weight = nn.Parameter(weight.detach())
        return made

    @classmethod
    def classes(cls) -> tuple[type[nn.Module], ...]:
        return (Gated,)

    def forward(self, x: Tensor) -> Tensor:
        return self.gate(x).sigmoid() * self.value(x)  # type: ignore[no-any-return]


@pytest.fixture
def _installed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    openers.cache_clear()
    monkeypatch.setattr(
        "rank_search.layers.opener.entries_of", lambda group: {"gated": MadeUpEntry("gated", request.param)}
    )
    yield
    openers.cache_clear()


@pytest.mark.usefixtures("_installed")
@pytest.mark.parametrize("_installed", [OpenedGated], indirect=True)
def test_a_strangers_module_is_opened() -> None:
    model = nn.Sequential(Gated()).eval()
    found = inventory(model)
    assert list(found.layers) == ["0.gate", "0.value"]
    point = Point({"0.gate": Choice("svd", {"rank": WIDTH})})
    made = factorize(model, point, found.layers, SVD, lambda each: DirectBases(weight_of(model, each)))
    torch.testing.assert_close(made(X), model(X))
    assert [broken(law, OpenedGated, Gated(), X) for law in OPENED_LAWS] == [[]] * len(OPENED_LAWS)


class Twice(OpenedGated):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


class InTrainingOnly(OpenedGated):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x) if self.training else super().forward(x)


class Cloned(OpenedGated):
    def part(self, weight: Tensor) -> nn.Linear:
        return super().part(weight.clone())


class WithMore(OpenedGated):
    def __init__(self, module: Gated) -> None:
        super().__init__(module)
        self.more = nn.Parameter(torch.zeros(2))


class Unlayered(OpenedGated):
    def __init__(self, module: Gated) -> None:
        Opened.__init__(self, module)
        self.both = nn.Parameter(module.both.detach())

    def forward(self, x: Tensor) -> Tensor:
        return Gated.forward(self, x)  # type: ignore[arg-type]


class Refusing(OpenedGated):
    @classmethod
    def refusal(cls, module: nn.Module) -> str:
        return "no"


@pytest.mark.parametrize(
    ("found", "laws"),
    [
        (Twice, {"Same", "Written", "Taken back"}),
        (InTrainingOnly, {"Same"}),
        (Cloned, {"Written", "Taken back"}),
        (WithMore, {"Written"}),
        (Unlayered, {"Layered"}),
        (Refusing, {"Known"}),
    ],
)
@pytest.mark.parametrize("_installed", [OpenedGated], indirect=True)
@pytest.mark.usefixtures("_installed")
def test_each_law_finds_what_breaks_it(found: type[Opened], laws: set[str]) -> None:
    breaks = {law for law in OPENED_LAWS if broken(law, found, Gated(), X)}
    assert breaks - {"Known"} == laws - {"Known"}
    assert "Known" in breaks  # as it is another one that is installed


@pytest.mark.parametrize(
    ("_installed", "error", "words"),
    [
        (ImportError("no such thing"), BrokenPluginError, "does not load: ImportError: no such thing"),
        (nn.GRU, ContractError, "must be a subclass of rank_search.layers.Opened"),
        (Opened, ContractError, "defines all of its abstract methods"),
    ],
    indirect=["_installed"],
)
@pytest.mark.usefixtures("_installed")
def test_one_that_is_none_is_named(error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        openers()


def test_laws_hold_for_copies_of_what_is_built_in() -> None:
    assert {OpenedAttention, OpenedGRU} < set(openers().values())
    assert not broken("Taken back", OpenedGRU, copy.deepcopy(nn.GRU(3, 2)), torch.zeros(4, 1, 3))
    assert OpenedLaws.samples == ()
