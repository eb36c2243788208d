"""The spectra cache: each unfolding of each weight is decomposed once, for all trials and all processes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Iterable, Mapping
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from rank_search.errors import LayerError
from rank_search.layers import (
    Basis,
    Unfolding,
    Weighed,
    block_diagonal,
    by_block,
    by_output,
    decompose,
    output_basis,
    root,
    times,
)
from rank_search.priors.kept_numbers import KeptNumbers
from rank_search.priors.spectrum import Spectrum
from rank_search.priors.tensor_files import TensorFiles, digest

Decompositions = Mapping[str, Mapping[str, Tensor]]


class SpectraCache:
    """Spectra and singular bases of the layers' weights, in memory and, given a folder, on disk.

    A decomposition is known by the *content* of the unfolded matrix, so it holds for any unfolding, layer, model,
    process and version of a plugin that gives this matrix. It keeps the bases of the latest weight of each layer
    name in memory, and a copy of that weight.

    Args:
        folder: where they are kept; None: nowhere.
        known: decompositions that were made elsewhere (`CachedBases.decompositions`).
        mapped: whether decompositions stay in the folder, and no weight is copied: for what memory has no room for.
            Then nobody may change the weights meanwhile.
    """

    def __init__(self, folder: Path | None = None, known: Decompositions | None = None, mapped: bool = False) -> None:
        self._files = None if folder is None else TensorFiles(folder, mapped)
        self._known = known or {}
        self._latest: dict[str, CachedBases] = {}

    def bases(
        self,
        layer_name: str,
        weight: Tensor,
        moment: Tensor | None = None,
        gradients: Tensor | None = None,
        groups: int = 1,
    ) -> CachedBases:
        """The bases of a layer's weight; the same object for as long as weight and moment stay the same.

        Both are hashed in each call, so keep the result for several fits of one weight.

        Args:
            moment: the second moment of the layer's inputs, if it is known (see `Bases`).
            gradients: that of the gradients of the loss at its outputs, if it is known (see `Weighed`).
            groups: of the layer; with groups there is a moment for each.

        Raises:
            LayerError: the weight has NaN or infinite entries.
        """
        seen = {"moment": moment, "gradients": gradients, "groups": torch.tensor([groups]) if groups > 1 else None}
        known = {name: each for name, each in seen.items() if each is not None}
        key = digest({weight.device.type: weight} | known)
        latest = self._latest.get(layer_name)
        if latest is None or latest.key != key:
            latest = CachedBases(layer_name, weight, key, self._files, self._known, moment)
            latest.groups = groups
            if gradients is not None:
                latest.weigh(gradients)
            self._latest[layer_name] = latest
        return latest


class CachedBases:
    """The `Bases` of one weight: looked up, or read from disk, or decomposed, whichever works first.

    A lookup goes by the unfolding function itself, or for a `functools.partial` by its function and arguments:
    a partial made anew is recognized; a lambda made anew is not, and its matrix is unfolded and hashed again.

    Attributes:
        key: digest of the weight, the kind of its device, and the moments.
        weight: a copy of it, found to be finite; itself, if decompositions are mapped from files.
        groups: of the layer; if there are several, bases are stacks, and spectra those of all blocks together.
        gradients: the second moment of the gradients at its outputs, or None; likewise.
        weighed: the weight as the loss sees it, where the gradients are known.
    """

    def __init__(
        self,
        layer_name: str,
        weight: Tensor,
        key: bytes,
        files: TensorFiles | None,
        known: Decompositions,
        moment: Tensor | None = None,
    ) -> None:
        self.key = key
        self.groups = 1
        self.gradients: Tensor | None = None
        self._mapped = files is not None and files.mapped
        checked = None if moment is None else _checked(layer_name, moment)
        self._moment = checked if checked is None or self._mapped else checked.to(weight.device)
        self._layer_name = layer_name
        self.weight = _checked(layer_name, weight.detach() if self._mapped else weight.detach().clone())
        self._files = files
        self._bases: dict[Hashable, Basis] = {}
        self._spectra: dict[Hashable, Spectrum] = {}
        self._memo: dict[str, Tensor] = {}
        self._stored: dict[str, Mapping[str, Tensor]] = dict(known)
        self._outputs: Basis | None = None
        self._of_outputs: Tensor | None = None
        self.weighed: Weighed | None = None

    @property
    def moment(self) -> Tensor | None:
        """The second moment of the layer's inputs, or None; on the weight's device."""
        return None if self._moment is None else self._moment.to(self.weight.device)

    def weigh(self, gradients: Tensor) -> None:
        """Make `weighed` of the gradients' second moment; what is decomposed for it is among `decompositions`.

        Raises:
            LayerError: it has NaN or infinite entries.
        """
        self.gradients = _checked(self._layer_name, gradients.to(self.weight.device))
        self.weighed = Weighed.of(self.weight, block_diagonal(self.gradients, self.groups), self._beside)

    def _beside(self, moved: Tensor) -> CachedBases:
        key = digest({moved.device.type: moved})
        bases = CachedBases(self._layer_name, moved, key, self._files, {}, self._moment)
        bases._stored, bases.groups = self._stored, self.groups
        return bases

    @property
    def decompositions(self) -> Decompositions:
        """Everything that has been decomposed so far, by names that follow from the contents."""
        return self._stored

    def decompose(self, unfoldings: Iterable[Unfolding]) -> None:
        """Decompose all these unfoldings now."""
        for unfolding in unfoldings:
            self(unfolding)
            if self.weighed is not None:
                self.weighed.bases(unfolding)

    def __call__(self, unfolding: Unfolding) -> Basis:
        """The basis of that unfolding of the weight, on the weight's device."""
        name = _identity(unfolding)
        if name not in self._bases:
            self._bases[name] = self._basis(by_block(unfolding, self.groups, self.weight))
        return self._here(self._bases[name])

    def spectrum(self, unfolding: Unfolding) -> Spectrum:
        """The spectrum of that unfolding of the weight, without its dead rows and columns."""
        name = _identity(unfolding)
        if name not in self._spectra:
            self._spectra[name] = self._spectrum(by_block(unfolding, self.groups, self.weight))
        return self._spectra[name]

    def outputs(self) -> Basis:
        """The basis whose first r directions are the best r for the layer's outputs; without a moment the plain one."""
        if self.moment is None:
            return self(by_output)
        if self._outputs is None:
            self._outputs = self._basis_for(self.moment)
        return self._here(self._outputs)

    def _basis_for(self, moment: Tensor) -> Basis:
        """That of the outputs; in a file, if decompositions are mapped."""
        if not self._mapped:
            return output_basis(self.weight, moment)
        name = f"outputs-1-{self.key.hex()}"
        return Basis(**self._from_disk(name, lambda: _tensors_of(output_basis(self.weight, moment))))

    def _here(self, basis: Basis) -> Basis:
        """On the weight's device, and what is mapped from a file only for as long as it is used."""
        device = self.weight.device
        if basis.left.device == device:
            return basis
        return Basis(basis.left.to(device), basis.values.to(device), basis.projected.to(device))

    def output_spectrum(self, unfolding: Unfolding) -> Spectrum:
        """The spectrum of that unfolding of W·C^½: its tails are errors of the outputs, exactly for out × (in·kh·kw).

        For other unfoldings the modes of the weight stay apart only as far as C is a product of one matrix for each,
        and the tails are estimates. Without a moment the spectrum of the weight.
        """
        if self.moment is None:
            return self.spectrum(unfolding)
        seen = self._of_outputs
        if seen is None:
            exact = by_block(_seen, self.groups, self.weight, self.moment)
            seen = exact.view_as(self.weight).to(self.weight.dtype)
            self._of_outputs = None if self._mapped else seen
        return self._spectrum(by_block(unfolding, self.groups, seen))

    def memo(self, key: str, compute: Callable[[], Tensor]) -> Tensor:
        """What `compute` returned the first time for this key; in memory only."""
        if key not in self._memo:
            self._memo[key] = compute()
        return self._memo[key]

    def numbers(self, about: str) -> KeptNumbers:
        """What was computed for this weight and this moment, kept between runs.

        Args:
            about: everything else that the numbers depend on, versions of code included.
        """
        named = hashlib.sha256(self.key + about.encode()).hexdigest()
        return KeptNumbers(self._files, f"numbers-1-{named}")

    def _basis(self, matrix: Tensor) -> Basis:
        def tensors() -> dict[str, Tensor]:
            return _tensors_of(
                decompose(matrix) if self.groups == 1 else Basis.stacked([decompose(each) for each in matrix])
            )

        basis = Basis(**self._once("basis-1", matrix, tensors))
        return basis if self._mapped else self._here(basis)

    def _spectrum(self, matrix: Tensor) -> Spectrum:
        def tensors() -> dict[str, Tensor]:
            found = (Spectrum.of_stack if self.groups > 1 else Spectrum.of)(matrix, f"layer {self._layer_name!r}")
            return {"values": torch.from_numpy(found.values), "sizes": torch.tensor([found.rows, found.columns])}

        stored = self._once("spectrum-1", matrix, tensors)
        rows, columns = stored["sizes"].tolist()
        return Spectrum(stored["values"].numpy(), rows, columns)

    def _once(self, kind: str, matrix: Tensor, compute: Callable[[], dict[str, Tensor]]) -> Mapping[str, Tensor]:
        """From memory or disk, or computed and kept in both. `kind` has the version of the computation in it."""
        name = f"{kind}-{digest({'matrix': matrix}).hex()}"
        if name not in self._stored:
            self._stored[name] = self._from_disk(name, compute)
        return self._stored[name]

    def _from_disk(self, name: str, compute: Callable[[], dict[str, Tensor]]) -> Mapping[str, Tensor]:
        if self._files is None:
            return compute()
        tensors = self._files.load(name)
        return self._files.keep(name, compute()) if tensors is None else tensors


def _tensors_of(basis: Basis) -> dict[str, Tensor]:
    return {"left": basis.left, "values": basis.values, "projected": basis.projected}


def _seen(weight: Tensor, moment: Tensor) -> Tensor:
    return times(by_output(weight).to(torch.float64), root(moment))


def _identity(unfolding: Unfolding) -> Hashable:
    if isinstance(unfolding, partial):
        return unfolding.func, unfolding.args, tuple(sorted(unfolding.keywords.items()))
    return unfolding


def _checked(layer_name: str, weight: Tensor) -> Tensor:
    bad = int((~torch.isfinite(weight)).sum())
    if bad:
        raise LayerError(
            f"Weights are finite numbers; layer {layer_name!r} has {bad} NaN or infinite entries out of "
            f"{weight.numel()}. Load a checkpoint from before training diverged, or exclude the layer "
            "([layers] exclude)."
        )
    return weight
