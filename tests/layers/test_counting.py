"""Multiply-adds are counted wherever they hide: in attention, in recurrent layers, in branches."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode, register_flop_formula

from rank_search.layers.costs import count_macs, macs_by_module
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
def test_counts_agree_with_pytorch_where_it_has_a_formula(run: Callable[[], Tensor]) -> None:
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


def numbers(*shape: int, type: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, dtype=type)


def complex_numbers(*shape: int) -> Tensor:
    return numbers(*shape, type=torch.complex64)


RAGGED = torch.tensor([2, 5], dtype=torch.int32)
STEPS, CUT = nn.utils.rnn.pack_padded_sequence, torch.tensor([5, 3])


@pytest.mark.parametrize(
    ("run", "expected"),
    [
        (lambda: nn.Bilinear(3, 4, 5)(numbers(2, 3), numbers(2, 4)), 2 * 5 * 3 * 4 + 2 * 5 * 4),
        (lambda: F.bilinear(numbers(7, 2, 3), numbers(7, 2, 4), numbers(5, 3, 4)), 14 * 5 * 3 * 4 + 14 * 5 * 4),
        (lambda: torch.einsum("bi,oij,bj->bo", numbers(2, 3), numbers(5, 3, 4), numbers(2, 4)), 120 + 40),
        (lambda: torch.addbmm(numbers(3, 5), numbers(2, 3, 4), numbers(2, 4, 5)), 120),
        (lambda: torch.baddbmm(numbers(2, 3, 5), numbers(2, 3, 4), numbers(2, 4, 5)), 120),
        (lambda: numbers(3, 5).addbmm_(numbers(2, 3, 4), numbers(2, 4, 5)), 120),
        (lambda: numbers(3, 5).addmm_(numbers(3, 4), numbers(4, 5)), 60),
        (lambda: torch.mm(numbers(3, 4), numbers(4, 5), out=numbers(3, 5)), 60),
        (lambda: torch._addmm_activation(numbers(5), numbers(3, 4), numbers(4, 5)), 60),
        (lambda: numbers(3).addmv_(numbers(3, 4), numbers(4)), 12),
        (lambda: torch.addr(numbers(3, 4), numbers(3), numbers(4)), 12),
        (lambda: torch.linalg.multi_dot([numbers(3, 4), numbers(4, 5), numbers(5, 6)]), 60 + 90),
        (lambda: torch.linalg.matrix_power(numbers(3, 3), 3), 2 * 27),
        (lambda: torch.tensordot(numbers(3, 4), numbers(4, 5), 1), 60),
        (lambda: torch.einsum("bi,bi->b", numbers(3, 4), numbers(3, 4)), 12),
        (lambda: torch.cdist(numbers(30, 4), numbers(40, 4)), 30 * 40 * 4),
        (lambda: torch.cdist(numbers(2, 30, 4), numbers(40, 4)), 2 * 30 * 40 * 4),
        (lambda: torch.cdist(numbers(3, 4), numbers(5, 4)), 60),
        (lambda: torch.cdist(numbers(3, 4), numbers(5, 4), p=1.0), 0),
        (lambda: torch.pdist(numbers(5, 4)), 10 * 4),
        (lambda: F.grouped_mm(numbers(6, 16, type=torch.bfloat16), numbers(2, 16, 8, type=torch.bfloat16), offs=RAGGED),
         5 * 16 * 8),
        (lambda: F.grouped_mm(numbers(2, 6, 16, type=torch.bfloat16), numbers(2, 16, 8, type=torch.bfloat16)),
         2 * 6 * 16 * 8),
        (lambda: torch._int_mm(torch.ones(32, 16, dtype=torch.int8), torch.ones(16, 8, dtype=torch.int8)), 4096),
        (lambda: torch.eye(4).to_sparse() @ numbers(4, 5), 4 * 5),
        (lambda: torch.sparse.mm(torch.eye(4).to_sparse(), numbers(4, 5)), 4 * 5),
        (lambda: torch.sparse.addmm(numbers(4, 5), torch.eye(4).to_sparse(), numbers(4, 5)), 4 * 5),
        (lambda: torch.eye(4).to_sparse() @ numbers(4), 4),
        (lambda: F.embedding_bag(torch.tensor([[0, 1], [2, 3]]), numbers(5, 4), per_sample_weights=numbers(2, 2),
                                 mode="sum"), 4 * 4),
        (lambda: F.embedding_bag(torch.tensor([[0, 1], [2, 3]]), numbers(5, 4), mode="sum"), 0),
        (lambda: torch.conv_tbc(numbers(7, 2, 3), numbers(3, 3, 5), numbers(5), 0), 5 * 2 * 5 * 3 * 3),
        (lambda: F.conv_transpose2d(numbers(1, 4, 5, 5), numbers(4, 3, 3, 3), groups=2, stride=2), 25 * 4 * 3 * 9),
        (lambda: F.conv2d(numbers(1, 4, 5, 5), numbers(6, 4, 3, 3), padding="same"), 25 * 6 * 4 * 9),
        (lambda: F.scaled_dot_product_attention(numbers(2, 4, 5, 8), numbers(2, 2, 7, 8), numbers(2, 2, 7, 8),
                                                enable_gqa=True), 2 * 4 * 5 * 7 * 16),
        (lambda: F.scaled_dot_product_attention(numbers(2, 5, 8), numbers(2, 7, 8), numbers(2, 7, 6)),
         2 * 5 * 7 * 14),
        (lambda: F.scaled_dot_product_attention(numbers(2, 4, 5, 8), numbers(2, 4, 5, 8), numbers(2, 4, 5, 8),
                                                attn_mask=torch.ones(5, 5, dtype=torch.bool)), 2 * 4 * 25 * 16),
        (lambda: nn.RNN(3, 4)(numbers(5, 2, 3)), 10 * (12 + 16)),
        (lambda: nn.LSTM(3, 4, proj_size=2)(numbers(5, 2, 3)), 10 * (48 + 32 + 8)),
        (lambda: nn.LSTM(3, 4)(STEPS(numbers(5, 2, 3), CUT)), 8 * (48 + 64)),
        (lambda: nn.GRUCell(3, 4)(numbers(2, 3)), 2 * (36 + 48)),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:LSTM with projections:UserWarning")
def test_products_in_closed_form(run: Callable[[], object], expected: int) -> None:
    assert multiply_adds(run)[WHOLE] == expected


@pytest.mark.parametrize("name", ["multi head", "encoder layer"])
def test_a_fused_operation_that_a_model_calls_itself_counts_as_what_it_consists_of(name: str) -> None:
    block = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    heads, x = block.self_attn, SEQUENCE
    attention = (8, 2, heads.in_proj_weight, heads.in_proj_bias, heads.out_proj.weight, heads.out_proj.bias)
    norms = [each for norm in (block.norm1, block.norm2) for each in (norm.weight, norm.bias)]
    layers = [each for layer in (block.linear1, block.linear2) for each in (layer.weight, layer.bias)]
    if name == "multi head":
        found = multiply_adds(lambda: torch._native_multi_head_attention(x, x, x, *attention))
        assert found == multiply_adds(lambda: heads(x, x, x))
    else:
        operation = torch._transformer_encoder_layer_fwd
        found = multiply_adds(lambda: operation(x, *attention, False, False, 1e-5, *norms, *layers))
        assert found == multiply_adds(lambda: block(x))
    assert found[WHOLE] > 0


@pytest.mark.parametrize(
    ("run", "real"),
    [
        (lambda: complex_numbers(3, 4) @ complex_numbers(4, 5), 60),
        (lambda: F.linear(complex_numbers(2, 3), complex_numbers(5, 3), complex_numbers(5)), 30),
        (lambda: torch.vdot(complex_numbers(4), complex_numbers(4)), 4),
        (lambda: torch.einsum("bix,iox->box", complex_numbers(2, 3, 4), complex_numbers(3, 5, 4)), 120),
        (lambda: F.bilinear(complex_numbers(2, 3), complex_numbers(2, 4), complex_numbers(5, 3, 4)), 160),
        (lambda: nn.Conv1d(3, 5, 3, dtype=torch.complex64)(complex_numbers(1, 3, 10)), 8 * 45),
        (lambda: nn.Conv2d(4, 6, 3, groups=2, dtype=torch.complex64)(complex_numbers(1, 4, 5, 5)), 9 * 6 * 2 * 9),
        (lambda: F.conv1d(complex_numbers(1, 3, 10), complex_numbers(5, 3, 3), padding="same"), 10 * 45),
        (lambda: nn.ConvTranspose1d(3, 5, 3, dtype=torch.complex64)(complex_numbers(1, 3, 10)), 10 * 45),
        (lambda: torch.ops.aten.conv1d.default(complex_numbers(1, 3, 10), complex_numbers(5, 3, 3)), 8 * 45),
    ],
)
def test_a_complex_product_is_four_real_ones_everywhere(run: Callable[[], object], real: int) -> None:
    assert multiply_adds(run)[WHOLE] == 4 * real


def test_complex_convolutions_count_in_their_modules() -> None:
    model = nn.Sequential(nn.Conv1d(3, 5, 3, dtype=torch.complex64), nn.Flatten())
    assert macs_by_module(model, complex_numbers(1, 3, 10)) == {"": 4 * 8 * 45, "0": 4 * 8 * 45}


def test_somebody_elses_operation_is_named_once_or_counted_by_its_own_formula(
    caplog: pytest.LogCaptureFixture,
) -> None:
    known, unknown = made_operation("known"), made_operation("unknown")
    register_flop_formula(torch.ops.counted_here.known)(lambda a, b, **_: 2 * a[0] * a[1] * b[1])
    a, b = numbers(3, 4), numbers(4, 5)
    assert multiply_adds(lambda: known(a, b))[WHOLE] == 60
    assert not caplog.records
    assert multiply_adds(lambda: (unknown(a, b), unknown(a, b)))[WHOLE] == 0
    assert [record.message.split(" are ")[0] for record in caplog.records] == [
        "The multiply-adds of counted_here::unknown"
    ]


def made_operation(name: str) -> Callable[[Tensor, Tensor], Tensor]:
    """A product that PyTorch cannot see into."""

    @torch.library.custom_op(f"counted_here::{name}", mutates_args=())
    def product(a: Tensor, b: Tensor) -> Tensor:
        return a @ b

    return product


class LearnedPositions(nn.Module):
    """A layer is called with a parameter itself, as the relative positions of DeBERTa are."""

    def __init__(self) -> None:
        super().__init__()
        self.positions, self.key = nn.Parameter(torch.randn(7, 4)), nn.Linear(4, 6)

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.key(self.positions).T


def test_a_layer_that_is_called_with_a_parameter_counts_in_its_module() -> None:
    assert macs_by_module(LearnedPositions(), torch.randn(3, 6)) == {"": 7 * 4 * 6 + 3 * 6 * 7, "key": 7 * 4 * 6}


def test_an_error_of_the_model_is_passed_on() -> None:
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        count_macs(nn.Linear(4, 3), [torch.randn(2, 5)])


COMPILER = ("torch._dynamo", "torch._inductor", "torch.fx.experimental.symbolic_shapes", "sympy")


def imported(code: str) -> list[str]:
    """What a fresh process prints, and the parts of PyTorch's compiler that it has imported then."""
    told = f"{code}\nprint(*[name for name in {COMPILER} if name in sys.modules])"
    return subprocess.run(
        [sys.executable, "-c", f"import sys, torch\n{told}"], check=True, capture_output=True, text=True
    ).stdout.splitlines()


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_pytorchs_compiler_is_not_imported(device: str) -> None:
    code = f"""
from torch import nn
from rank_search.layers.costs import count_macs
with torch.device({device!r}):
    print(count_macs(nn.Linear(3, 4), [torch.empty(2, 3), torch.empty(3), torch.empty(2, 2, 3)]))
    print(count_macs(nn.Linear(3, 4, bias=False), [torch.empty(2, 3), torch.empty(3), torch.empty(2, 2, 3)]))
    print(count_macs(nn.Conv2d(3, 4, 3, padding=1), [torch.empty(1, 3, 5, 5), torch.empty(3, 5, 5)]))
    print(count_macs(nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"), [torch.empty(1, 3, 5, 5)]))
    print(count_macs(nn.ConvTranspose2d(3, 4, 3, 2, 1, 1), [torch.empty(1, 3, 5, 5)]))
"""
    assert imported(code) == ["84", "84", "5400", "2700", "2700", ""]


def test_costs_of_layers_do_not_import_pytorchs_compiler() -> None:
    code = """
from rank_search.layers import Layer, layer_cost, load_plugin
from rank_search.point import Choice
linear = Layer("", "linear", (8, 6), inputs=((3, 6), (2, 3, 6), (6,)))
conv = Layer("", "conv2d", (8, 6, 3, 3), padding=((1, 1), (1, 1)), inputs=((1, 6, 9, 9), (6, 9, 9)))
uneven = Layer("", "conv2d", (8, 6, 3, 3), padding=((1, 2), (0, 1)), padding_mode="replicate", inputs=((1, 6, 9, 9),))
for layer in (linear, conv, uneven):
    layer_cost(layer, None, Choice())
    for name in ("svd", "svd-spatial", "tucker2", "cp", "filter-basis"):
        plugin = load_plugin(name)
        if axes := plugin.axes(layer):
            layer_cost(layer, plugin, Choice(name, {axis.name: 2 for axis in axes}))
"""
    assert imported(code) == [""]


@pytest.mark.parametrize(
    "run",
    [
        lambda x: x(3, 4) @ x(4, 5),
        lambda x: x(7, 3, 4) @ x(7, 4, 5),
        lambda x: x(3, 4) @ x(4),
        lambda x: x(4) @ x(4),
        lambda x: torch.addmm(x(5), x(3, 4), x(4, 5)),
        lambda x: torch.addmm(x(3, 1), x(3, 4), x(4, 5), beta=2.0),
        lambda x: torch.baddbmm(x(1, 5), x(2, 3, 4), x(2, 4, 5)),
        lambda x: torch.addmv(x(3), x(3, 4), x(4)),
        lambda x: F.pad(x(2, 3, 5, 6), (1, 2, 3, 4), mode="reflect"),
        lambda x: F.pad(x(3, 5, 6), (1, 2, 3, 4), mode="replicate"),
        lambda x: F.conv1d(x(2, 4, 9), x(6, 2, 3), x(6), stride=2, padding=1, dilation=2, groups=2),
        lambda x: F.conv2d(x(2, 4, 9, 8), x(6, 4, 3, 2), stride=(2, 1), padding=(0, 1)),
        lambda x: F.conv3d(x(1, 2, 4, 5, 6), x(3, 2, 2, 2, 2), x(3)),
        lambda x: F.conv_transpose2d(x(2, 4, 5, 6), x(4, 3, 3, 2), x(6), 2, (1, 0), (1, 0), 2, 1),
    ],
)
def test_on_the_meta_device_shapes_and_counts_are_those_of_real_tensors(run: Callable[..., Tensor]) -> None:
    found: dict[str, Tensor] = {}

    def on(device: str) -> Callable[[], None]:
        def keep() -> None:
            found[device] = run(lambda *shape: torch.ones(*shape, device=device))

        return keep

    assert multiply_adds(on("meta")) == multiply_adds(on("cpu"))
    real, told = found["cpu"], found["meta"]
    assert told.is_meta
    assert (told.shape, told.dtype, told.stride()) == (real.shape, real.dtype, real.stride())


@pytest.mark.parametrize(
    "run",
    [
        lambda x: torch.mm(x(3, 4), x(5, 6)),
        lambda x: torch.bmm(x(2, 3, 4), x(3, 4, 5)),
        lambda x: torch.addmm(x(4), x(3, 4), x(4, 5)),
        lambda x: torch.mv(x(3, 4), x(3)),
        lambda x: F.conv2d(x(1, 3, 5, 5), x(4, 2, 3, 3)),
        lambda x: F.conv2d(x(1, 3, 5, 5), x(4, 3, 7, 7)),
        lambda x: F.pad(x(1, 3, 5, 5), (5, 5, 0, 0), mode="reflect"),
    ],
)
def test_shapes_that_do_not_fit_are_refused_on_the_meta_device_too(run: Callable[..., Tensor]) -> None:
    for device in ("cpu", "meta"):
        with pytest.raises(RuntimeError):
            multiply_adds(lambda: run(lambda *shape: torch.ones(*shape, device=device)))  # noqa: B023 - run at once
