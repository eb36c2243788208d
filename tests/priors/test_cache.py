import multiprocessing
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

from rank_search.errors import LayerError
from rank_search.layers import DirectBases, Layer, load_plugin, output_basis, output_error
from rank_search.priors import SpectraCache, cache
from rank_search.priors.cache import CachedBases
from rank_search.priors.spectrum import Spectrum


def rows(weight: Tensor) -> Tensor:
    return weight.flatten(1)


def same_rows(weight: Tensor) -> Tensor:
    return weight.flatten(1)


def mode(weight: Tensor, index: int) -> Tensor:
    return weight.movedim(index, 0).flatten(1)


def kernel(seed: int = 0) -> Tensor:
    return torch.randn(8, 6, 3, 3, generator=torch.Generator().manual_seed(seed))


class Spy:
    """Counts the decompositions, or forbids them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls = 0
        self.forbidden = False
        monkeypatch.setattr(cache, "decompose", self._watch(cache.decompose))
        monkeypatch.setattr(Spectrum, "of", self._watch(Spectrum.of))

    def _watch(self, work: Callable[..., object]) -> Callable[..., object]:
        def watched(*args: object) -> object:
            assert not self.forbidden, "a warm cache decomposes nothing"
            self.calls += 1
            return work(*args)

        return watched


@pytest.fixture
def spy(monkeypatch: pytest.MonkeyPatch) -> Spy:
    return Spy(monkeypatch)


def test_cached_bases_are_those_of_the_weight() -> None:
    weight = kernel()
    found = SpectraCache().bases("conv", weight)(rows)
    expected = DirectBases(weight)(rows)
    assert torch.equal(found.left, expected.left)
    assert torch.equal(found.values, expected.values)
    assert torch.equal(found.projected, expected.projected)


def test_an_unfolding_is_decomposed_once(spy: Spy) -> None:
    bases = SpectraCache().bases("conv", kernel())
    assert bases(rows) is bases(rows)
    assert spy.calls == 1


def test_unfoldings_that_give_the_same_matrix_share_a_decomposition(spy: Spy) -> None:
    bases = SpectraCache().bases("conv", kernel())
    assert bases(rows).left is bases(same_rows).left
    bases(partial(mode, index=0))
    assert spy.calls == 1


def test_partials_are_told_apart_by_their_arguments(spy: Spy) -> None:
    bases = SpectraCache().bases("conv", kernel())
    assert bases(partial(mode, index=0)).left.shape == (8, 8)
    assert bases(partial(mode, index=1)).left.shape == (6, 6)
    assert bases(partial(mode, index=1)) is bases(partial(mode, index=1))
    assert spy.calls == 2


def test_lambdas_of_one_name_are_told_apart() -> None:
    bases = SpectraCache().bases("conv", kernel())
    sizes = [bases(lambda w, i=i: mode(w, i)).left.shape[0] for i in (0, 1)]
    assert sizes == [8, 6]


def test_the_same_weight_gives_the_same_bases_until_it_changes(spy: Spy) -> None:
    spectra = SpectraCache()
    weight = kernel()
    first = spectra.bases("conv", weight)
    assert spectra.bases("conv", weight.clone()) is first
    weight[0, 0, 0, 0] += 1
    changed = spectra.bases("conv", weight)
    assert changed is not first
    assert not torch.equal(changed(rows).values, first(rows).values)


def test_a_weight_that_changes_later_does_not_change_its_bases() -> None:
    weight = kernel()
    expected = DirectBases(weight.clone())(rows).values
    bases = SpectraCache().bases("conv", weight)
    weight.zero_()
    assert torch.equal(bases(rows).values, expected)


def test_cached_memos_are_computed_once() -> None:
    bases = SpectraCache().bases("conv", kernel())
    computed = [bases.memo("core", lambda: torch.ones(2)) for _ in range(2)]
    assert computed[0] is computed[1]


def fit_everything(spectra: SpectraCache) -> list[Tensor]:
    layer = Layer("conv", "conv2d", (8, 6, 3, 3))
    bases = spectra.bases("conv", kernel())
    svd = load_plugin("svd")(layer, rank=3)
    tucker = load_plugin("tucker2")(layer, rank_out=4, rank_in=2)
    spatial = load_plugin("svd-spatial")(layer, rank=5)
    for module in (svd, tucker, spatial):
        module.fit(kernel(), bases)
    bases.spectrum(rows)
    return [module.dense().detach() for module in (svd, tucker, spatial)]


def test_a_warm_start_from_disk_decomposes_nothing(tmp_path: Path, spy: Spy) -> None:
    cold = fit_everything(SpectraCache(tmp_path))
    assert spy.calls == 4  # two modes of Tucker-2 (one of them also SVD's), one of the spatial SVD, one spectrum
    spy.forbidden = True
    warm = fit_everything(SpectraCache(tmp_path))
    assert all(torch.equal(one, other) for one, other in zip(cold, warm, strict=True))


def test_another_layer_with_the_same_weight_is_warm(tmp_path: Path, spy: Spy) -> None:
    SpectraCache(tmp_path).bases("conv", kernel())(rows)
    spy.forbidden = True
    SpectraCache(tmp_path).bases("renamed", kernel())(rows)


def test_spectra_come_back_from_disk_as_they_were(tmp_path: Path, spy: Spy) -> None:
    cold = SpectraCache(tmp_path).bases("conv", kernel()).spectrum(rows)
    spy.forbidden = True
    warm = SpectraCache(tmp_path).bases("conv", kernel()).spectrum(rows)
    assert (warm.rows, warm.columns, warm.values.tolist()) == (cold.rows, cold.columns, cold.values.tolist())


@pytest.mark.parametrize("length", [0, 5, 100, -1])
def test_damaged_cache_files_are_rebuilt(tmp_path: Path, spy: Spy, length: int) -> None:
    expected = SpectraCache(tmp_path).bases("conv", kernel())(rows)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    path.write_bytes(whole[:length])
    found = SpectraCache(tmp_path).bases("conv", kernel())(rows)
    assert torch.equal(found.left, expected.left)
    assert spy.calls == 2
    assert path.read_bytes() == whole


def test_cache_falls_back_on_memory_where_its_folder_cannot_be_written(tmp_path: Path, spy: Spy) -> None:
    (tmp_path / "file").write_text("in the way")
    bases = SpectraCache(tmp_path / "file").bases("conv", kernel())
    assert bases(rows) is bases(rows)
    assert spy.calls == 1


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_cache_names_the_layer_of_weights_that_are_not_finite(bad: float) -> None:
    weight = kernel()
    weight[1, 2, 0, 0] = bad
    with pytest.raises(LayerError, match=r"layer 'stage\.conv' has 1 NaN or infinite entries out of 432"):
        SpectraCache().bases("stage.conv", weight)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_cached_bases_have_the_dtype_of_the_weight(tmp_path: Path, dtype: torch.dtype) -> None:
    for _ in range(2):
        basis = SpectraCache(tmp_path).bases("fc", torch.eye(4, dtype=dtype))(rows)
        assert basis.left.dtype == basis.projected.dtype == dtype


def fill(folder: Path) -> float:
    bases: CachedBases = SpectraCache(folder).bases("conv", kernel())
    return float(sum(bases(partial(mode, index=index)).values.sum() for index in range(4)))


def test_cache_folder_is_filled_by_several_processes(tmp_path: Path, spy: Spy) -> None:
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        first, second = pool.map(fill, [tmp_path, tmp_path], chunksize=1)
    spy.forbidden = True
    assert first == second == fill(tmp_path)
    assert all(path.suffix == ".safetensors" for path in tmp_path.iterdir())


# ---- with what is known of the inputs --------------------------------------------------------------------


def moment(seed: int = 0, samples: int = 200) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    X = (torch.randn(samples, 54, generator=generator) @ torch.randn(54, 54, generator=generator)).relu()
    return X.T @ X / samples


def test_output_basis_is_cached_apart_from_that_of_the_weight() -> None:
    weight, known = kernel(), moment()
    bases, direct = SpectraCache().bases("conv", weight, known), DirectBases(weight, known)
    expected = output_basis(weight, known)
    for found in (bases.outputs(), direct.outputs()):
        assert torch.equal(found.left, expected.left)
        assert torch.equal(found.projected, expected.projected)
    assert bases.outputs() is bases.outputs()
    assert bases.moment is not None
    assert torch.equal(bases.moment, known)
    plain = SpectraCache().bases("conv", weight)
    assert plain.moment is None
    assert torch.equal(plain.outputs().left, plain(rows).left)


def test_output_basis_changes_with_the_inputs(spy: Spy) -> None:
    cached, weight = SpectraCache(), kernel()
    first = cached.bases("conv", weight, moment())
    assert cached.bases("conv", weight, moment()) is first
    first.memo("span", lambda: torch.ones(1))
    second = cached.bases("conv", weight, moment(1))
    assert second.memo("span", lambda: torch.zeros(1)) == 0
    assert cached.bases("conv", weight) is not second
    assert not torch.equal(second.outputs().left, first.outputs().left)


@pytest.mark.parametrize("rank", [0, 1, 4, 7, 8])
def test_tails_of_an_output_spectrum_are_errors_of_the_best_outputs(rank: int) -> None:
    weight, known = kernel(), moment()
    bases = SpectraCache().bases("conv", weight, known)
    found, basis = bases.output_spectrum(rows), bases.outputs()
    error = output_error(weight, basis.left[:, :rank] @ basis.projected[:rank], known)
    total = output_error(weight, torch.zeros_like(weight), known)
    assert float((found.values[rank:] ** 2).sum()) == pytest.approx(error, rel=1e-4, abs=1e-6 * total)
    assert found.energy == pytest.approx(total, rel=1e-5)


def test_output_spectrum_without_a_moment_is_that_of_the_weight() -> None:
    bases = SpectraCache().bases("conv", kernel())
    assert bases.output_spectrum(rows) is bases.spectrum(rows)


def test_output_spectrum_of_isotropic_inputs_is_that_of_the_weight(tmp_path: Path) -> None:
    bases = SpectraCache(tmp_path).bases("conv", kernel(), 4 * torch.eye(54))
    for unfolding in (rows, partial(mode, index=1), partial(mode, index=2)):
        expected = bases.spectrum(unfolding)
        found = bases.output_spectrum(unfolding)
        assert found.values == pytest.approx(2 * expected.values, rel=1e-5)
        assert (found.rows, found.columns) == (expected.rows, expected.columns)


def test_cache_names_the_layer_of_a_moment_that_is_not_finite() -> None:
    with pytest.raises(LayerError, match="'conv'"):
        SpectraCache().bases("conv", kernel(), torch.full((54, 54), float("nan")))
