"""With the second moment of its inputs a fit comes at least as close to a layer's outputs as without, always."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from rank_search.layers import DirectBases, Factorization, Layer, load_plugin, output_error
from rank_search.testing.case import axis_values

NAMES = ("svd", "svd-spatial", "tucker2", "cp", "filter-basis")
SHAPES = ((8, 6, 3, 3), (4, 8, 3, 3), (5, 4, 1, 3), (6, 3, 2, 3))
KINDS = ("smooth", "mixed", "scaled", "few", "dead")


def layer(shape: tuple[int, ...], dtype: torch.dtype = torch.float64) -> Layer:
    return Layer("x", "conv2d", shape, dtype=dtype)


def weight_of(shape: tuple[int, ...], seed: int) -> Tensor:
    """Filters of very different norms: all of them dense."""
    generator = torch.Generator().manual_seed(seed)
    scales = torch.logspace(0, -1, shape[0], dtype=torch.float64)[:, None, None, None]
    return torch.randn(shape, generator=generator, dtype=torch.float64) * scales


def moment_of(shape: tuple[int, ...], kind: str, seed: int) -> Tensor:
    """Of real inputs: patches of images, smooth or not, or mixed numbers, few of them, or some of them always zero."""
    generator = torch.Generator().manual_seed(seed)
    size = shape[1] * shape[2] * shape[3]
    if kind == "smooth":
        images = torch.randn(3, shape[1], 10, 10, generator=generator, dtype=torch.float64)
        X = F.unfold(F.avg_pool2d(images, 5, 1, 2).relu(), shape[2:]).transpose(1, 2).flatten(0, 1)
    else:
        drawn = torch.randn(3 if kind == "few" else 200, size, generator=generator, dtype=torch.float64)
        X = (drawn @ torch.randn(size, size, generator=generator, dtype=torch.float64)).relu()
        if kind == "scaled":
            X = X * torch.exp(2 * torch.randn(size, generator=generator, dtype=torch.float64))
        if kind == "dead":
            X = X * (torch.rand(size, generator=generator) < 0.5)
    return X.T @ X / len(X)


def fitted(
    name: str, weight: Tensor, values: dict[str, float], bases: DirectBases, shape: tuple[int, ...]
) -> Factorization:
    module = load_plugin(name)(layer(shape, weight.dtype), **values)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.fill_(torch.nan)
    module.fit(weight, bases)
    return module


def choices(name: str, shape: tuple[int, ...]) -> list[dict[str, float]]:
    return axis_values(load_plugin(name).axes(layer(shape)))


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=30, deadline=None)
@given(shape=st.sampled_from(SHAPES), kind=st.sampled_from(KINDS), seed=st.integers(0, 1000))
def test_fit_with_a_moment_comes_closer_to_the_outputs(name: str, shape: tuple[int, ...], kind: str, seed: int) -> None:
    weight, moment = weight_of(shape, seed), moment_of(shape, kind, seed)
    before = weight.clone(), moment.clone()
    informed, plain = DirectBases(weight, moment), DirectBases(weight)
    total = output_error(weight, torch.zeros_like(weight), moment)
    for values in choices(name, shape):
        found = output_error(weight, fitted(name, weight, values, informed, shape).dense(), moment)
        without = output_error(weight, fitted(name, weight, values, plain, shape).dense(), moment)
        assert found <= without + 1e-6 * total, values
    assert torch.equal(weight, before[0])
    assert torch.equal(moment, before[1])


@pytest.mark.parametrize("name", NAMES)
def test_fit_with_a_moment_comes_much_closer_on_smooth_images(name: str) -> None:
    shape = (8, 6, 3, 3)
    weight, moment = weight_of(shape, 1), moment_of(shape, "smooth", 1)
    values = choices(name, shape)[-1]  # the middle of every axis
    modules = [
        fitted(name, weight, values, bases, shape) for bases in (DirectBases(weight, moment), DirectBases(weight))
    ]
    with_moment, without = (output_error(weight, module.dense(), moment) for module in modules)
    assert with_moment < 0.8 * without


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("scale", [1.0, 1e-4, 1e6])
def test_fit_with_a_moment_of_isotropic_inputs_is_no_worse_than_the_plain_fit(name: str, scale: float) -> None:
    shape = (8, 6, 3, 3)
    weight = weight_of(shape, 2)
    informed, plain = DirectBases(weight, scale * torch.eye(54)), DirectBases(weight)
    for values in choices(name, shape):
        found, without = (
            output_error(weight, fitted(name, weight, values, bases, shape).dense()) for bases in (informed, plain)
        )
        slack = 1e-9 * float(weight.norm() ** 2)
        assert found <= without * (1 + 1e-5) + slack
        if name in {"svd", "svd-spatial", "filter-basis"}:  # whose plain fits are the best there are (Eckart–Young)
            assert found == pytest.approx(without, rel=1e-5, abs=slack)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", SHAPES)
def test_fit_with_a_zero_moment_is_as_good_as_the_plain_fit(name: str, shape: tuple[int, ...]) -> None:
    weight, size = weight_of(shape, 3), shape[1] * shape[2] * shape[3]
    informed, plain = DirectBases(weight, torch.zeros(size, size)), DirectBases(weight)
    for values in choices(name, shape):
        found, without = (
            output_error(weight, fitted(name, weight, values, bases, shape).dense()) for bases in (informed, plain)
        )
        assert found <= without * (1 + 1e-6) + 1e-9 * float(weight.norm() ** 2)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["few", "dead"])
def test_fit_with_a_singular_moment_gives_finite_factors_of_modest_size(name: str, kind: str) -> None:
    for shape in SHAPES:
        weight, moment = weight_of(shape, 4), moment_of(shape, kind, 4)
        for each in (weight, torch.zeros_like(weight)):
            bases = DirectBases(each, moment)
            for values in choices(name, shape):
                found = fitted(name, each, values, bases, shape)
                assert all(parameter.isfinite().all() for name, parameter in found.named_parameters() if name != "bias")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", NAMES)
def test_fit_with_a_moment_keeps_dtypes_and_ignores_memory_formats(name: str, dtype: torch.dtype) -> None:
    shape = (8, 6, 3, 3)
    weight, moment = weight_of(shape, 5).to(dtype), moment_of(shape, "smooth", 5).float()
    last = weight.contiguous(memory_format=torch.channels_last)
    for values in choices(name, shape):
        found = fitted(name, weight, values, DirectBases(weight, moment), shape)
        again = fitted(name, last, values, DirectBases(last, moment), shape)
        assert found.dense().dtype == dtype
        torch.testing.assert_close(again.dense(), found.dense(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["svd", "tucker2"])
def test_fit_of_half_precision_weights_is_computed_in_double(name: str) -> None:
    shape = (8, 6, 3, 3)
    weight, moment = weight_of(shape, 5).to(torch.bfloat16), moment_of(shape, "smooth", 5).float()
    values = choices(name, shape)[-1]
    found = fitted(name, weight, values, DirectBases(weight, moment), shape).dense().detach().double()
    exact = fitted(name, weight.double(), values, DirectBases(weight.double(), moment), shape).dense().detach()
    assert float((found - exact).norm()) < 0.03 * float(exact.norm())


# ---- what the next fit costs -----------------------------------------------------------------------------

DECOMPOSITIONS = {"linalg_eigh", "_linalg_eigh", "linalg_qr", "_linalg_svd", "linalg_cholesky_ex", "linalg_solve_ex"}
DECOMPOSITIONS |= {"_linalg_solve_ex", "linalg_svd", "linalg_lstsq", "linalg_inv_ex"}


class Decompositions(TorchDispatchMode):
    """The largest side of each matrix that is decomposed."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, int]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in DECOMPOSITIONS:
            self.found.append((name, max(args[0].shape)))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("name", "cold", "warm", "left"),
    [
        ("svd", {"rank": 3}, {"rank": 7}, []),
        ("svd-spatial", {"rank": 3}, {"rank": 10}, []),
        # U is that of the outputs behind V, so each pair of ranks has an out × out problem of its own.
        ("tucker2", {"rank_out": 3, "rank_in": 2}, {"rank_out": 5, "rank_in": 4}, [("_linalg_eigh", 8)]),
    ],
)
def test_fit_of_the_next_rank_decomposes_nothing_large(
    name: str, cold: dict[str, float], warm: dict[str, float], left: list[tuple[str, int]]
) -> None:
    shape = (8, 6, 3, 3)
    weight = weight_of(shape, 6)
    bases = DirectBases(weight, moment_of(shape, "smooth", 6))
    with Decompositions() as first:
        fitted(name, weight, cold, bases, shape)
    assert first.found
    with Decompositions() as second:
        fitted(name, weight, warm, bases, shape)
    assert second.found == left


@pytest.mark.parametrize("name", NAMES)
def test_a_moment_may_be_wider_than_the_weight(name: str) -> None:
    """As where the data is short: in float64, beside a weight in float32."""
    shape = SHAPES[0]
    weight, moment = weight_of(shape, 0).to(torch.float32), moment_of(shape, "few", 0)
    bases = DirectBases(weight, moment)
    for values in choices(name, shape):
        form = fitted(name, weight, values, bases, shape)
        assert all(parameter.dtype == torch.float32 for parameter in form.parameters())
        assert output_error(weight, form.dense(), moment) <= 1.001 * output_error(weight, torch.zeros(shape), moment)
