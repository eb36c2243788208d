"""Pools: tied layers whose forms hold factors together, counted, coded, fused and penalized once."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
import torch
from rank_search_plugins.shared_basis import SharedBasis
from torch import Tensor, nn

import rank_search as rs
from rank_search.coding import Grid, decode, encode
from rank_search.errors import LayerError, StudyFileError
from rank_search.layers import (
    Cost,
    DirectBases,
    Factorization,
    Inventory,
    Layer,
    Plugins,
    PooledFactorization,
    count_nonzeros,
    count_params,
    factorize,
    fit_together,
    fuse,
    layer_cost,
    load_plugin,
    opened_inventory,
    output_error,
    pool_memo,
    pools,
    share,
    skeleton,
    taken_together,
    with_pools,
)
from rank_search.options import CostModel, build_groups, normalized
from rank_search.point import Choice, Point
from rank_search.quantization import latents
from rank_search.search.seeds import seed_points
from rank_search.search.settings import SearchSettings
from rank_search.search.space import Space
from rank_search.testing import check_factorization
from rank_search.testing.pool_law import POOLS
from rank_search.testing.suite import check_pool
from rank_search.training.penalties import frames, orthogonality
from rank_search.training.shrinking import balance_components
from rank_search.trials.settling import Settled, cut, settled

NAMES = ("1", "4", "7")
PLUGINS: Plugins = {name: load_plugin(name) for name in ("svd", "shared-basis", "hashing", "hashing-kronecker")}
X = torch.randn(4, 3, 6, 6, generator=torch.Generator().manual_seed(1))


def network() -> nn.Sequential:
    torch.manual_seed(0)
    parts: list[nn.Module] = [nn.Conv2d(3, 6, 3, padding=1)]
    for _ in range(3):
        parts += [nn.Conv2d(6, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU()]
    return nn.Sequential(*parts, nn.Flatten(), nn.Linear(216, 4)).eval()


@pytest.fixture(scope="module")
def model() -> nn.Sequential:
    return network()


@pytest.fixture(scope="module")
def inventory(model: nn.Sequential) -> Inventory:
    found = opened_inventory(model, X[:1])
    return replace(found, layers=with_pools(found.layers, {NAMES[0]: NAMES}, PLUGINS))


def point(name: str = "shared-basis", others: Mapping[str, Choice] | None = None, **values: float) -> Point:
    return Point({each: Choice(name, values or {"rank": 4}) for each in NAMES} | dict(others or {}))


def made(model: nn.Module, inventory: Inventory, chosen: Point) -> nn.Module:
    def bases(name: str) -> DirectBases:
        return DirectBases(model.get_submodule(name).get_parameter("weight").detach())

    return factorize(model, chosen, inventory.layers, PLUGINS, bases)


def forms(of: nn.Module) -> list[Factorization]:
    return [of.get_submodule(name) for name in NAMES]  # type: ignore[misc]


# ---- which layers are a pool -----------------------------------------------------------------------------


def test_layers_know_their_pool_only_where_a_factorization_asks_for_it(inventory: Inventory, model: nn.Module) -> None:
    plain = opened_inventory(model, X[:1]).layers
    assert with_pools(plain, {"1": NAMES}, {"svd": PLUGINS["svd"]}) == dict(plain)
    pooled = inventory.layers
    assert [(pooled[name].place, [each.name for each in pooled[name].members]) for name in NAMES] == [
        (place, list(NAMES)) for place in range(3)
    ]
    assert pooled["0"] == plain["0"]
    assert [pooled["0"].members] == [(plain["0"],)]
    assert list(map(str, pooled.values())) == list(map(str, plain.values())), "numbers are kept under this text"


def test_a_choice_that_is_not_allowed_for_all_is_allowed_for_none() -> None:
    choices = {"a": ("svd", "shared-basis", "hashing"), "b": ("hashing",), "c": ("shared-basis",)}
    assert taken_together(choices, {"a": ("a", "b"), "c": ("c",)}, PLUGINS) == {
        "a": ("svd", "hashing"),
        "b": ("hashing",),
        "c": ("shared-basis",),
    }


@pytest.mark.parametrize("other", [Choice(), Choice("svd", {"rank": 2}), Choice("shared-basis", {"rank": 3})])
def test_a_point_in_which_a_pool_is_not_of_one_kind_is_refused(
    model: nn.Module, inventory: Inventory, other: Choice
) -> None:
    torn = point(others={"4": other})
    for make in (made, lambda *parts: skeleton(model, torn, inventory.layers, PLUGINS)):
        with pytest.raises(LayerError, match="shared-basis shares factors between tied layers") as raised:
            make(model, inventory, torn)
        assert "'4'" in str(raised.value)
    made(model, inventory, Point({"0": Choice("shared-basis", {"rank": 2}), "4": Choice("svd", {"rank": 2})}))


def test_a_seed_point_that_tears_a_pool_is_refused(inventory: Inventory) -> None:
    groups = build_groups(inventory.layers, PLUGINS, {"1": NAMES, "0": ("0",)})
    costs = CostModel(inventory.layers, PLUGINS, inventory.rest, asked=("params",))
    chosen = {"factorization": "shared-basis", "rank": 3}
    for layers, is_whole in (({"[147]": chosen}, True), ({"1": chosen}, False)):
        given = {"seeds": {"allocations": 0, "points": [{"name": "mine", "layers": layers}]}}
        settings = SearchSettings.model_validate(given)
        space = Space(groups, {})
        if is_whole:
            assert any(seed.label == "point mine" for seed in seed_points(space, costs, settings))
        else:
            with pytest.raises(StudyFileError, match="layer '1' is shared-basis, and 4, 7 not"):
                seed_points(space, costs, settings)


def test_the_prior_of_a_pool_is_the_largest_of_its_layers(inventory: Inventory) -> None:
    priors = {(layer, name, axis): 2.0 for layer in inventory.layers for name, axis in AXES}
    priors |= {("4", "shared-basis", "rank"): 5.0, ("4", "svd", "rank"): 3.0}
    found = build_groups(inventory.layers, PLUGINS, {"1": NAMES}, priors=priors)[0].axes
    assert [found[name]["shared-basis"][0].prior for name in NAMES] == [5.0] * 3
    assert [found[name]["svd"][0].prior for name in NAMES] == [2.0, 3.0, 2.0]


AXES = [("svd", "rank"), ("shared-basis", "rank"), ("hashing", "hash_pairs"), ("hashing-kronecker", "terms")]


# ---- costs -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "axis"), AXES)
@pytest.mark.parametrize("value", [1, 2, 5])
def test_counted_costs_are_those_of_the_model(
    model: nn.Module, inventory: Inventory, name: str, axis: str, value: int
) -> None:
    costs = CostModel(inventory.layers, PLUGINS, inventory.rest)
    chosen = point(name, {"11": Choice("svd", {"rank": 2}), "0": Choice()}, **{axis: value})
    built = made(model, inventory, chosen)
    total = rs.layers(built, X[:1])
    assert costs.cost(chosen) == {"params": count_params(built), "macs": total.total.macs}
    assert sum(row.params for row in total) == count_params(built)


def test_what_is_shared_is_a_cost_of_the_first(inventory: Inventory) -> None:
    found = [layer_cost(inventory.layers[name], SharedBasis, Choice("", {"rank": 4})) for name in NAMES]
    macs = 36 * (4 * 54 + 6 * 4)
    assert found == [Cost(4 * 54 + 6 * 4, macs), Cost(6 * 4, macs), Cost(6 * 4, macs)]
    alone = replace(inventory.layers["4"], pool=(), place=0)
    assert layer_cost(alone, SharedBasis, Choice("", {"rank": 4})) == found[0]
    assert layer_cost(inventory.layers["4"], PLUGINS["svd"], Choice("", {"rank": 4})) == found[0]


def test_a_pool_saves_or_does_not_as_a_whole(inventory: Inventory) -> None:
    costs = CostModel(inventory.layers, PLUGINS, inventory.rest, asked=("params",))
    dense = 3 * 6 * 54
    for rank in range(1, 19):
        choice, params = Choice("shared-basis", {"rank": rank}), rank * (54 + 18)
        assert {costs.saves(name, choice) for name in NAMES} == {params < dense}
        assert costs.judged("4", choice) == {"params": (params, dense)}
        kept = choice if params < dense else Choice()
        assert [normalized(costs, name, choice) for name in NAMES] == [kept] * 3
    assert costs.saves("1", Choice("shared-basis", {"rank": 8})), "its first layer alone has more than it had"
    assert layer_cost(inventory.layers["1"], SharedBasis, Choice("", {"rank": 8})).params > 6 * 54
    by_macs = CostModel(inventory.layers, PLUGINS, inventory.rest, asked=("macs",))
    assert not by_macs.saves("1", Choice("hashing", {"hash_pairs": 1})), "it has the MACs of the dense layers"


def test_a_pool_of_a_table_and_a_linear_layer_is_judged_as_one() -> None:
    model = nn.Sequential(nn.Embedding(30, 8), nn.Linear(8, 30))
    found = opened_inventory(model, torch.zeros(1, 4, dtype=torch.long))
    layers = with_pools(found.layers, {"0": ("0", "1")}, PLUGINS)
    choice = Choice("hashing", {"hash_pairs": 2})
    for asked, saves in (("params", True), ("macs", False)):
        costs = CostModel(layers, PLUGINS, found.rest, asked=(asked,))
        assert [costs.saves(name, choice) for name in layers] == [saves, saves]


def test_the_layers_of_a_pool_are_summed_once_for_all_of_them(
    inventory: Inventory, monkeypatch: pytest.MonkeyPatch
) -> None:
    costs, counted = CostModel(inventory.layers, PLUGINS, inventory.rest, asked=("params",)), []
    count = costs.layer_cost
    monkeypatch.setattr(costs, "layer_cost", lambda *asked: counted.append(asked[0]) or count(*asked))  # type: ignore[func-returns-value]
    judged = [costs.judged(name, Choice("shared-basis", {"rank": 2})) for name in NAMES]
    assert counted == [*NAMES, *NAMES], "of the form, and dense"
    assert judged == [{"params": (2 * (54 + 18), 3 * 6 * 54)}] * 3
    assert costs.judged("1", Choice("shared-basis", {"rank": 3}))["params"][0] == 3 * (54 + 18)


def test_nonzeros_count_what_is_shared_once(model: nn.Module, inventory: Inventory) -> None:
    built = made(model, inventory, point())
    norms = 3 * 6  # whose shifts are zero
    assert count_nonzeros(built) == count_params(built) - norms
    with torch.no_grad():
        for form in forms(built):
            form.get_parameter("mixing")[1:] = 0
    others = count_params(built) - norms - 3 * 4 * 6 - 4 * 54
    assert count_nonzeros(built) == others + 3 * 54, "of the whole pool, the weights have fewer than the factors"


# ---- tables and allocations ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["shared-basis", "hashing", "hashing-kronecker"])
@pytest.mark.parametrize("seen", [False, True])
def test_options_are_those_of_the_pool_and_what_is_built_has_their_costs_and_errors(
    model: nn.Module, name: str, seen: bool
) -> None:
    layers = {"include": NAMES, "factorizations": [name], "tie": [list(NAMES)]}
    table = rs.options(model, [X] if seen else None, example=X[:1], layers=layers)
    ((_, options),) = table.of.items()
    params = [each.params for each in options]
    assert len(options) > 5
    assert params[1:] == sorted(params[1:])
    assert options[0].params > max(params[1:])
    for option in options[1::4]:
        assert len({str(choice.to_json()) for choice in option.choices.values()}) == 1
        built = rs.factorize(model, option.choices, table)
        assert count_params(built) == option.params + table.rest["params"]
        errors = []
        for each in NAMES:
            weight, moment = table.fits.weights(each), table.fits.bases(each).moment
            zero = output_error(weight, torch.zeros_like(weight), moment)
            errors.append(output_error(weight, built.get_submodule(each).dense(), moment) / zero)  # type: ignore[operator]
        assert option.error == pytest.approx(sum(errors), rel=1e-4)
    assert min(each.error for each in options[1:]) < 2.5


def test_errors_are_kept_for_the_pool_that_they_are_of(model: nn.Module, tmp_path: object) -> None:
    """The same layer with the same weight, tied to others."""
    found = []
    for tie in (["1", "4"], ["1", "7"], ["1", "4"]):
        layers = {"include": ["1", "4", "7"], "factorizations": ["shared-basis"], "tie": [tie]}
        table = rs.options(model, [X], example=X[:1], layers=layers, cache=str(tmp_path))
        found.append(table.fits("1", Choice("shared-basis", {"rank": 3})))
    assert found[0] == found[2] != found[1]


def test_what_depends_on_a_pool_is_made_once_for_its_contents_which_are_read_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    weights = [torch.randn(3, 5) for _ in range(4)]
    moments = [None, torch.eye(5), torch.eye(5), 2 * torch.eye(5)]
    one, two, three, same = (DirectBases(weight, each) for weight, each in zip(weights, moments, strict=True))
    seen: list[Tensor] = []

    def memo(others: Sequence[tuple[DirectBases, Tensor]]) -> Tensor:
        bases, each = zip((one, weights[0]), *others, strict=True)
        return pool_memo(bases, each, "key", lambda: seen.append(torch.ones(1)) or seen[-1])  # type: ignore[func-returns-value]

    first = memo([(two, weights[1])])
    assert memo([(three, weights[2])]) is not first, "another weight"
    assert memo([(DirectBases(weights[1], moments[3]), weights[1])]) is not first, "another moment"
    assert memo([(DirectBases(weights[1], moments[1]), weights[1])]) is first, "the same in another object"
    assert memo([]) is not first
    assert memo([(two, weights[1]), (same, weights[3])]) is not first
    monkeypatch.setattr(pools, "hashlib", None)
    assert memo([(two, weights[1])]) is first
    assert len(seen) == 5


def test_the_fit_knows_the_loss(model: nn.Module) -> None:
    """In its metric the joint fit to the loss is closer than the joint fit to the outputs."""
    batches = [(X, torch.arange(4))]
    layers = {"include": NAMES, "factorizations": ["shared-basis"], "tie": [list(NAMES)]}
    table = rs.options(
        model,
        batches,
        example=X[:1],
        layers=layers,
        loss=lambda net, batch: nn.functional.cross_entropy(net(batch[0]), batch[1]),
    )
    plain = rs.options(model, batches, example=X[:1], layers=layers)
    chosen = {name: Choice("shared-basis", {"rank": 4}) for name in NAMES}

    def lost(of: nn.Module) -> float:
        total = 0.0
        for name in NAMES:
            weighed = table.fits.bases(name).weighed
            assert weighed is not None
            total += weighed.error(table.fits.weights(name), of.get_submodule(name).dense()) / weighed.total  # type: ignore[operator]
        return total

    by_loss, by_outputs = (rs.factorize(model, chosen, each) for each in (table, plain))
    assert lost(by_loss) < 0.95 * lost(by_outputs)
    assert len({id(form.get_parameter("basis")) for form in forms(by_loss)}) == 1


def test_what_cannot_be_led_back_is_fitted_to_the_outputs_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    fitted, weight = [], torch.randn(9, 9)
    layers = {name: Layer(name, "linear", (9, 9), bias=False) for name in "ab"}
    for name, plugin, axis in (("hashing", PLUGINS["hashing"], "hash_pairs"), ("basis", SharedBasis, "rank")):
        pooled = with_pools(layers, {"a": ("a", "b")}, {name: plugin})
        forms = [plugin(layer, **{axis: 2}) for layer in pooled.values()]
        share(forms)
        fit = plugin.fit_pool  # type: ignore[attr-defined]
        monkeypatch.setattr(
            plugin, "fit_pool", staticmethod(lambda *asked, fit=fit: fitted.append(asked[1][0]) or fit(*asked))
        )
        fit_together(forms, [weight] * 2, [DirectBases(weight, torch.eye(9), torch.eye(9))] * 2)
    by_hash, *by_basis = fitted
    assert by_hash is weight
    assert len(by_basis) > 1


def test_what_is_shared_stays_as_it_is_where_a_layer_is_frozen(inventory: Inventory) -> None:
    frozen = network()
    frozen.get_submodule("4").requires_grad_(requires_grad=False)
    built = made(frozen, inventory, point())
    assert [form.get_parameter("mixing").requires_grad for form in forms(built)] == [True, False, True]
    assert not any(form.get_parameter("basis").requires_grad for form in forms(built))


def test_in_order_a_pool_keeps_its_joint_fit(model: nn.Module) -> None:
    layers = {"include": [*NAMES, "11"], "factorizations": ["shared-basis", "svd"], "tie": [list(NAMES)]}
    table = rs.options(model, [X], example=X[:1], layers=layers)
    chosen = {name: Choice("shared-basis", {"rank": 4}) for name in NAMES} | {"11": Choice("svd", {"rank": 2})}
    at_once = rs.factorize(model, chosen, table)
    in_order = rs.factorize(model, chosen, table, [X], sequential=True)
    for one, other in zip(forms(at_once), forms(in_order), strict=True):
        assert torch.equal(one.dense(), other.dense())
    last = [each.get_submodule("11").dense() for each in (at_once, in_order)]  # type: ignore[operator]
    assert not torch.equal(*last)


# ---- once everywhere -------------------------------------------------------------------------------------


def test_what_is_shared_is_coded_once_and_read_back(model: nn.Module, inventory: Inventory) -> None:
    built = made(model, inventory, point("hashing", hash_pairs=5))
    names = list(latents(built))
    assert [name for name in names if "by_row" in name] == ["1.by_row"]
    grids = {name: Grid.nearest(torch.full((1,) * each.dim(), 0.01)) for name, each in latents(built).items()}
    with torch.no_grad():
        for name, grid in grids.items():
            each = built.get_parameter(name)
            each.copy_(grid.values(grid.round(each), each.dtype))
    coded = encode(built.state_dict(), grids)
    apart = encode({name: each.clone() for name, each in built.state_dict().items()}, grids)
    assert len(apart) > len(coded) + 2 * 4 * 2 * 5 * 30, "two more times, as raw numbers"
    again = skeleton(model, point("hashing", hash_pairs=5), inventory.layers, PLUGINS).eval()
    again.load_state_dict(decode(coded))
    for one, other in zip(forms(built), forms(again), strict=True):
        assert torch.equal(one.dense(), other.dense())
    assert len({id(form.get_parameter("by_row")) for form in forms(again)}) == 1


def test_its_frame_is_penalized_once(model: nn.Module, inventory: Inventory) -> None:
    built = made(model, inventory, point())
    (frame,) = frames(built)
    assert tuple(frame.shape) == (54, 4)
    with torch.no_grad():
        forms(built)[2].get_parameter("basis").mul_(2)
    assert orthogonality(built, "so").item() == pytest.approx(4 * 9 / 16)


def test_a_gradient_is_the_sum_of_what_all_layers_ask_for(model: nn.Module, inventory: Inventory) -> None:
    built = made(model, inventory, point("hashing", hash_pairs=3))
    total = sum((form.dense().square().sum() for form in forms(built)), torch.zeros(()))
    (gradient,) = torch.autograd.grad(total, [forms(built)[0].get_parameter("by_row")])
    one_by_one = [
        torch.autograd.grad(form.dense().square().sum(), form.get_parameter("by_row"))[0] for form in forms(built)
    ]
    torch.testing.assert_close(gradient, sum(one_by_one))
    assert all(bool(each.any()) for each in one_by_one)


def test_fusing_a_batch_norm_leaves_the_basis_to_all(model: nn.Module, inventory: Inventory) -> None:
    for name in NAMES:
        norm = model.get_submodule(str(int(name) + 1))
        norm.running_var = torch.linspace(0.5, 2, 6)
        norm.running_mean = torch.linspace(-1, 1, 6)
    built = made(model, inventory, point())
    fused = fuse(built, X[:1])
    assert fused is not None
    with torch.no_grad():
        torch.testing.assert_close(fused(X), built(X), atol=1e-5, rtol=1e-4)
    assert not any(isinstance(each, nn.BatchNorm2d) for each in fused.modules())
    assert len({id(form.get_parameter("basis")) for form in forms(fused)}) == 1
    assert count_params(fused) == count_params(built) - 3 * 12 + 3 * 6


def test_a_pool_stays_whole_where_a_trained_model_is_cut(model: nn.Module, inventory: Inventory) -> None:
    chosen = point("shared-basis", {"0": Choice("svd", {"rank": 3})}, rank=4)
    whole = made(model, inventory, chosen)
    kept = {name: {"rank": torch.arange(2)} for name in ("0", *NAMES)}
    smaller = cut(whole, Settled(chosen, whole.state_dict()), kept)
    assert smaller.point.layers == {**chosen.layers, "0": Choice("svd", {"rank": 2})}
    skeleton(model, smaller.point, inventory.layers, PLUGINS).load_state_dict(dict(smaller.state))


@pytest.mark.parametrize("name", ["shared-basis", "hashing"])
def test_a_pool_does_not_settle_nor_is_it_balanced(model: nn.Module, inventory: Inventory, name: str) -> None:
    chosen = point(name, **({"rank": 4} if name == "shared-basis" else {"hash_pairs": 4}))
    built = made(model, inventory, chosen)
    with torch.no_grad():
        forms(built)[1].get_parameter({"shared-basis": "basis", "hashing": "by_column"}[name])[1] = 0
    before = copy.deepcopy(built.state_dict())
    found = settled(built, Settled(chosen, built.state_dict()))
    assert found.point == chosen
    balance_components(built, framed=False)
    assert all(torch.equal(each, before[key]) for key, each in built.state_dict().items())


# ---- the law ---------------------------------------------------------------------------------------------


class Apart(SharedBasis.__mro__[1]):  # type: ignore[misc,name-defined]
    """Says nothing of what it shares; each break of the law is one subclass."""

    shared = ("basis",)

    @classmethod
    def axes(cls, layer: Layer) -> tuple[rs.Axis, ...]:
        return SharedBasis.axes(layer)

    def __init__(self, layer: Layer, *, rank: int) -> None:
        super().__init__(layer, rank=rank)
        self.mixing = self.factor(layer.out_features, rank)
        self.basis = self.factor(rank, *layer.shape[1:])

    @classmethod
    @torch.no_grad()
    def fit_pool(cls, forms: Sequence[Apart], weights: Sequence[Tensor], bases: Sequence[DirectBases]) -> None:
        SharedBasis.fit_pool(forms, weights, bases)  # type: ignore[arg-type]

    def dense(self) -> Tensor:
        return (self.mixing @ self.basis.flatten(1)).view(self.layer.shape)


class FitsTheLast(Apart):
    """Each layer by itself, so that the basis is that of the last."""

    @classmethod
    @torch.no_grad()
    def fit_pool(cls, forms: Sequence[Apart], weights: Sequence[Tensor], bases: Sequence[DirectBases]) -> None:
        for form, weight, each in zip(forms, weights, bases, strict=True):
            SharedBasis.fit_pool([form], [weight], [each])  # type: ignore[list-item]
            form.mixing.mul_(10)


class NamesWhatItHasNot(Apart):
    shared = ("left",)


class AxesOfTheFirst(Apart):
    @classmethod
    def axes(cls, layer: Layer) -> tuple[rs.Axis, ...]:
        (axis,) = SharedBasis.axes(layer)
        return (replace(axis, high=axis.high - layer.place),)


@pytest.mark.parametrize(
    ("plugin", "said"),
    [
        (Apart, ""),
        (FitsTheLast, "more than zeros have"),
        (NamesWhatItHasNot, "left"),
        (AxesOfTheFirst, "axes are not the same"),
    ],
)
def test_the_law_finds_what_is_wrong_with_a_pool(plugin: type[PooledFactorization], said: str) -> None:
    result = check_pool(plugin, next(iter(POOLS)))
    assert result.ok is not bool(said)
    assert said in result.detail


class AppliesNowhere(Apart):
    @classmethod
    def axes(cls, layer: Layer) -> tuple[rs.Axis, ...]:
        return ()


def test_pools_are_a_law_of_what_shares_factors_alone() -> None:
    pools = [result for result in check_factorization(AppliesNowhere) if result.law == "Pool"]
    assert [(result.ok, result.detail, result.layer) for result in pools] == [
        (True, "does not apply", name) for name in POOLS
    ]
    assert not check_pool(PLUGINS["svd"], next(iter(POOLS))).ok
