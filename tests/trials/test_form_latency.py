from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from rank_search.layers import Axis, Bases, Factorization, Layer, load_plugin
from rank_search.point import Choice
from rank_search.trials import LatencySettings, form_ratio

CONV = Layer("", "conv2d", (6, 4, 3, 3), padding=((1, 1), (1, 1)), inputs=((1, 4, 8, 8), (1, 4, 6, 6)))
LINEAR = Layer("", "linear", (6, 4), bias=False, inputs=((1, 4),))


class Noted(Factorization):
    """Notes what it is run with. Its index is out of range as it comes."""

    seen: ClassVar[list[tuple[tuple[int, ...], int, bool, bool]]] = []
    index: Tensor

    @classmethod
    def axes(cls, layer: Layer) -> tuple[Axis, ...]:
        return (Axis("rank", 1, 9),)

    def __init__(self, layer: Layer, *, rank: int) -> None:
        super().__init__(layer, rank=rank)
        self.left = self.factor(*layer.shape)
        self.register_buffer("index", torch.full((3,), 10**9))

    def fit(self, weight: Tensor, bases: Bases) -> None:
        raise AssertionError("a form is timed without being fitted")

    def dense(self) -> Tensor:
        return self.left * self.left.flatten()[self.index].sum()

    def forward(self, x: Tensor) -> Tensor:
        finite = bool(torch.isfinite(self.left).all())
        Noted.seen.append((tuple(x.shape), torch.get_num_threads(), torch.is_grad_enabled(), finite))
        return super().forward(x)


class Broken(Noted):
    def forward(self, x: Tensor) -> Tensor:
        raise RuntimeError("not so")


@pytest.fixture(autouse=True)
def _nothing_seen() -> Iterator[None]:
    Noted.seen.clear()
    yield
    Noted.seen.clear()


def test_a_form_is_run_on_the_layers_inputs_as_the_settings_say() -> None:
    before = torch.get_num_threads()
    settings = LatencySettings(batch=3, threads=before + 1)
    ticks = itertools.count()
    assert form_ratio(CONV, Noted, Choice("noted", {"rank": 2}), settings, clock=lambda: float(next(ticks))) == 1
    assert set(Noted.seen) == {((3, 4, 8, 8), before + 1, False, True), ((3, 4, 6, 6), before + 1, False, True)}
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("name", ["svd", "svd-spatial", "tucker2", "cp", "filter-basis"])
@pytest.mark.parametrize("layer", [CONV, LINEAR], ids=["conv", "linear"])
def test_every_built_in_form_can_be_timed(name: str, layer: Layer) -> None:
    plugin = load_plugin(name)
    if axes := plugin.axes(layer):
        choice = Choice(name, {axis.name: 2 for axis in axes})
        ratio = form_ratio(layer, plugin, choice, LatencySettings())
        assert ratio is not None
        assert ratio > 0


def test_a_form_that_cannot_be_run_has_no_time() -> None:
    assert form_ratio(CONV, Broken, Choice("broken", {"rank": 2}), LatencySettings()) is None
