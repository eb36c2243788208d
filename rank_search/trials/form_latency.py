"""How long a factorized form of one layer takes beside the dense layer."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn

from rank_search.layers import DenseForm, Factorization, Layer, channels_last
from rank_search.point import Choice
from rank_search.tasks import seeded
from rank_search.trials.latency import Clock, Run, batch_of, clock_for, interleaved_ratio, threads, waited_for
from rank_search.trials.settings import LatencySettings

PAIRS: Final = 20


@torch.no_grad()
def form_ratio(
    layer: Layer,
    plugin: type[Factorization],
    choice: Choice,
    settings: LatencySettings,
    device: torch.device | str = "cpu",
    clock: Clock | None = None,
) -> float | None:
    """Time of the layer's form in units of the dense layer, by turns on the layer's inputs (see `interleaved_ratio`).

    Weights are drawn: only their shapes matter. None if the form cannot be run so.
    """
    try:
        with seeded(0), threads(settings.threads):
            dense = _ready(DenseForm(layer), device)
            form = _ready(plugin(layer, **choice.values), device)
            inputs = [_input(shape, layer, settings.batch, device) for shape in layer.inputs]
            runs = _on(dense, inputs), _on(form, inputs)
            return interleaved_ratio(*runs, PAIRS, clock or clock_for(settings, inputs))
    except Exception:  # noqa: BLE001 - a plugin may need more than its factors set; then nothing is known of its speed
        return None


def _ready(module: nn.Module, device: torch.device | str) -> nn.Module:
    """Weights drawn (what is in new memory may be slow to compute with), counts zero, kernels channels-last."""
    for tensor in module.state_dict().values():
        if tensor.is_floating_point():
            tensor.normal_(0, 0.1)
        else:
            tensor.zero_()
    for parameter in module.parameters():
        parameter.data = channels_last(parameter.data)
    return module.to(device).eval()


def _input(shape: tuple[int, ...], layer: Layer, batch: int, device: torch.device | str) -> Tensor:
    found = batch_of(layer.inputs_like(torch.randn(shape, dtype=layer.dtype, device=device)), batch)
    return found if isinstance(found, Tensor) else found[0]


def _on(module: nn.Module, inputs: list[Tensor]) -> Run:
    return waited_for(lambda: [module(each) for each in inputs], inputs)
