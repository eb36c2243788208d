"""Moments of layers' inputs behind batch norms, in closed form: no data, no image at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

import torch
from torch import Tensor, nn

from rank_search.errors import SourceError
from rank_search.layers import Example, Layer, forward, in_evaluation, input_of, layer_by_layer
from rank_search.sources.known_moments import KnownMoments
from rank_search.sources.moment_rules import MomentMode
from rank_search.tasks import seeded

_MOST_PATCHES: Final = 8192


@torch.no_grad()
def analytic_moments(model: nn.Module, example: Example, layers: Mapping[str, Layer]) -> dict[str, Tensor]:
    """E[x·xᵀ] of the inputs of each layer for which it follows from the batch norms before it, by name.

    In the form that `input_moments` has: n × n with n = in·kh·kw, of a grouped layer groups × n × n, in float32.
    Behind a batch norm of weight γ and bias β a channel is N(β, γ²·v/(v + ε)), v its stored variance; see
    `clipped_moments` for ReLU and its like. Numbers of different channels and positions are taken as independent, so
    off the diagonal E[xᵢ·xⱼ] = E[xᵢ]·E[xⱼ]; a sum of two, as of a residual block, is taken as normal with the sum of
    their means and variances; average pooling and reshaping go through; padding counts as the zeros that it is, and
    padding with copies of other numbers as numbers of their own. Layers that anything else comes before, the first one
    among them, are left out, and their weights decide. Complexity: one forward of the example, and O(positions·n²) for
    each layer.

    Args:
        example: what one forward takes, of the size that the network is for.

    Raises:
        SourceError: the model does not run on the example.

    >>> from rank_search.layers import take_inventory
    >>> model = nn.Sequential(nn.Linear(4, 2), nn.BatchNorm1d(2, eps=0), nn.ReLU(), nn.Linear(2, 1))
    >>> layers = take_inventory(model, torch.zeros(1, 4)).layers
    >>> found = analytic_moments(model, torch.zeros(1, 4), layers)  # of halves of N(0, 1): 1/2, and 1/√(2π) squared
    >>> {name: [[round(float(each), 4) for each in row] for row in moment] for name, moment in found.items()}
    {'3': [[0.5, 0.1592], [0.1592, 0.5]]}
    """
    found: dict[str, list[Tensor | None]] = {}

    def note(name: str, x: Tensor) -> None:
        found.setdefault(name, []).append(_of(watching, layers[name], x))

    with seeded(0), in_evaluation(model), layer_by_layer(), MomentMode() as watching, _hooked(model, layers, note):
        _run(model, example)
    known = {name: [each for each in own if each is not None] for name, own in found.items()}
    return {
        name: torch.stack(own).mean(0).to(torch.float32)
        for name, own in known.items()
        if len(own) == len(found[name]) and all(bool(each.isfinite().all()) for each in own)
    }


def _run(model: nn.Module, example: Example) -> None:
    try:
        forward(model, example)
    except Exception as error:
        raise SourceError(
            f"The model does not run on the example; its forward raised {type(error).__name__}: {error}. An example is "
            "what one forward takes: a tensor, a tuple by position, or a dictionary by name."
        ) from error


def _of(watching: MomentMode, layer: Layer, x: Tensor) -> Tensor | None:
    """The second moment of what one call of the layer is given, if it is known."""
    known = watching.known(x)
    return None if known is None or layer.one_hot or layer.ties else second_moment(layer, known)


def second_moment(layer: Layer, known: KnownMoments) -> Tensor:
    """E[x·xᵀ] over the patches x of independent numbers: C(m)ᵀ·C(m)/N + diag(Σ C(v)/N), C(·) the N × n patches.

    Symbols: m and v are mean and variance of each number of the layer's input. Returned n × n, with groups groups × n ×
    n, in float64. Complexity: O(N·n²).
    """
    means, variances = (_patches(layer, each.to(torch.float64)) for each in (known.mean, known.variance))
    return means.mT @ means / means.shape[-2] + torch.diag_embed(variances.mean(-2))


def _patches(layer: Layer, numbers: Tensor) -> Tensor:
    """Rows × n; with groups groups × rows × n."""
    rows = layer.columns(numbers, _MOST_PATCHES)
    return rows if layer.groups == 1 else rows.view(len(rows), layer.groups, -1).transpose(0, 1)


@contextmanager
def _hooked(model: nn.Module, layers: Mapping[str, Layer], then: Callable[[str, Tensor], None]) -> Iterator[None]:
    """Each of these layers watched."""

    def hook(name: str) -> Callable[..., None]:
        return lambda module, inputs, named: then(name, input_of(inputs, named))

    handles = [model.get_submodule(name).register_forward_pre_hook(hook(name), with_kwargs=True) for name in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
