"""The suite of laws finds what is wrong: one plugin for each way of breaking a law."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
import torch
from rank_search_plugins.svd import ChannelSVD, matrix
from torch import Tensor, nn

from rank_search.layers import Axis, Bases, DirectBases, Factorization, Layer
from rank_search.testing import GEOMETRIES, FactorizationLaws, LawResult, check_factorization, check_law
from rank_search.testing.geometries import geometries_for
from rank_search.testing.laws import LAWS


def named(text: str) -> Layer:
    return next(layer for layer in GEOMETRIES if text in layer.name)


PLAIN = named("Conv2d(6, 8, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1))")
DILATED = named("dilation=(2, 2)")
POINTWISE = named("Conv2d(6, 8, kernel_size=(1, 1)")
LINEAR = named("Linear(in_features=12")
LAYERS = (PLAIN, DILATED, POINTWISE, LINEAR)


def broken(factorization: type[Factorization], equality: bool = False) -> list[LawResult]:
    tried = [check_law(law, factorization, layer, equality) for law in LAWS for layer in LAYERS]
    return [result for result in tried if not result.ok]


def broken_laws(factorization: type[Factorization], equality: bool = False) -> set[str]:
    return {result.law for result in broken(factorization, equality)}


class IgnoresDilation(ChannelSVD):
    def forward(self, x: Tensor) -> Tensor:
        careless = replace(self.layer, dilation=(1, 1))
        return self.layer.mix(careless.operate(x, self.right), self.left, self.bias)


class ForgetsBias(ChannelSVD):
    def forward(self, x: Tensor) -> Tensor:
        return self.layer.mix(self.layer.operate(x, self.right), self.left)


class HasNoBias(ChannelSVD):
    def __init__(self, layer: Layer, *, rank: int) -> None:
        super().__init__(replace(layer, bias=False), rank=rank)
        self.layer = layer


class OtherInEvaluation(ChannelSVD):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * (1.0 if self.training else 0.9)


class ViewsAsContiguous(ChannelSVD):
    """A view of a factor that in channels-last memory has none."""

    def forward(self, x: Tensor) -> Tensor:
        return self.layer.mix(self.layer.operate(x, self.right.view(-1).view(self.right.shape)), self.left, self.bias)


class FitsTheMemory(ChannelSVD):
    """Takes the numbers in the order in which they lie in memory."""

    @torch.no_grad()
    def fit(self, weight: Tensor, bases: Bases) -> None:
        contiguous = torch.empty(weight.shape, device="meta").stride()
        super().fit(weight, DirectBases(weight.as_strided(weight.shape, contiguous)))


class SamplesInTraining(ChannelSVD):
    """Looks at a number in training, which there is none to look at on the meta device."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training and self.left.sum().item() == 0.125:
            raise AssertionError
        return super().forward(x)


class TransposedDense(ChannelSVD):
    def dense(self) -> Tensor:
        return super().dense().transpose(0, 1)


class SingleOnly(ChannelSVD):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).to(torch.float16)


class RankTooHigh(ChannelSVD):
    def __init__(self, layer: Layer, *, rank: int) -> None:
        super().__init__(layer, rank=rank)
        self.residue = self.factor(*layer.shape)

    @torch.no_grad()
    def fit(self, weight: Tensor, bases: Bases) -> None:
        super().fit(weight, bases)
        self.residue.zero_()

    def dense(self) -> Tensor:
        return super().dense() + self.residue

    def forward(self, x: Tensor) -> Tensor:
        return self.layer.operate(x, self.dense(), self.bias)


def corner(weight: Tensor) -> Tensor:
    return weight.flatten(1)[:, :2]


class PartialUnfolding(ChannelSVD):
    @classmethod
    def axes(cls, layer: Layer) -> tuple[Axis, ...]:
        return (replace(super().axes(layer)[0], unfoldings=(corner,)),)


class FitsLoosely(ChannelSVD):
    @torch.no_grad()
    def fit(self, weight: Tensor, bases: Bases) -> None:
        super().fit(weight, bases)
        self.right.mul_(0.9)


class FitsTheOpposite(ChannelSVD):
    @torch.no_grad()
    def fit(self, weight: Tensor, bases: Bases) -> None:
        super().fit(weight, bases)
        self.right.neg_()


class ComputesInInit(ChannelSVD):
    def __init__(self, layer: Layer, *, rank: int) -> None:
        super().__init__(layer, rank=rank)
        start = torch.randn(self.right.shape, dtype=layer.dtype, device="cpu")
        self.right = nn.Parameter(start / start.norm())


class SecretState(ChannelSVD):
    scale: Any = 1.0

    @torch.no_grad()
    def fit(self, weight: Tensor, bases: Bases) -> None:
        super().fit(weight, bases)
        self.scale = weight.abs().max()
        self.right.div_(self.scale)

    def dense(self) -> Tensor:
        return super().dense() * self.scale

    def forward(self, x: Tensor) -> Tensor:
        return self.layer.operate(x, self.dense(), self.bias)


class StoresOneFactor(ChannelSVD):
    def stored(self) -> tuple[Tensor, ...]:
        return (self.left,)


def square(value: float) -> int:
    return int(value) ** 2


class Ring(Factorization):
    """W[o, n] = tr(outer[o] · inner[n]) with bond × bond matrices: a tensor ring of two cores, of rank bond²."""

    @classmethod
    def axes(cls, layer: Layer) -> tuple[Axis, ...]:
        full = min(layer.out_features, math.prod(layer.shape[1:]))
        return (Axis("bond", 1, math.isqrt(full), (matrix,), bound=square),)

    def __init__(self, layer: Layer, *, bond: int) -> None:
        super().__init__(layer, bond=bond)
        self.outer = self.factor(layer.out_features, bond, bond)
        self.inner = self.factor(bond, bond, math.prod(layer.shape[1:]))

    @torch.no_grad()
    def fit(self, weight: Tensor, bases: Bases) -> None:
        basis, rank = bases.outputs(), square(len(self.inner))
        self.outer.copy_(basis.left[:, :rank].reshape(self.outer.shape))
        self.inner.copy_(basis.projected[:rank].reshape(self.inner.shape).transpose(0, 1))

    def dense(self) -> Tensor:
        return torch.einsum("oab,ban->on", self.outer, self.inner).view(self.layer.shape)


class RingThatSaysNothing(Ring):
    @classmethod
    def axes(cls, layer: Layer) -> tuple[Axis, ...]:
        return (replace(super().axes(layer)[0], bound=None),)


class RingThatSaysLess(Ring):
    @classmethod
    def axes(cls, layer: Layer) -> tuple[Axis, ...]:
        return (replace(super().axes(layer)[0], bound=lambda bond: 2 * int(bond) - 1),)


class UnpicklableUnfolding(ChannelSVD):
    @classmethod
    def axes(cls, layer: Layer) -> tuple[Axis, ...]:
        return (replace(super().axes(layer)[0], unfoldings=(lambda weight: weight.flatten(1),)),)


class UnusedParameter(ChannelSVD):
    def __init__(self, layer: Layer, *, rank: int) -> None:
        super().__init__(layer, rank=rank)
        self.idle = self.factor(3)

    @torch.no_grad()
    def fit(self, weight: Tensor, bases: Bases) -> None:
        super().fit(weight, bases)
        self.idle.zero_()


class LeavesUnset(ChannelSVD):
    @torch.no_grad()
    def fit(self, weight: Tensor, bases: Bases) -> None:
        self.left.copy_(bases(matrix).left[:, : self.left.shape[1]])


class RaisesOnLinear(ChannelSVD):
    @classmethod
    def axes(cls, layer: Layer) -> tuple[Axis, ...]:
        _, _, rows, columns = layer.shape
        return super().axes(layer) if rows * columns > 1 else ()


class ChangesWeight(ChannelSVD):
    @torch.no_grad()
    def fit(self, weight: Tensor, bases: Bases) -> None:
        super().fit(weight, bases)
        weight.zero_()


class ChangesBias(ChannelSVD):
    @torch.no_grad()
    def fit(self, weight: Tensor, bases: Bases) -> None:
        super().fit(weight, bases)
        if self.bias is not None:
            self.bias.zero_()


class SharesBases(ChannelSVD):
    def fit(self, weight: Tensor, bases: Bases) -> None:
        basis, rank = bases(matrix), self.left.shape[1]
        self.left.data = basis.left[:, :rank]
        self.right.data = basis.projected[:rank].view_as(self.right)


class Restless(ChannelSVD):
    """Its own generator, seeded by how often it was used."""

    uses = 0

    @torch.no_grad()
    def fit(self, weight: Tensor, bases: Bases) -> None:
        super().fit(weight, bases)
        Restless.uses += 1
        self.right.mul_(1 - 0.01 * Restless.uses / (1 + Restless.uses))


class DividesByZero(ChannelSVD):
    @torch.no_grad()
    def fit(self, weight: Tensor, bases: Bases) -> None:
        super().fit(weight, bases)
        self.right.copy_(self.right / weight.norm() * weight.norm())


class OppositeOutputs(ChannelSVD):
    @torch.no_grad()
    def fit(self, weight: Tensor, bases: Bases) -> None:
        super().fit(weight, bases)
        if bases.moment is not None:
            self.right.neg_()


class IgnoresMoments(ChannelSVD):
    @torch.no_grad()
    def fit(self, weight: Tensor, bases: Bases) -> None:
        super().fit(weight, DirectBases(weight))


class InvertsMoments(ChannelSVD):
    @torch.no_grad()
    def fit(self, weight: Tensor, bases: Bases) -> None:
        super().fit(weight, bases)
        if bases.moment is not None:
            self.left.mul_(bases.moment.trace() / bases.moment.trace())


class ChangesMoments(ChannelSVD):
    @torch.no_grad()
    def fit(self, weight: Tensor, bases: Bases) -> None:
        super().fit(weight, bases)
        if bases.moment is not None:
            bases.moment.mul_(0.5)


class NumbersAsFrames(ChannelSVD):
    def frames(self) -> tuple[Tensor, ...]:
        return (self.left.detach(),)


class ListOfAxes(ChannelSVD):
    @classmethod
    def axes(cls, layer: Layer) -> tuple[Axis, ...]:
        return list(super().axes(layer))  # type: ignore[return-value]


class EmptyRange(ChannelSVD):
    @classmethod
    def axes(cls, layer: Layer) -> tuple[Axis, ...]:
        return (Axis("rank", 5, 1),)


class AppliesNowhere(ChannelSVD):
    @classmethod
    def axes(cls, layer: Layer) -> tuple[Axis, ...]:
        return ()


def test_laws_hold_for_an_honest_factorization() -> None:
    assert broken(ChannelSVD, equality=True) == []


class FoldsTwice(ChannelSVD):
    def fold(self) -> None:
        self.left.mul_(2)


class DropsWhatMatters(ChannelSVD):
    def kept(self) -> dict[str, Tensor]:
        return {"rank": torch.arange(self.left.shape[1]) > 0}


class MasksTooMany(ChannelSVD):
    def kept(self) -> dict[str, Tensor]:
        return {"rank": torch.ones(self.left.shape[1] + 1, dtype=torch.bool)}


class ForgetsHowMany(ChannelSVD):
    """Its forward, other than its weight, depends on the number of components, empty ones too."""

    def forward(self, x: Tensor) -> Tensor:
        out = self.layer.mix(self.layer.operate(x, self.right), self.left) / self.left.shape[1]
        return out if self.bias is None else out + self.bias.view(-1, *[1] * (-1 - self.layer.channels))


def test_laws_allow_a_fit_that_looks_at_the_weight_alone() -> None:
    assert broken(IgnoresMoments, equality=True) == []


def test_laws_take_the_rank_that_an_axis_bounds() -> None:
    assert broken(Ring, equality=True) == []
    assert broken_laws(RingThatSaysNothing) == {"Rank law", "Spectrum bound"}


def test_laws_allow_a_number_to_be_looked_at_in_training() -> None:
    assert broken(SamplesInTraining, equality=True) == []


@pytest.mark.parametrize(
    ("factorization", "law", "found"),
    [
        (IgnoresDilation, "Agreement", "forward(x) is [2, 8, 11, 10]"),
        (ForgetsBias, "Agreement", "from the layer's operation with dense()"),
        (HasNoBias, "Agreement", "the layer has a bias and self.bias is None"),
        (OtherInEvaluation, "Agreement", "in evaluation forward(x) is"),
        (ViewsAsContiguous, "Agreement", "raised RuntimeError: view size is not compatible"),
        (TransposedDense, "Agreement", "dense() is [6, 8, 3, 3]"),
        (SingleOnly, "Agreement", "torch.float16, with dense() it is"),
        (RankTooHigh, "Rank law", "unfolding 0 of axis rank of dense() has rank 8, more than rank=1"),
        (RingThatSaysNothing, "Rank law", "has rank 4, more than bond=2"),
        (RingThatSaysLess, "Rank law", "has rank 4, more than bond=2 allows (3)"),
        (RingThatSaysLess, "Spectrum bound", "closer than the tail"),
        (PartialUnfolding, "Rank law", "makes [8, 2] of [8, 6, 3, 3]"),
        (FitsTheOpposite, "Spectrum bound", "farther than zero is"),
        (FitsTheMemory, "Spectrum bound", "the fit to the weight in channels-last memory is"),
        (OppositeOutputs, "Spectrum bound", "with a moment the fit's outputs are"),
        (ComputesInInit, "Skeleton", "on the meta device __init__ makes real tensors"),
        (SecretState, "Skeleton", "its state dict loaded into a fresh one has another dense()"),
        (StoresOneFactor, "Skeleton", "stored() leaves out right"),
        (UnpicklableUnfolding, "Skeleton", "the unfoldings of axis rank do not pickle"),
        (UnusedParameter, "Life", "forward gives idle no gradient"),
        (LeavesUnset, "Life", "fit leaves right unset"),
        (RaisesOnLinear, "Life", "ValueError: not enough values to unpack"),
        (ChangesWeight, "Life", "fit changes the weight"),
        (ChangesBias, "Life", "fit changes the bias"),
        (SharesBases, "Life", "training one module changes the bases"),
        (Restless, "Life", "the same rng seed differ"),
        (DividesByZero, "Life", "weight of zeros gives numbers that are not finite"),
        (InvertsMoments, "Life", "fit with the moment of no inputs leaves left unset or not finite"),
        (ChangesMoments, "Life", "fit changes the moment of few inputs"),
        (NumbersAsFrames, "Life", "frame 0 is [8, 1]"),
        (ListOfAxes, "Life", "axes gives a tuple of Axis"),
        (EmptyRange, "Life", "low <= high"),
        (FoldsTwice, "Settling", "dense() after fold() is"),
        (DropsWhatMatters, "Settling", "kept() leaves out components of rank, without which dense() is another weight"),
        (MasksTooMany, "Settling", "kept() has [2] torch.bool for rank, not a mask of its 1 components"),
        (ForgetsHowMany, "Settling", "forward(x) of the settled form is"),
    ],
)
def test_laws_report_the_law_that_is_broken(factorization: type[Factorization], law: str, found: str) -> None:
    details = [result.detail for result in broken(factorization) if result.law == law]
    assert any(found in detail for detail in details), details


@pytest.mark.parametrize(
    ("factorization", "laws"),
    [
        (TransposedDense, {"Agreement", "Spectrum bound", "Rank law"}),
        (IgnoresDilation, {"Agreement", "Skeleton"}),  # its output has another size there, too
        (ForgetsBias, {"Agreement", "Life"}),  # and the bias gets no gradient
        (FitsTheOpposite, {"Spectrum bound"}),
        (FitsTheMemory, {"Spectrum bound"}),
        (OtherInEvaluation, {"Agreement"}),
        (ViewsAsContiguous, {"Agreement"}),
        (ComputesInInit, {"Skeleton"}),
        (StoresOneFactor, {"Skeleton"}),
        (UnpicklableUnfolding, {"Skeleton"}),
        (UnusedParameter, {"Life"}),
        (ChangesBias, {"Life"}),
        (SharesBases, {"Life"}),
    ],
)
def test_laws_report_no_law_that_holds(factorization: type[Factorization], laws: set[str]) -> None:
    assert broken_laws(factorization) <= laws


def test_laws_report_only_the_layers_where_they_are_broken() -> None:
    (result,) = [result for result in broken(IgnoresDilation) if result.law == "Agreement"]
    assert result.layer == DILATED.name
    assert "with rank=1: forward(x) is" in result.detail
    assert str(result).startswith(f"Agreement is broken on {DILATED.name}")


def test_spectrum_law_asks_for_equality_only_where_it_is_claimed() -> None:
    assert broken(FitsLoosely) == []
    (first, *_) = broken(FitsLoosely, equality=True)
    assert broken_laws(FitsLoosely, equality=True) == {"Spectrum bound"}
    assert "equality claims the tail" in first.detail


def test_laws_report_exceptions_with_their_place() -> None:
    (result, *_) = broken(RaisesOnLinear)
    assert (result.layer, result.ok) == (LINEAR.name, False)
    assert "(test_laws.py:" in result.detail
    assert "in axes" not in result.detail
    assert result.detail.endswith(", axes)")


def test_laws_fail_for_a_factorization_that_applies_nowhere() -> None:
    (result,) = [result for result in check_factorization(AppliesNowhere) if not result.ok]
    assert result.law == "Life"
    assert "axes gives () for each of" in result.detail


def test_laws_are_tried_on_every_layer_and_on_given_ones() -> None:
    own = replace(LINEAR, name="mine", shape=(3, 4), inputs=((2, 4),))
    results = check_factorization(ChannelSVD, layers=(own,))
    assert {(result.law, result.layer) for result in results} == {
        (law, layer.name) for law in LAWS for layer in (*geometries_for(ChannelSVD), own)
    }
    assert [result.detail for result in results if result.layer == "mine"] == ["rank=1 | rank=3 | rank=2"] * 6


def test_law_geometries_differ_and_hold_every_kind() -> None:
    assert len({layer.name for layer in GEOMETRIES}) == len(GEOMETRIES)
    assert {layer.padding_mode for layer in GEOMETRIES} == {"zeros", "reflect", "replicate", "circular"}
    assert {layer.kind for layer in GEOMETRIES} == {"conv2d", "linear"}
    assert {layer.bias for layer in GEOMETRIES} == {True, False}
    assert {layer.dtype for layer in GEOMETRIES} == {torch.float32, torch.float64}
    assert any(top != bottom for layer in GEOMETRIES for top, bottom in layer.padding)


def test_laws_under_pytest_fail_with_the_same_words() -> None:
    class Suite(FactorizationLaws):
        factorization = IgnoresDilation

    Suite().test_agreement(PLAIN)
    Suite().test_it_applies_to_some_layer()
    with pytest.raises(AssertionError, match=r"Agreement is broken on Conv2d.*dilation=\(2, 2\)"):
        Suite().test_agreement(DILATED)


def test_laws_work_without_pytest() -> None:
    code = "import sys; sys.modules['pytest'] = None; from rank_search.testing import check_factorization"
    subprocess.run([sys.executable, "-c", code], check=True)
