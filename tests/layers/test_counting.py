"""Multiply-adds are counted wherever they hide: in attention, in recurrent layers, in branches."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from rank_search.layers import count_macs
from rank_search.layers.costs import macs_by_module
from rank_search.layers.counting import WHOLE, multiply_adds

SEQUENCE = torch.randn(2, 5, 8)  # 2 of 5 steps with 8 features


@pytest.mark.parametrize(
    "run",
    [
        lambda: torch.randn(3, 4) @ torch.randn(4, 5),
        lambda: torch.randn(7, 3, 4) @ torch.randn(7, 4, 5),
        lambda: torch.einsum("abc,dc->abd", torch.randn(2, 3, 4), torch.randn(5, 4)),
        lambda: F.conv1d(torch.randn(2, 4, 9), torch.randn(6, 2, 3), stride=2, groups=2),
        lambda: F.conv_transpose2d(torch.randn(2, 4, 5, 5), torch.randn(4, 6, 3, 3)),
        lambda: nn.GRU(8, 3)(SEQUENCE),
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(36, 2))(
            torch.randn(2, 3, 5, 5)
        ),
    ],
)
def test_where_pytorch_has_a_formula_it_is_pytorchs(run: Callable[[], Tensor]) -> None:
    with torch.no_grad(), FlopCounterMode(display=False) as theirs:
        run()
    assert multiply_adds(run)[WHOLE] == theirs.get_total_flops() // 2 > 0


def test_products_with_a_vector() -> None:
    matrix, vector = torch.randn(3, 4), torch.randn(4)
    assert count_macs(nn.Linear(4, 3), [vector]) == 12
    assert multiply_adds(lambda: matrix @ vector)[WHOLE] == 12
    assert multiply_adds(lambda: vector @ vector)[WHOLE] == 4


@pytest.mark.parametrize("training", [True, False])
def test_attention_is_the_layers_that_it_consists_of(training: bool) -> None:
    attention = nn.MultiheadAttention(8, 2, batch_first=True).train(training)
    projections, scores = 4 * 10 * 8 * 8, 2 * 2 * 5 * 5 * 8
    attended = multiply_adds(lambda: attention(SEQUENCE, SEQUENCE, SEQUENCE))
    assert attended[WHOLE] == projections + scores
    block = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).train(training)
    found = macs_by_module(block, SEQUENCE)
    assert found[""] == projections + scores + 2 * 10 * 8 * 16
    assert found["linear1"] == found["linear2"] == 10 * 8 * 16
    assert torch.backends.mha.get_fastpath_enabled()  # it is as it was


def test_scaled_dot_products() -> None:
    query, key, value = torch.randn(2, 3, 5, 8), torch.randn(2, 3, 7, 8), torch.randn(2, 3, 7, 8)
    found = multiply_adds(lambda: F.scaled_dot_product_attention(query, key, value))
    assert found[WHOLE] == 2 * 3 * 5 * 7 * (8 + 8)


@pytest.mark.parametrize(("layers", "directions"), [(1, 1), (2, 1), (1, 2), (2, 2)])
@pytest.mark.parametrize("bias", [True, False])
def test_lstm(layers: int, directions: int, bias: bool) -> None:
    lstm = nn.LSTM(8, 3, layers, bias=bias, bidirectional=directions == 2, batch_first=True).eval()
    entering = [8] + [3 * directions] * (layers - 1)
    expected = sum(10 * directions * 4 * 3 * (into + 3) for into in entering)
    assert multiply_adds(lambda: lstm(SEQUENCE))[WHOLE] == expected


class Branches(nn.Module):
    """One product in one branch, two in the other."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        chosen = torch.cond(x.sum() > 0, self.inner, lambda x: self.inner(self.inner(x)), (x,))  # type: ignore[no-untyped-call]
        return self.outer(chosen)  # type: ignore[no-any-return]


@pytest.mark.filterwarnings("default::UserWarning")  # of PyTorch's compiler, about itself
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_of_two_branches_the_dearer_counts(sign: float) -> None:
    example = torch.full((3, 4), sign)
    assert count_macs(Branches(), iter([example])) == 3 * (2 * 16 + 8)
    found = macs_by_module(Branches(), example)
    assert found == {"": 3 * (2 * 16 + 8), "inner": 3 * 2 * 16, "outer": 3 * 8}
    nested = macs_by_module(nn.Sequential(nn.Linear(4, 4), Branches()), example)
    assert (nested["0"], nested["1"], nested["1.inner"]) == (3 * 16, found[""], found["inner"])


def test_an_error_of_the_model_is_passed_on() -> None:
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        count_macs(nn.Linear(4, 3), [torch.randn(2, 5)])


def test_pytorchs_compiler_is_not_imported() -> None:
    code = (
        "import sys, torch; from rank_search.layers import count_macs\n"
        "print(count_macs(torch.nn.Linear(3, 4), [torch.randn(2, 3)]), 'torch._dynamo' in sys.modules)"
    )
    printed = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert printed.split() == ["24", "False"]
