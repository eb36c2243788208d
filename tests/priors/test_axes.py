from collections.abc import Mapping
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from rank_search.errors import LayerError
from rank_search.layers import Axis, Bases, Factorization, Layer, load_plugin
from rank_search.priors import AxisPrior, PriorSettings, SpectraCache, axis_priors
from rank_search.priors.rules import tail_rank

CONV = Layer("conv", "conv2d", (32, 24, 3, 3), padding=((1, 1), (1, 1)), inputs=((1, 24, 10, 10),))
LINEAR = Layer("fc", "linear", (40, 60), inputs=((1, 60),))


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def tucker(rank_out: int, rank_in: int, noise: float = 0.1) -> Tensor:
    core = normal(rank_out, rank_in, 3, 3)
    signal = torch.einsum("oa,abyx,ib->oiyx", normal(32, rank_out, seed=1), core, normal(24, rank_in, seed=2))
    return signal / signal.std() + noise * normal(32, 24, 3, 3, seed=3)


def priors(layer: Layer, weight: Tensor, *names: str) -> dict[tuple[str, str], AxisPrior]:
    plugins = {name: load_plugin(name) for name in names}
    found = axis_priors(layer, plugins, SpectraCache().bases(layer.name, weight))
    return {(prior.factorization, prior.axis): prior for prior in found}


def rows(weight: Tensor) -> Tensor:
    return weight.flatten(1)


def columns(weight: Tensor) -> Tensor:
    return weight.transpose(0, 1).flatten(1)


class Odd(Factorization):
    """Axes of every kind; nothing is ever fitted."""

    @classmethod
    def axes(cls, layer: Layer) -> tuple[Axis, ...]:
        return (
            Axis("both", 1, 24, (rows, columns)),
            Axis("buckets", 4, 64),
            Axis("threshold", 0.0, 3.0, integer=False),
            Axis("narrow", 9, 11, (rows,)),
        )

    def __init__(self, layer: Layer, **values: float) -> None:
        super().__init__(layer, **values)
        self.table = self.factor(int(values["buckets"]))

    def fit(self, weight: Tensor, bases: Bases) -> None: ...

    def dense(self) -> Tensor:
        return self.table.mean().expand(self.layer.shape)


class Ring(Factorization):
    """An axis whose square is the rank; nothing is ever fitted."""

    @classmethod
    def axes(cls, layer: Layer) -> tuple[Axis, ...]:
        return (Axis("bond", 1, 5, (rows,), bound=lambda bond: int(bond) ** 2),)

    def __init__(self, layer: Layer, *, bond: int) -> None:
        super().__init__(layer, bond=bond)
        self.cores = self.factor(bond, bond, 2)

    def fit(self, weight: Tensor, bases: Bases) -> None: ...

    def dense(self) -> Tensor:
        return self.cores.mean().expand(self.layer.shape)


@pytest.mark.parametrize(("rank", "bond"), [(4, 2), (6, 3), (9, 3), (10, 4), (20, 5)])
def test_the_prior_is_the_smallest_value_that_allows_the_rank(rank: int, bond: int) -> None:
    bases = SpectraCache().bases("conv", tucker(rank, 8, noise=0.02))
    (found,) = axis_priors(CONV, {"ring": Ring}, bases)
    assert (found.vbmf_rank, found.prior, found.high) == (rank, bond, 5)


def odd(weight: Tensor) -> Mapping[str, AxisPrior]:
    return {prior.axis: prior for prior in axis_priors(CONV, {"odd": Odd}, SpectraCache().bases("conv", weight))}


def test_tucker_ranks_of_both_modes_are_found() -> None:
    found = priors(CONV, tucker(6, 4), "tucker2")
    rank_out, rank_in = found["tucker2", "rank_out"], found["tucker2", "rank_in"]
    assert (rank_out.vbmf_rank, rank_out.prior, rank_out.high, rank_out.low) == (6, 6, 32, 1)
    assert (rank_in.vbmf_rank, rank_in.prior, rank_in.high, rank_in.low) == (4, 4, 24, 1)
    assert rank_out.noise_variance == pytest.approx(0.01, rel=0.1)
    assert rank_out.energy_kept == pytest.approx(1 / 1.01, abs=0.01)


def test_axes_come_in_the_order_of_the_plugins_and_their_axes() -> None:
    found = priors(CONV, tucker(6, 4), "tucker2", "svd")
    assert list(found) == [("tucker2", "rank_out"), ("tucker2", "rank_in"), ("svd", "rank")]
    assert {prior.layer for prior in found.values()} == {"conv"}


def test_a_factorization_that_does_not_apply_has_no_axes() -> None:
    assert list(priors(LINEAR, normal(40, 60), "tucker2", "svd")) == [("svd", "rank")]


def test_prior_of_pure_noise_is_rank_one() -> None:
    found = priors(LINEAR, normal(40, 60), "svd")["svd", "rank"]
    assert (found.vbmf_rank, found.prior) == (0, 1)


def test_prior_of_several_unfoldings_is_the_largest_rank() -> None:
    weight = tucker(6, 4)
    both, single = odd(weight)["both"], priors(CONV, weight, "tucker2")
    assert (both.vbmf_rank, both.prior) == (6, 6)
    assert both.noise_variance == single["tucker2", "rank_out"].noise_variance


def test_priors_stay_within_their_axis() -> None:
    assert (odd(tucker(6, 4))["narrow"].vbmf_rank, odd(tucker(6, 4))["narrow"].prior) == (6, 9)
    assert odd(tucker(15, 10, noise=0.02))["narrow"].prior == 11


def test_axes_without_unfoldings_start_in_the_middle() -> None:
    found = odd(tucker(6, 4))
    assert found["buckets"].prior == pytest.approx(16)
    assert found["threshold"].prior == pytest.approx(1.5)
    for name in ("buckets", "threshold"):
        assert (found[name].vbmf_rank, found[name].noise_variance, found[name].energy_kept) == (None, None, None)


def test_break_even_of_a_linear_svd_is_that_of_the_closed_form() -> None:
    # r·(40 + 60) < 40·60 for the parameters (the bias is on both sides) and the MACs alike.
    assert priors(LINEAR, normal(40, 60), "svd")["svd", "rank"].break_even == 23


def test_break_even_of_a_convolution_looks_at_parameters_and_macs() -> None:
    # Channel SVD: r·(24·9 + 32) < 32·24·9 for both.
    assert priors(CONV, tucker(6, 4), "svd")["svd", "rank"].break_even == 32 * 24 * 9 // (24 * 9 + 32)


def test_break_even_moves_all_axes_of_the_factorization_together() -> None:
    found = priors(CONV, tucker(6, 4), "tucker2")
    out, inside = (found["tucker2", name].break_even for name in ("rank_out", "rank_in"))
    assert out is not None
    assert inside is not None
    assert cheaper(out, round(1 + (out - 1) / 31 * 23))
    assert not cheaper(out + 1, round(1 + out / 31 * 23))
    assert cheaper(round(1 + (inside - 1) / 23 * 31), inside)
    assert not cheaper(round(1 + inside / 23 * 31), inside + 1)


def cheaper(rank_out: int, rank_in: int) -> bool:
    """Tucker-2 on the 10 × 10 input, by the closed form: the 1×1 convolutions and the core at every pixel."""
    return 24 * rank_in + 9 * rank_in * rank_out + 32 * rank_out < 32 * 24 * 9


def test_break_even_of_a_strided_layer_is_decided_by_its_macs() -> None:
    # Tucker-2's first convolution runs before the stride, on four times as many pixels as the dense one.
    strided = Layer("conv", "conv2d", (32, 24, 3, 3), True, (2, 2), ((1, 1), (1, 1)), inputs=((1, 24, 10, 10),))
    plain = priors(CONV, tucker(6, 4), "tucker2")["tucker2", "rank_out"].break_even
    found = priors(strided, tucker(6, 4), "tucker2")["tucker2", "rank_out"].break_even
    assert plain is not None
    assert found is not None
    assert found < plain


def test_break_even_is_none_where_nothing_is_saved() -> None:
    tiny = Layer("fc", "linear", (2, 2), inputs=((1, 2),))
    assert priors(tiny, normal(2, 2), "svd")["svd", "rank"].break_even is None
    assert odd(tucker(6, 4))["threshold"].break_even is None
    assert odd(tucker(6, 4))["buckets"].break_even is None  # fewer parameters, but every MAC of the dense layer


def test_break_even_of_a_layer_without_inputs_is_decided_by_its_parameters() -> None:
    unseen = Layer("fc", "linear", (40, 60))
    assert priors(unseen, normal(40, 60), "svd")["svd", "rank"].break_even == 23


def test_axis_priors_of_weights_that_are_not_finite_name_the_layer() -> None:
    with pytest.raises(LayerError, match="layer 'fc'"):
        priors(LINEAR, torch.full((40, 60), float("nan")), "svd")


def test_axis_priors_leave_the_weight_unchanged() -> None:
    weight = tucker(6, 4)
    before = weight.clone()
    priors(CONV, weight, "tucker2", "svd")
    assert torch.equal(weight, before)


def test_rank_rule_changes_the_prior_and_nothing_else() -> None:
    weight, plugins = tucker(6, 4, noise=1.0), {"tucker2": load_plugin("tucker2")}
    cache = SpectraCache()
    plain = axis_priors(CONV, plugins, cache.bases("conv", weight))
    ruled = axis_priors(CONV, plugins, cache.bases("conv", weight), PriorSettings(rule="tail", level=0.2))
    for before, after, unfolding in zip(plain, ruled, (rows, columns), strict=True):
        expected = tail_rank(cache.bases("conv", weight).spectrum(unfolding), 0.2)
        assert after == replace(before, prior=expected)
        assert expected != before.prior


def test_output_spectra_depend_on_the_inputs() -> None:
    # Two inputs are all that ever come: two directions are all that the outputs have.
    weight, known = normal(40, 60), torch.zeros(60, 60)
    known[3, 3] = known[7, 7] = 1.0
    settings = PriorSettings(rule="energy", level=0.999, spectra="outputs")
    plugins = {"svd": load_plugin("svd")}
    (blind,) = axis_priors(LINEAR, plugins, SpectraCache().bases("fc", weight), settings)
    (seeing,) = axis_priors(LINEAR, plugins, SpectraCache().bases("fc", weight, known), settings)
    assert (seeing.prior, seeing.vbmf_rank) == (2, blind.vbmf_rank)
    assert blind.prior > 35
