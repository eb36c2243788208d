"""What tests of plain-rank forms hold them against: gradient descent on all factors, and the layer itself."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from rank_search.layers import DirectBases, Factorization, Layer, channels_last, output_error


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def moment(size: int) -> Tensor:
    """Of inputs that all depend on each other: far from a product of modes, and across blocks."""
    inputs = (normal(400, size, seed=1) @ (normal(size, size, seed=2) / size**0.5) + normal(400, 1, seed=3)).relu()
    return inputs.T @ inputs / len(inputs)


def descended(form: Factorization, weight: Tensor, C: Tensor) -> float:
    """The output error to which gradient descent gets from the form's factors on, which are moved."""
    factors = [each for name, each in form.named_parameters() if name != "bias"]
    optimizer = torch.optim.LBFGS(factors, max_iter=200, history_size=30, line_search_fn="strong_wolfe")

    def error() -> Tensor:
        optimizer.zero_grad()
        off = (weight - form.dense()).flatten(1)
        loss = ((off @ C) * off).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(error)  # type: ignore[arg-type]
    return output_error(weight, form.dense(), C)


def check_full_ranks(plugin: type[Factorization], module: nn.Module) -> None:
    """With all ranks the form is the layer, for batches and single examples in either memory format."""
    layer = replace(Layer.of(module), dtype=torch.float64)
    weight, bias = normal(*layer.shape), normal(layer.out_features, seed=5)
    form = plugin(layer, **{axis.name: int(axis.high) for axis in plugin.axes(layer)}).eval()
    form.fit(weight, DirectBases(weight))
    form.load_state_dict(form.state_dict() | {"bias": bias})
    x = normal(2, layer.in_features, *[7, 6, 5][: len(layer.shape) - 2], seed=4)
    wanted = layer.operate(x, weight, bias)
    torch.testing.assert_close(form(x), wanted)
    torch.testing.assert_close(form(x[0]), wanted[0])
    for parameter in form.parameters():
        parameter.data = channels_last(parameter.data)
    torch.testing.assert_close(form(channels_last(x)), wanted)
