"""Once the bases of a weight are known, a fit of any rank only slices and copies."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from rank_search.layers import DirectBases, Layer, load_plugin

LAYER = Layer("x", "conv2d", (16, 12, 3, 3))
MOVES = {
    "copy_",
    "slice",
    "view",
    "transpose",
    "permute",
    "t",
    "detach",
    "clone",
    "_unsafe_view",
    "_reshape_alias",
}
MOVES |= {"alias", "empty", "reshape", "expand", "as_strided"}


class Operations(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


def operations_of_fit(name: str, weight: Tensor, bases: DirectBases, values: dict[str, int]) -> set[str]:
    module = load_plugin(name)(LAYER, **values)
    with Operations() as operations:
        module.fit(weight, bases)
    return operations.names


@pytest.mark.parametrize(
    ("name", "cold", "warm"),
    [
        ("svd", {"rank": 3}, {"rank": 7}),
        ("svd-spatial", {"rank": 3}, {"rank": 20}),
        ("tucker2", {"rank_out": 3, "rank_in": 2}, {"rank_out": 9, "rank_in": 11}),
        ("cp", {"rank": 4}, {"rank": 4}),
        ("filter-basis", {"rank": 3}, {"rank": 7}),
    ],
)
def test_warm_fits_decompose_nothing(name: str, cold: dict[str, int], warm: dict[str, int]) -> None:
    weight = torch.randn(LAYER.shape)
    bases = DirectBases(weight)
    assert operations_of_fit(name, weight, bases, cold) - MOVES  # the first fit does compute
    assert operations_of_fit(name, weight, bases, warm) <= MOVES | {"split", "split_with_sizes"}
