"""What a factorization gets for nothing from its base class."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from rank_search.errors import ContractError
from rank_search.layers import Axis, Bases, DirectBases, Factorization, Layer


class Scaled(Factorization):
    """The least there can be: the weight itself times one number."""

    @classmethod
    def axes(cls, layer: Layer) -> tuple[Axis, ...]:
        return (Axis("digits", 1.0, 8.0, integer=False),)

    def __init__(self, layer: Layer, *, digits: float) -> None:
        super().__init__(layer, digits=digits)
        self.mantissa = self.factor(*layer.shape)
        self.scale = self.factor(1)

    @torch.no_grad()
    def fit(self, weight: Tensor, bases: Bases) -> None:
        self.scale.fill_(weight.abs().max().item())
        self.mantissa.copy_(weight / self.scale)

    def dense(self) -> Tensor:
        return self.mantissa * self.scale


def fitted(module: nn.Conv2d) -> Scaled:
    scaled = Scaled(Layer.of(module), digits=4.0)
    scaled.fit(module.weight, DirectBases(module.weight))
    if scaled.bias is not None and module.bias is not None:
        scaled.bias.data.copy_(module.bias)
    return scaled


@pytest.mark.parametrize("bias", [True, False])
def test_the_default_forward_is_the_layers_operation(bias: bool) -> None:
    module = nn.Conv2d(3, 4, 3, stride=2, padding=1, padding_mode="reflect", bias=bias)
    x = torch.randn(2, 3, 7, 7)
    torch.testing.assert_close(fitted(module)(x), module(x))


def test_parameters_have_the_layers_dtype_and_the_bias_is_one_of_them() -> None:
    scaled = fitted(nn.Conv2d(3, 4, 3, dtype=torch.float64))
    assert {name: tuple(parameter.shape) for name, parameter in scaled.named_parameters()} == {
        "bias": (4,),
        "mantissa": (4, 3, 3, 3),
        "scale": (1,),
    }
    assert {parameter.dtype for parameter in scaled.parameters()} == {torch.float64}


def test_stored_is_every_parameter_and_frames_are_none() -> None:
    scaled = fitted(nn.Conv2d(3, 4, 3))
    assert [id(tensor) for tensor in scaled.stored()] == [id(tensor) for tensor in scaled.parameters()]
    assert list(scaled.frames()) == []


def test_weight_is_dense_and_lets_gradients_through() -> None:
    scaled = fitted(nn.Conv2d(3, 4, 3))
    assert torch.equal(scaled.weight, scaled.dense())
    scaled.weight.sum().backward()
    assert scaled.scale.grad is not None


def test_repr_of_a_factorization_names_its_values() -> None:
    assert repr(fitted(nn.Conv2d(3, 4, 3))) == "Scaled((4, 3, 3, 3), digits=4.0)"
    assert fitted(nn.Conv2d(3, 4, 3)).values == {"digits": 4.0}


class Named(Scaled):
    """Keeps something under a name of its own choice."""

    def __init__(self, layer: Layer, *, digits: float, name: str, value: object) -> None:
        super().__init__(layer, digits=digits)
        setattr(self, name, value)


@pytest.mark.parametrize("name", ["kept", "fold", "rows", "factor", "weight"])
def test_no_parameter_or_module_is_named_as_the_contract_names_something(name: str) -> None:
    layer = Layer("x", "linear", (2, 2))
    with pytest.raises(ContractError, match=rf"Named names a Parameter '{name}', .* Give it another name"):
        Named(layer, digits=1.0, name=name, value=nn.Parameter(torch.zeros(2)))
    with pytest.raises(ContractError, match=rf"Named names a Identity '{name}'"):
        Named(layer, digits=1.0, name=name, value=nn.Identity())
    made = Named(layer, digits=1.0, name=f"{name}_too", value=nn.Parameter(torch.zeros(2)))
    assert f"{name}_too" in dict(made.named_parameters())


def test_the_contract_cannot_be_left_unfinished() -> None:
    class Unfinished(Factorization):
        @classmethod
        def axes(cls, layer: Layer) -> tuple[Axis, ...]:
            return ()

    with pytest.raises(TypeError, match="abstract"):
        Unfinished(Layer("x", "linear", (2, 2)))  # type: ignore[abstract]
