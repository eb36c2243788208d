"""What is not stored: zero in what is kept, no part of the weight, and never the bias."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
import torch
from rank_search_plugins.svd import ChannelSVD
from torch import Tensor, nn

from rank_search.coding import encode
from rank_search.errors import ContractError
from rank_search.layers import Bases, DirectBases, Layer, drop_not_stored, load_plugin, not_stored
from rank_search.quantization import latents

LAYER = Layer("layer", "linear", (12, 20), inputs=((1, 20),))


class WithHelper(ChannelSVD):
    """Has one number for each row that only training uses."""

    def __init__(self, layer: Layer, *, rank: int) -> None:
        super().__init__(layer, rank=rank)
        self.helper = self.factor(layer.out_features)

    @torch.no_grad()
    def fit(self, weight: Tensor, bases: Bases) -> None:
        super().fit(weight, bases)
        self.helper.copy_(torch.linspace(1, 2, len(self.helper)))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + (0 * self.helper if self.training else 0)

    def stored(self) -> Iterable[Tensor]:
        return (self.left, self.right)


class OneFactor(ChannelSVD):
    def stored(self) -> Iterable[Tensor]:
        return (self.left,)


class Product(ChannelSVD):
    def stored(self) -> Iterable[Tensor]:
        return (self.dense(),)


def fitted(plugin: type[ChannelSVD], rank: int = 3) -> ChannelSVD:
    torch.manual_seed(0)
    form = plugin(LAYER, rank=rank)
    weight = torch.randn(LAYER.shape)
    form.fit(weight, DirectBases(weight))
    with torch.no_grad():
        if form.bias is not None:
            form.bias.normal_()
    return form


def test_what_is_left_out_is_zero_and_takes_no_room() -> None:
    model, plain = nn.Sequential(fitted(WithHelper)), nn.Sequential(fitted(ChannelSVD))
    x = torch.randn(5, 20)
    before = model.eval()(x)
    assert list(not_stored(model[0])) == ["helper"]
    assert list(latents(model)) == list(latents(plain))
    drop_not_stored(model)
    assert not model[0].get_parameter("helper").any()
    assert torch.equal(model(x), before)
    assert len(encode(model.state_dict())) < len(encode(plain.state_dict())) + 24  # a name, and one number


def test_the_bias_is_always_stored() -> None:
    form = fitted(WithHelper)
    drop_not_stored(nn.Sequential(form))
    assert form.bias is not None
    assert form.bias.all()


@pytest.mark.parametrize("name", ["svd", "cp"])
def test_of_a_form_that_says_nothing_all_is_stored(name: str) -> None:
    form = load_plugin(name)(LAYER, rank=2)
    assert not_stored(form) == {}


def test_a_factor_that_the_weight_is_made_from_cannot_be_left_out() -> None:
    with pytest.raises(ContractError, match=r"OneFactor.stored\(\) leaves out right.*weight of 0 is another one"):
        drop_not_stored(nn.Sequential(fitted(OneFactor)))


def test_only_what_the_state_dict_holds_can_be_stored() -> None:
    with pytest.raises(ContractError, match=r"Product.stored\(\) gives a tensor that is neither a parameter"):
        not_stored(fitted(Product))
