"""A basis of filters: each channel's kernels are combinations of a few filters that all channels share."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

import torch
from torch import Tensor

from rank_search.basics import Float
from rank_search.layers import Axis, Bases, Factorization, Layer, cholesky, fit_closer, nested_span

SWEEPS: Final = 3  # the first brings most of what there is to gain, ten times as many less than a twentieth more
RIDGE: Final = 1e-6  # of the mean diagonal entry
SOLVED: Final = 1024  # unknowns of the filters up to which they are solved for


def by_place(weight: Float[Tensor, "out inputs ..."]) -> Float[Tensor, "places channels"]:
    """The kernel × (out·in) unfolding: a row for each place of the kernel."""
    return weight.flatten(2).movedim(2, 0).flatten(1)


def filter_span(
    weight: Float[Tensor, "out inputs ..."], moment: Float[Tensor, "n n"]
) -> Float[Tensor, "places places"]:
    """Orthonormal filters (one a column), the ones that matter most for the outputs first."""
    in_features, places = weight.shape[1], math.prod(weight.shape[2:])
    by_pixel = moment.view(in_features, places, in_features, places).diagonal(dim1=0, dim2=2).mean(-1)
    return nested_span(by_place(weight), by_pixel).to(weight.dtype)


def closest_to_outputs(
    weight: Float[Tensor, "out inputs ..."], moment: Float[Tensor, "n n"], rank: int
) -> Float[Tensor, "rows {rank}"]:
    """Filters (kernel × rank) over the mixing ((out·in) × rank), by alternating least squares in the outputs' metric.

    The start is `filter_span`. Each half has a closed form: the mixing is least squares behind the filters, and the
    rank·kernel numbers of the filters are behind the mixing; where these are more than `SOLVED`, the start is kept.
    Complexity: O(sweeps·(in·rank)²·(out + in·rank)).
    """
    W, C = weight.flatten(2).to(torch.float64), moment.to(torch.float64)
    places, out_features = W.shape[2], len(W)
    C = C + (RIDGE * float(C.diagonal().mean()) or 1.0) * torch.eye(len(C)).to(C)
    WC = (W.flatten(1) @ C).view_as(W)
    C = C.view(*W.shape[1:], *W.shape[1:])  # in, kernel, in, kernel
    Q = filter_span(weight, moment)[:, :rank].to(torch.float64)
    V = _best_mixing(C, WC, Q)
    for _ in range(SWEEPS if rank * places <= SOLVED else 0):
        Q = torch.linalg.qr(_best_filters(C, WC, V).T)[0]
        V = _best_mixing(C, WC, Q)
    return torch.cat([Q, V.reshape(out_features * W.shape[1], rank)]).to(weight.dtype)


def _best_mixing(C: Tensor, WC: Tensor, Q: Tensor) -> Tensor:
    """V (out × in × rank) for filters Q (kernel × rank)."""
    seen = torch.einsum("sa,isjt,tb->iajb", Q, C, Q).flatten(2).flatten(0, 1)  # (in·rank)²
    wanted = (WC @ Q).flatten(1)  # out × (in·rank)
    return torch.cholesky_solve(wanted.T, cholesky(seen)).T.reshape(*WC.shape[:2], -1)


def _best_filters(C: Tensor, WC: Tensor, V: Tensor) -> Tensor:
    """U (rank × kernel) for a mixing V (out × in × rank)."""
    mixed = torch.einsum("oia,ojb->iajb", V, V)
    seen = torch.einsum("isjt,iajb->asbt", C, mixed).flatten(2).flatten(0, 1)  # (rank·kernel)²
    ridge = RIDGE * float(seen.diagonal().mean()) or 1.0
    wanted = torch.einsum("ois,oia->as", WC, V)
    best: Tensor = torch.linalg.solve(seen + ridge * torch.eye(len(seen)).to(seen), wanted.flatten())
    return best.view_as(wanted)


class FilterBasis(Factorization):
    """W[o, i, s] = Σᵣ V[o, i, r]·U[r, s], s a place of the kernel; U (rank × kernel) filters, V (out × in × r) mixes.

    All channels share the filters: a depthwise convolution of each input channel with each filter, then a 1×1
    convolution of in·rank channels. Parameters rank·(out·in + kernel), MACs rank·in·(kernel + out) per output position;
    or the mixing goes first, and the filters sum what it gives, where that takes fewer MACs (see `mixes_first`).
    The rank is at most the size of the kernel. Equality in the spectrum bound (Eckart–Young); where the layer's inputs
    are known, alternating least squares for its outputs, once for each rank. A kernel of one place has nothing to
    share: there it does not apply, nor to grouped convolutions.
    """

    any_geometry = True

    @classmethod
    def axes(cls, layer: Layer) -> tuple[Axis, ...]:
        places = math.prod(layer.kernel)
        if places == 1 or layer.groups > 1:
            return ()
        return (Axis("rank", 1, min(places, layer.out_features * layer.in_features), (by_place,)),)

    def __init__(self, layer: Layer, *, rank: int) -> None:
        super().__init__(layer, rank=rank)
        self.filters = self.factor(rank, 1, *layer.kernel)
        self.mixing = self.factor(layer.out_features, layer.in_features, rank)

    @torch.no_grad()
    def fit(self, weight: Tensor, bases: Bases) -> None:
        fit_closer(self, weight, bases, self._fit_weight, self._fit_outputs)

    def _fit_weight(self, weight: Tensor, bases: Bases) -> None:
        basis, rank = bases(by_place), len(self.filters)
        self.filters.copy_(basis.left[:, :rank].T.reshape(self.filters.shape))
        self.mixing.copy_(basis.projected[:rank].T.reshape(self.mixing.shape))

    def _fit_outputs(self, weight: Tensor, bases: Bases, moment: Tensor) -> None:
        rank = len(self.filters)
        solved = bases.memo(f"filter-basis-{rank}", lambda: closest_to_outputs(weight, moment, rank))
        places = len(solved) - self.mixing[..., 0].numel()
        self.filters.copy_(solved[:places].T.reshape(self.filters.shape))
        self.mixing.copy_(solved[places:].reshape(self.mixing.shape))

    @torch.no_grad()
    def map_outputs(self, matrix: Tensor) -> bool:
        self.mixing.copy_((matrix @ self.mixing.flatten(1)).reshape(self.mixing.shape))
        return True

    def dense(self) -> Tensor:
        return (self.mixing.flatten(0, 1) @ self.filters.flatten(1)).reshape(self.layer.shape)

    def forward(self, x: Tensor) -> Tensor:
        if mixes_first(self.layer):
            return mix_and_filter(self.layer, x, self.filters, self.mixing, self.bias)
        return filter_and_mix(self.layer, x, self.filters, self.mixing, self.bias)

    def frames(self) -> Iterable[Tensor]:
        return (self.filters.flatten(1).T,)


def filter_and_mix(layer: Layer, x: Tensor, filters: Tensor, mixing: Tensor, bias: Tensor | None) -> Tensor:
    """Each input with each of the filters (rank × 1 × kernel), then the mixing (out × in × rank) of all of that."""
    by_input = filters.expand(layer.in_features, *filters.shape).flatten(0, 1)  # channels: in, then rank
    return layer.mix(layer.operate(x, by_input, groups=layer.in_features), mixing.flatten(1), bias)


def mix_and_filter(layer: Layer, x: Tensor, filters: Tensor, mixing: Tensor, bias: Tensor | None) -> Tensor:
    """The same the other way round: what is to go through each filter is mixed first."""
    maps = layer.mix(x, mixing.transpose(1, 2).flatten(0, 1))  # channels: out, then rank
    by_output = filters.transpose(0, 1).expand(layer.out_features, *[-1] * (filters.dim() - 1))
    return layer.operate(maps, by_output, bias, groups=layer.out_features)


def mixes_first(layer: Layer) -> bool:
    """Whether it takes fewer MACs to mix the inputs and then filter than the other way round.

    Counted for each position of the smaller map, inputs and outputs being a stride apart: the filters run there.
    """
    out_features, in_features, places = layer.out_features, layer.in_features, math.prod(layer.kernel)
    steps, is_transposed = math.prod(layer.stride), bool(layer.output_padding)
    of_inputs, of_outputs = (1, steps) if is_transposed else (steps, 1)
    mixed = out_features * in_features
    return of_inputs * mixed + out_features * places < in_features * places + of_outputs * mixed
