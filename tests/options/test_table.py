"""What each layer may become: costs counted, errors measured once, nothing larger than dense."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from rank_search.errors import PluginError
from rank_search.layers import Bases, DirectBases, Factorization, load_plugin
from rank_search.options import Forms, OptionTable, allocate, relative_error
from rank_search.options.fits import Fits
from rank_search.options.table import COARSE, LADDER
from rank_search.point import Choice, Point
from rank_search.priors import SpectraCache
from tests.small_space import LAYERS, Made, made_up_error

Make = Callable[..., Made]
TIED = {"stem": ("stem",), "twins": ("body", "neck"), "head": ("head",)}


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    drawn = torch.Generator().manual_seed(0)
    return {name: torch.randn(layer.shape, generator=drawn) for name, layer in LAYERS.items()}


@pytest.fixture(scope="module")
def moments() -> dict[str, Tensor]:
    """Second moments with very unequal eigenvalues."""
    drawn = torch.Generator().manual_seed(1)
    found = {}
    for name, layer in LAYERS.items():
        size = math.prod(layer.shape[1:])
        inputs = torch.randn(4 * size, size, generator=drawn) * torch.logspace(0, -2, size)
        found[name] = (inputs.T @ inputs / len(inputs)).to(torch.float64)
    return found


def fits_of(weights: dict[str, Tensor], moments: dict[str, Tensor] | None = None) -> Fits:
    bases = {name: DirectBases(weight, None if moments is None else moments[name]) for name, weight in weights.items()}
    plugins = {name: load_plugin(name) for name in ("svd", "tucker2")}
    return Fits(LAYERS, plugins, weights.__getitem__, bases.__getitem__)


CHOICES = [
    ("body", Choice("svd", {"rank": 5})),
    ("body", Choice("tucker2", {"rank_out": 9, "rank_in": 6})),
    ("head", Choice("svd", {"rank": 11})),
]


@pytest.mark.parametrize(("layer", "choice"), CHOICES)
def test_option_errors_are_those_of_the_outputs(
    weights: dict[str, Tensor], moments: dict[str, Tensor], layer: str, choice: Choice
) -> None:
    """‖(W − W')·C^½‖² / ‖W·C^½‖², C^½ by an eigendecomposition."""
    module = load_plugin(choice.factorization)(LAYERS[layer], **choice.values)
    module.fit(weights[layer], DirectBases(weights[layer], moments[layer]))
    values, vectors = torch.linalg.eigh(moments[layer])
    root = vectors @ torch.diag(values.clamp(min=0).sqrt()) @ vectors.T
    W, fitted = (each.detach().flatten(1).to(torch.float64) for each in (weights[layer], module.dense()))
    expected = float(((W - fitted) @ root).square().sum() / (W @ root).square().sum())
    assert 0.001 < expected < 1
    assert fits_of(weights, moments)(layer, choice) == pytest.approx(expected, rel=1e-4)


def test_option_errors_without_data_are_those_of_the_weights(weights: dict[str, Tensor]) -> None:
    lost = torch.linalg.svdvals(weights["head"].to(torch.float64)).square()
    expected = float(lost[11:].sum() / lost.sum())
    assert fits_of(weights)("head", Choice("svd", {"rank": 11})) == pytest.approx(expected, rel=1e-4)


def test_option_errors_of_dense_and_of_zero_weights_are_zero(weights: dict[str, Tensor]) -> None:
    zero = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    assert fits_of(weights)("head", Choice()) == 0
    assert fits_of(zero)("head", Choice("svd", {"rank": 2})) == 0


class Lost(load_plugin("svd")):  # type: ignore[misc]
    """Its fits of low rank hold NaN."""

    def fit(self, weight: Tensor, bases: Bases) -> None:
        super().fit(weight, bases)
        if self.values["rank"] < 12:
            self.left.data[0, 0] = math.nan


def lost_fits(weights: dict[str, Tensor]) -> Fits:
    bases = {name: DirectBases(weight) for name, weight in weights.items()}
    return Fits(LAYERS, {"svd": Lost}, weights.__getitem__, bases.__getitem__)


def test_a_fit_that_is_not_finite_is_no_option(
    make: Make, weights: dict[str, Tensor], caplog: pytest.LogCaptureFixture
) -> None:
    space, costs, _ = make(("svd",))
    with caplog.at_level("WARNING", "rank_search"):
        fits = lost_fits(weights)
        table = OptionTable(space.groups, costs, fits, space.round_to)
    ranks = {name: [each.choices[name].values["rank"] for each in table.of[name][1:]] for name in ("body", "head")}
    plain = OptionTable(space.groups, costs, fits_of(weights), space.round_to)
    for name, found in ranks.items():
        assert found == [rank for each in plain.of[name][1:] if (rank := each.choices[name].values["rank"]) >= 12] != []
    assert caplog.text.count("Layer 'body' as svd") == 1
    assert "NaN or infinite numbers" in caplog.text
    lost = Choice("svd", {"rank": 3})
    assert fits("body", lost) == math.inf
    assert fits.with_shares({"body": 0.0})("body", lost) == math.inf
    found = allocate(table, params=0.8)
    assert 0 < found.error < math.inf


@pytest.mark.parametrize(
    ("error", "total", "expected"),
    [(math.nan, 1.0, math.inf), (math.inf, 1.0, math.inf), (1.0, math.inf, math.inf), (math.nan, 0.0, math.inf)],
)
def test_no_number_is_no_small_error(error: float, total: float, expected: float) -> None:
    assert relative_error(error, total) == expected


def test_option_table_names_a_plugin_that_raises(weights: dict[str, Tensor]) -> None:
    class Lazy(load_plugin("svd")):  # type: ignore[misc]
        def fit(self, weight: Tensor, bases: object) -> None:
            raise ArithmeticError("not today")

    bases = {name: DirectBases(weight) for name, weight in weights.items()}
    fits = Fits(LAYERS, {"svd": Lazy}, weights.__getitem__, bases.__getitem__)
    with pytest.raises(PluginError, match="not today"):
        fits("head", Choice("svd", {"rank": 2}))


class Counted:
    """Errors, with how often each was asked for."""

    def __init__(self, error_of: Callable[[str, Choice], float]) -> None:
        self.error_of, self.calls = error_of, Counter[str]()

    def __call__(self, layer: str, choice: Choice) -> float:
        self.calls[f"{layer} {choice.to_json()}"] += 1
        return self.error_of(layer, choice)


def test_fits_are_made_once(make: Make, weights: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    plugin: type[Factorization] = load_plugin("svd")
    made, fit = Counter[str](), plugin.fit

    def counted(self: Factorization, weight: Tensor, bases: DirectBases) -> None:
        shapes = [tuple(each.shape) for each in self.parameters()]
        made[f"{tuple(weight.shape)} as {shapes}"] += 1
        fit(self, weight, bases)

    monkeypatch.setattr(plugin, "fit", counted)
    space, costs, _ = make(("svd",))
    fits = fits_of(weights)
    options = OptionTable(space.groups, costs, fits, space.round_to)
    first = dict(made)
    assert set(first.values()) == {1}
    again = options.with_costs(costs)
    assert again.of == options.of
    options.describe(Point({name: option.choices[name] for name, (_, option, *_) in options.of.items()}))
    assert dict(made) == first


@pytest.mark.parametrize("groups", [None, TIED])
def test_option_grid_is_dense_and_what_is_smaller(make: Make, groups: dict[str, tuple[str, ...]] | None) -> None:
    space, costs, _ = make(groups=groups)
    options = OptionTable(space.groups, costs, made_up_error(space), space.round_to)
    for group in space.groups:
        dense, *others = options.of[group.name]
        assert dense.factorization == "dense"
        assert all(choice.is_dense for choice in dense.choices.values())
        assert dense.error == 0
        assert {each.factorization for each in others} == set(group.factorizations)
        assert len({str({k: v.to_json() for k, v in each.choices.items()}) for each in others}) == len(others)
        assert len(others) <= len(LADDER) + len(COARSE) ** 2
        for each in others:
            assert tuple(each.choices) == group.layers
            assert each.params < dense.params
            assert each.macs < dense.macs
            for layer, choice in each.choices.items():
                assert choice.is_dense or costs.saves(layer, choice)
                for _, axis, value in group.chosen(layer, choice):
                    assert axis.low <= value <= axis.high


def test_option_costs_add_up_to_those_of_the_point(make: Make) -> None:
    space, costs, _ = make(groups=TIED)
    options = OptionTable(space.groups, costs, made_up_error(space), space.round_to)
    for place in (0, 1, 3, -1):
        chosen = [options.of[group.name][place] for group in space.groups]
        point = Point({layer: choice for option in chosen for layer, choice in option.choices.items()})
        assert options.total(chosen) == costs.cost(point)
        assert options.describe(point) == tuple(chosen)
    assert options.dense == costs.dense
    assert options.factorizations == ("svd", "tucker2")


def test_option_errors_of_tied_layers_are_summed(make: Make) -> None:
    space, costs, _ = make(groups=TIED)
    error_of = made_up_error(space)
    options = OptionTable(space.groups, costs, error_of, space.round_to)
    for each in options.of["twins"][1:]:
        assert set(each.choices) == {"body", "neck"}
        assert each.error == pytest.approx(sum(error_of(layer, choice) for layer, choice in each.choices.items()))
        assert each.params == sum(costs.layer_cost(layer, choice).params for layer, choice in each.choices.items())


def test_a_point_off_the_grid_is_measured_when_it_is_asked_for(make: Make) -> None:
    space, costs, _ = make(("svd",))
    counted = Counted(made_up_error(space))
    options = OptionTable(space.groups, costs, counted, space.round_to)
    on_grid = {option.choices["head"].values.get("rank") for option in options.of["head"]}
    rank = next(rank for rank in range(1, 24) if rank not in on_grid)
    counted.calls.clear()
    described = options.describe(Point({"head": Choice("svd", {"rank": rank})}))
    again = options.describe(Point({"head": Choice("svd", {"rank": rank})}))
    assert counted.calls == {f"head {Choice('svd', {'rank': rank}).to_json()}": 1}
    assert described == again
    assert [each.factorization for each in described] == ["dense", "dense", "dense", "svd"]
    assert described[-1].error == pytest.approx((1 - rank / 40) ** 2)
    assert described[-1].params == costs.layer_cost("head", Choice("svd", {"rank": rank})).params


def test_ranks_are_multiples_of_what_they_are_rounded_to(make: Make) -> None:
    space, costs, _ = make(("svd",), round_to=8)
    options = OptionTable(space.groups, costs, made_up_error(space), space.round_to)
    assert {option.choices["head"].values["rank"] for option in options.of["head"][1:]} == {8, 16, 24}


def test_forms_that_are_not_faster_are_left_out(make: Make) -> None:
    space, costs, _ = make(("svd",))
    options = OptionTable(space.groups, costs, made_up_error(space), space.round_to)
    slow = options.with_costs(costs.with_forms(Forms({"head": {"svd": ((1.0, 1.5),)}})))
    assert [each.factorization for each in slow.of["head"]] == ["dense"]
    assert slow.of["body"] == options.of["body"]


def test_fits_are_kept_between_runs(
    make: Make, weights: dict[str, Tensor], moments: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    space, costs, _ = make(("svd",))
    plugins = {"svd": load_plugin("svd")}

    def options(moments: dict[str, Tensor], version: str = "1") -> OptionTable:
        cache = SpectraCache(tmp_path)
        bases = {name: cache.bases(name, weights[name], moments[name]) for name in LAYERS}
        fits = Fits(
            LAYERS,
            plugins,
            weights.__getitem__,
            bases.__getitem__,
            lambda layer, name: bases[layer].numbers(f"{name} {version}"),
        )
        made = OptionTable(space.groups, costs, fits, space.round_to)
        fits.save()
        return made

    first = options(moments)

    def refuse(self: Factorization, weight: Tensor, bases: DirectBases) -> None:
        raise ArithmeticError("made again")

    monkeypatch.setattr(plugins["svd"], "fit", refuse)
    assert options(moments).of == first.of
    for others, version in ((moments, "2"), ({name: 2 * each for name, each in moments.items()}, "1")):
        with pytest.raises(PluginError, match="made again"):
            options(others, version)
