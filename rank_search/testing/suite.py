"""The laws as a suite: a list of results for the command line, and a base class for pytest."""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from rank_search.errors import ContractError
from rank_search.layers import Axis, Factorization, Layer, PooledFactorization, axes_of, is_pooled
from rank_search.testing.case import Case, axis_values
from rank_search.testing.geometries import geometries_for
from rank_search.testing.laws import LAWS
from rank_search.testing.pool_law import POOLS, PoolCase

if TYPE_CHECKING:
    import pytest


@dataclass(frozen=True)
class LawResult:
    """Whether a law holds for one layer; `detail` is what was tried, or what was found with which values."""

    law: str
    ok: bool
    detail: str
    layer: str

    def __str__(self) -> str:
        return f"{self.law} {'holds' if self.ok else 'is broken'} on {self.layer}: {self.detail}"


def check_factorization(
    factorization: type[Factorization], *, equality: bool = False, layers: tuple[Layer, ...] = ()
) -> list[LawResult]:
    """Try all six laws on every geometry, and on further layers (these need `inputs`).

    `equality` claims more: that a fit is as close as the largest tail of its spectra, which is as close as can
    be. What the factorization raises is a broken law, not an exception. A factorization that applies to no
    layer at all, and to no pool, breaks Life. Of one that shares factors, the laws are tried on layers by themselves,
    where it applies to them, and a seventh, Pool, on pools of three.
    """
    tried = (*geometries_for(factorization), *layers)
    results = [check_law(law, factorization, layer, equality) for law in LAWS for layer in tried]
    pools = [check_pool(factorization, pool) for pool in POOLS] if is_pooled(factorization) else []
    return [*results, *pools, *check_use(factorization, tried)]


def check_law(law: str, factorization: type[Factorization], layer: Layer, equality: bool = False) -> LawResult:
    """Try one law on one layer, with low, high and middle axis values."""
    values: dict[str, float] = {}
    try:
        axes = checked_axes(factorization, layer)
        choices = axis_values(axes) if axes else []
        for values in choices:
            case = Case(factorization, layer, axes, values, equality)
            if violations := list(LAWS[law](case)):
                return LawResult(law, False, f"with {_written(values)}: {'; '.join(violations)}", layer.name)
    except Exception as error:  # noqa: BLE001 - a stranger's code may raise anything
        return LawResult(law, False, f"with {_written(values)}: {_where(error)}", layer.name)
    return LawResult(law, True, _tried(choices), layer.name)


def check_pool(factorization: type[Factorization], pool: str) -> LawResult:
    """Try a factorization that shares factors on one of `POOLS`, with low, high and middle axis values."""
    try:
        if not issubclass(factorization, PooledFactorization):
            raise ContractError(f"{factorization.__name__} is no PooledFactorization, so that it has no pools.")
        case = PoolCase.of(factorization, *POOLS[pool])
        violations, tried = list(case.violations()), _tried(case.tried())
    except Exception as error:  # noqa: BLE001 - a stranger's code may raise anything
        return LawResult("Pool", False, _where(error), pool)
    return LawResult("Pool", not violations, "; ".join(violations) or tried, pool)


def check_use(factorization: type[Factorization], layers: tuple[Layer, ...]) -> list[LawResult]:
    """A broken Life if the factorization applies to none of the layers, and to no pool; nothing otherwise."""
    if any(_applies(factorization, layer) for layer in (*layers, *_pooled_layers(factorization))):
        return []
    return [LawResult("Life", False, f"axes gives () for each of {len(layers)} layers", "every layer")]


def checked_axes(factorization: type[Factorization], layer: Layer) -> tuple[Axis, ...]:
    """The axes for a layer.

    Raises:
        ContractError: they are not a tuple of `Axis` with different names and low ≤ high.
    """
    axes = axes_of(factorization, layer)
    if not isinstance(axes, tuple) or not all(isinstance(axis, Axis) for axis in axes):
        raise ContractError(f"axes gives a tuple of Axis, or () where it does not apply; found {axes!r}.")
    if len({axis.name for axis in axes}) < len(axes) or not all(axis.low <= axis.high for axis in axes):
        raise ContractError(f"Axes have different names, and low <= high; found {axes!r}.")
    return axes


class FactorizationLaws:
    """The six laws as pytest tests, one for each law and layer: subclass it and name the factorization.

        class TestKronecker(FactorizationLaws):
            factorization = Kronecker
            equality = True     # its fit reaches the spectrum bound

    `layers` adds layers (with `inputs`) to the geometries that are always tried.
    """

    factorization: ClassVar[type[Factorization]]
    equality: ClassVar[bool] = False
    layers: ClassVar[tuple[Layer, ...]] = ()

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        if "layer" in metafunc.fixturenames:
            tried = (*geometries_for(self.factorization), *self.layers)
            metafunc.parametrize("layer", tried, ids=[layer.name for layer in tried])

    def test_agreement(self, layer: Layer) -> None:
        self.hold("Agreement", layer)

    def test_rank_law(self, layer: Layer) -> None:
        self.hold("Rank law", layer)

    def test_spectrum_bound(self, layer: Layer) -> None:
        self.hold("Spectrum bound", layer)

    def test_skeleton(self, layer: Layer) -> None:
        self.hold("Skeleton", layer)

    def test_life(self, layer: Layer) -> None:
        self.hold("Life", layer)

    def test_settling(self, layer: Layer) -> None:
        self.hold("Settling", layer)

    def test_pools(self) -> None:
        for pool in POOLS if is_pooled(self.factorization) else ():
            result = check_pool(self.factorization, pool)
            assert result.ok, str(result)

    def test_it_applies_to_some_layer(self) -> None:
        assert not check_use(self.factorization, (*geometries_for(self.factorization), *self.layers))

    def hold(self, law: str, layer: Layer) -> None:
        result = check_law(law, self.factorization, layer, self.equality)
        assert result.ok, str(result)


def _pooled_layers(factorization: type[Factorization]) -> list[Layer]:
    """Those of all `POOLS`, where the factorization shares factors."""
    if not issubclass(factorization, PooledFactorization):
        return []
    cases = (PoolCase.of(factorization, *POOLS[pool]) for pool in POOLS)
    return [layer for case in cases for layer in case.layers.values()]


def _applies(factorization: type[Factorization], layer: Layer) -> bool:
    try:
        return axes_of(factorization, layer) != ()
    except Exception:  # noqa: BLE001 - that is reported by every law
        return True


def _written(values: dict[str, float]) -> str:
    return ", ".join(f"{name}={value}" for name, value in values.items()) or "no axis values yet"


def _tried(choices: list[dict[str, float]]) -> str:
    return " | ".join(_written(values) for values in choices) or "does not apply"


def _where(error: Exception) -> str:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"raised {type(error).__name__}: {error} ({Path(frame.filename).name}:{frame.lineno}, {frame.name})"
