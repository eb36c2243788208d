"""A weight that is made only when it is used."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rank_search.layers import DirectBases, Factorization, Layer, load_plugin


def made() -> Factorization:
    factorization = load_plugin("svd")(Layer("", "linear", (4, 6)), rank=2)
    weight = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    factorization.fit(weight, DirectBases(weight))
    nn.init.zeros_(factorization.bias)  # type: ignore[arg-type]
    return factorization


def test_a_weight_is_dense_wherever_its_numbers_are_used() -> None:
    layer, x = made(), torch.randn(3, 6)
    dense = layer.dense()
    assert torch.equal(layer.weight, dense)
    assert torch.equal(layer.weight[0], dense[0])
    assert torch.equal(2 * layer.weight.t(), 2 * dense.t())
    assert torch.equal(torch.cat([layer.weight, layer.weight]), torch.cat([dense, dense]))
    assert torch.equal(F.linear(x, layer.weight, layer.bias), layer.layer.operate(x, dense, layer.bias))
    assert str(layer.weight) == str(dense)


def test_gradients_flow_through_a_lazy_weight() -> None:
    layer, x = made(), torch.randn(3, 6)
    F.linear(x, layer.weight).square().sum().backward()
    found = [parameter.grad for parameter in (layer.left, layer.right)]
    layer.zero_grad()
    F.linear(x, layer.dense()).square().sum().backward()
    assert all(torch.equal(a, b.grad) for a, b in zip(found, (layer.left, layer.right), strict=True))  # type: ignore[arg-type]


def test_shape_and_dtype_of_a_lazy_weight_need_no_numbers() -> None:
    layer = made()
    layer.dense = None  # type: ignore[method-assign, assignment]
    weight = layer.weight
    assert isinstance(weight, Tensor)
    assert (weight.shape, weight.dtype, weight.device) == ((4, 6), torch.float32, torch.device("cpu"))
    assert (weight.ndim, weight.dim(), weight.numel(), weight.size(1)) == (2, 2, 24, 6)
    assert not weight.is_cuda
    assert weight.is_floating_point()


class Asks(nn.Module):
    """As some transformers do: inputs are cast to a weight's type."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = made()

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.to(self.layer.weight.dtype))  # type: ignore[no-any-return]


def test_an_exported_model_that_asks_multiplies_nothing_out() -> None:
    model = Asks().eval()
    program = torch.export.export(model, (torch.randn(3, 6),))
    called = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert [name for name in called if "linear" in name or "mm" in name] == ["aten.linear.default"] * 2
