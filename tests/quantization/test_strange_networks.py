"""Networks whose outputs hang on what has no gradient, and inputs that say little: packed close, or named."""

from __future__ import annotations

import dataclasses
import logging
import warnings
from collections import namedtuple
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import rank_search as rs
from rank_search.errors import TaskError
from rank_search.layers import Layer, forward, take_inventory
from rank_search.quantization import observed
from rank_search.quantization.closeness import Closeness
from rank_search.quantization.expense import bytes_for, say_expense
from rank_search.quantization.observed import moments
from rank_search.quantization.rounding import Block, pivots, refit, round_blocks
from rank_search.quantization.sensitivity import sensitivity

Pair = namedtuple("Pair", ["logits", "state"])


@dataclasses.dataclass
class Found:
    logits: Tensor
    state: object = None


class Net(nn.Module):
    """An encoder, a code book and a head, put together by a function."""

    def __init__(self, between: Callable[[Net, Tensor], Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.enter, self.inner, self.head = nn.Linear(8, 24), nn.Linear(24, 16), nn.Linear(16, 5)
        self.codes = nn.Parameter(torch.randn(32, 16))
        self.between = between

    def forward(self, x: Tensor) -> Any:
        return self.between(self, self.inner(self.enter(x).relu()))


def nearest(net: Net, h: Tensor) -> Tensor:
    return net.codes[torch.cdist(h, net.codes).argmin(1)]


def without_gradient(net: Net, h: Tensor) -> Tensor:
    return net.head(h + net.codes[0]).detach()  # type: ignore[no-any-return]


def overwritten(net: Net, h: Tensor) -> Tensor:
    y = (h + net.codes[0]).sigmoid()
    y[:, :3] = y[:, :3] * 2 - 0.5
    return net.head(y)  # type: ignore[no-any-return]


HIDDEN = {
    "argmax": lambda net, h: net.head(net.codes[h.argmax(1)]),
    "code book": lambda net, h: net.head(nearest(net, h)),
    "threshold": lambda net, h: net.head((h > 0).float() + net.codes[0]),
    "round": lambda net, h: net.head((3 * h).round() + net.codes[0]),
    "detach": lambda net, h: net.head(h.detach() + net.codes[0]),
    "sign": lambda net, h: net.head(h.sign() + net.codes[0]),
}

WITHOUT = {
    "no_grad": without_gradient,
    "integers": lambda net, h: net.head(h + net.codes[0]).argmax(1),
    "numpy": lambda net, h: net.head(torch.from_numpy(h.numpy()) + net.codes[0]),
}

KNOWN = {
    "overwritten": overwritten,
    "dictionary": lambda net, h: {"logits": net.head(h + net.codes[0]), "none": None},
    "named tuple": lambda net, h: Pair(net.head(h + net.codes[0]), None),
    "data class": lambda net, h: Found(net.head(h + net.codes[0])),
    "masked": lambda net, h: torch.cat([net.head(h + net.codes[0]), torch.full((len(h), 1), -torch.inf)], 1),
    "sampled": lambda net, h: net.head(h + net.codes[0] + torch.randn_like(h)),
    "complex": lambda net, h: torch.fft.rfft(net.head(h + net.codes[0])),
}

X = torch.randn(256, 8, generator=torch.Generator().manual_seed(3))


def packed(between: Callable[[Net, Tensor], Any], **changes: Any) -> rs.PackedModel:
    return rs.pack_model(Net(between).eval(), [X[:128], X[128:]], example=X[:1], **changes)


@pytest.mark.parametrize("between", HIDDEN.values(), ids=HIDDEN)
def test_layers_behind_what_has_no_gradient_are_kept_and_named(between: Callable[[Net, Tensor], Tensor]) -> None:
    found = packed(between, slope=0.01)
    assert {"enter", "inner"} <= found.safe.keys()
    assert "no gradient" in found.safe["enter"]
    assert "head" not in found.safe
    assert found.error < 0.02
    steps = {each.name: each.step for each in found.layers}
    assert steps["enter"] < 1e-3 < steps["head"]


@pytest.mark.parametrize("between", WITHOUT.values(), ids=WITHOUT)
def test_packing_without_any_gradient_keeps_and_names_every_layer(between: Callable[[Net, Tensor], Tensor]) -> None:
    model = Net(between).eval()
    found = packed(between)
    assert {"enter", "inner"} <= found.safe.keys()
    assert all(found.safe.values())
    assert found.error < 1e-3
    assert found.size < 4 * sum(each.numel() for each in model.parameters()) / 1.8


@pytest.mark.parametrize("between", KNOWN.values(), ids=KNOWN)
def test_outputs_of_many_kinds_are_differentiated(between: Callable[[Net, Tensor], Any]) -> None:
    found = packed(between, slope=1e-4)
    assert not found.safe.keys() & {"enter", "inner", "head"}
    assert 0 < found.error < 1e-2


def test_a_straight_through_code_book_is_seen_by_what_it_does() -> None:
    """Its gradient says that the code book does not matter, and that a choice never turns over."""
    found = packed(lambda net, h: net.head(h + (nearest(net, h) - h).detach()), slope=0.01)
    assert "codes" in found.safe
    assert found.error < 0.02


def test_a_gate_that_is_felt_by_its_weight_alone_is_seen_by_what_it_does() -> None:
    def between(net: Net, h: Tensor) -> Tensor:
        weight, choice = h.softmax(1).max(1)
        return net.codes[choice] * weight[:, None]

    assert packed(between, slope=0.02).error < 0.05


def test_outputs_that_are_no_tensor_are_refused() -> None:
    with pytest.raises(TaskError, match="returned no tensor"):
        packed(lambda net, h: None)
    with pytest.raises(TaskError, match="forward raised ValueError: no such thing"):
        rs.pack_model(Net(raising), [X], example=X[:1])


def raising(net: Net, h: Tensor) -> Tensor:
    if len(h) > 1:
        raise ValueError("no such thing")
    return h


def test_packing_error_is_that_of_the_outputs_and_a_large_one_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 4)).eval()
    for slope, is_large in ((1e-4, False), (10.0, True)):
        caplog.clear()
        found = rs.pack_model(model, [X[:128], X[128:]], example=X[:1], slope=slope)
        with torch.no_grad():
            before, after = model(X), found.model(X)
        assert found.error == pytest.approx(float((before - after).square().sum() / before.square().sum()), rel=1e-4)
        assert ("outputs of the packed model are off" in caplog.text) == is_large


# ---- inputs that say little ------------------------------------------------------------------------------


def plain() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 4)).eval()


INPUTS = {
    "one": X[:1],
    "all alike": X[:1].expand(64, 8).contiguous(),
    "years": 2020 + X,
    "far": 1e6 + X,
    "two": X[:2],
    "one varies": torch.cat([X[:, :1], torch.ones(256, 7)], 1),
    "zero": torch.zeros(16, 8),
}


@pytest.mark.parametrize("x", INPUTS.values(), ids=INPUTS)
@pytest.mark.parametrize("bias", [True, False])
def test_packing_layers_whose_inputs_vary_little_beside_their_mean(x: Tensor, bias: bool) -> None:
    model = plain()
    if not bias:
        model[2] = nn.Linear(64, 64, bias=False)
    found = rs.pack_model(model, [x], example=x[:1], slope=1e-4)
    assert found.error < 0.01
    assert all(bool(each.isfinite().all()) for each in found.model.parameters())


def test_a_single_example_does_not_ruin_the_others() -> None:
    model = plain()
    found = rs.pack_model(model, [X[:1]], example=X[:1], slope=1e-5)
    with torch.no_grad():
        before, after = model(X), found.model(X)
    assert float((before - after).square().sum() / before.square().sum()) < 0.05


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_packing_models_of_other_precisions(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(576, 4)
    model = nn.Sequential(*layers).eval().to(dtype)
    x = (4 * torch.randn(64, 3, 8, 8)).to(dtype)
    found = rs.pack_model(model, [x], example=x[:1], slope=1e-4)
    assert found.error < 0.01
    assert all(each.dtype == dtype for each in found.model.parameters())


def test_packing_layers_without_inputs_or_outputs_and_with_zero_weights() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            with warnings.catch_warnings(action="ignore"):  # there is nothing to initialize
                self.none, self.empty = nn.Linear(0, 16), nn.Linear(8, 0)
            self.zero = nn.Linear(8, 16)
            self.behind, self.head = nn.Linear(16, 16), nn.Linear(32, 4)
            nn.init.zeros_(self.zero.weight)

        def forward(self, x: Tensor) -> Tensor:
            h = self.behind(self.zero(x).relu()) + self.none(x[:, :0])
            return self.head(torch.cat([h, torch.zeros(len(x), 8), x, self.empty(x)], 1))  # type: ignore[no-any-return]

    found = rs.pack_model(Odd().eval(), [X], example=X[:1], slope=1e-4)
    assert found.error < 0.01
    assert {each.name for each in found.layers} == {"zero", "behind", "head"}


def test_an_expert_that_no_example_comes_to_is_kept_and_named() -> None:
    class Experts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.gate, self.experts = nn.Linear(8, 3), nn.ModuleList(nn.Linear(8, 8) for _ in range(3))
            nn.init.constant_(self.gate.bias, 0)
            with torch.no_grad():
                self.gate.bias[2] = -100

        def forward(self, x: Tensor) -> Tensor:
            choice = self.gate(x).argmax(1)
            return sum(expert(x[choice == n]).sum(0) for n, expert in enumerate(self.experts)) + x.sum(0)

    model = Experts().eval()
    found = rs.pack_model(model, [X], example=X[:1])
    assert found.safe["experts.2"] == "no calibration input comes to it"
    before, after = (each.get_parameter("experts.2.weight") for each in (model, found.model))
    assert torch.allclose(before, after, atol=1e-3)


# ---- wide layers -----------------------------------------------------------------------------------------


def test_a_wide_layer_is_taken_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(60, 40), nn.ReLU(), nn.Linear(40, 4)).eval(), torch.randn(400, 60)
    whole = rs.pack_model(model, [x], example=x[:1], slope=1e-3)
    monkeypatch.setattr(observed, "WIDEST", 32)
    monkeypatch.setattr(observed, "BLOCK", 16)
    layer = take_inventory(model, x[:1]).layers["0"]
    found = moments(model, model, layer, forward, [x])
    assert [each.columns for each in found.blocks] == [slice(0, 15), slice(15, 30), slice(30, 45), slice(45, 60)]
    assert torch.allclose(found.blocks[1].seen, torch.cov(x[:, 15:30].double().T, correction=0), atol=1e-5)
    blocked = rs.pack_model(model, [x], example=x[:1], slope=1e-3)
    assert blocked.error < 3 * whole.error
    assert blocked.size < 1.2 * whole.size


def test_expense_of_a_wide_layer_is_logged_before(caplog: pytest.LogCaptureFixture) -> None:
    head = Layer("head", "linear", (4096, 25088))
    with caplog.at_level(logging.WARNING):
        say_expense([Layer("small", "linear", (64, 512)), head])
    (line,) = caplog.messages
    assert line.startswith("Layer 'head' has 25,088 inputs: rounding it takes about ")
    assert "in 13 blocks, to fit" in line
    assert bytes_for(head) < 6 * 2**30


def test_columns_that_are_taken_together_round_as_one_by_one() -> None:
    """The compensation as it is defined, column by column, over more columns than are taken together."""
    generator = torch.Generator().manual_seed(0)
    W = torch.randn(3, 300, generator=generator, dtype=torch.float64)
    X = torch.randn(900, 300, generator=generator, dtype=torch.float64)
    H = X.T @ X / 900
    order, U = pivots(H)
    left, whole = W[:, order] / 0.3, torch.empty(3, 300, dtype=torch.float64)
    for column in range(300):
        whole[:, column] = left[:, column].round()
        error = (left[:, column] - whole[:, column]) / U[column, column]
        left[:, column:] -= error[:, None] * U[column, column:]
    back = torch.empty_like(whole)
    back[:, order] = whole
    steps, free = torch.tensor([[0.3]], dtype=torch.float64), torch.zeros(3, 1, dtype=torch.float64)
    assert torch.equal(round_blocks(W, steps, [Block(slice(0, 300), H, (order, U))], free), back)


def test_a_refit_and_pivots_of_what_is_no_moment_are_finite() -> None:
    H = torch.tensor([[1.0, 2.0], [2.0, 1.0]], dtype=torch.float64)  # an eigenvalue of -1
    assert bool(pivots(H)[1].isfinite().all())
    assert bool(refit(torch.ones(1, 2), H, H).isfinite().all())


def test_a_model_that_is_never_the_same_has_noise() -> None:
    own = torch.Generator().manual_seed(0)
    model = Net(lambda net, h: net.head(h + net.codes[0] + torch.randn(h.shape, generator=own))).eval()
    assert Closeness.of(model, forward, [X]).noise > 0
    assert Closeness.of(Net(KNOWN["sampled"]).eval(), forward, [X]).noise == 0


def test_sensitivity_keeps_what_a_forward_overwrites() -> None:
    def copied(net: Net, h: Tensor) -> Tensor:
        y = (h + net.codes[0]).sigmoid()
        return net.head(torch.cat([y[:, :3] * 2 - 0.5, y[:, 3:]], 1))  # type: ignore[no-any-return]

    names = ["enter", "inner", "head"]
    found, expected = (sensitivity(Net(each).eval(), names, forward, [X]) for each in (overwritten, copied))
    assert not found.trouble
    assert all(torch.allclose(found.outputs[name], expected.outputs[name]) for name in names)


class Averaged(nn.Module):
    """A mean over positions, at which an error of the layer before it may be the same."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.inner, self.head = nn.Linear(16, 64), nn.Linear(64, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.inner(x).mean(1).relu())  # type: ignore[no-any-return]


def test_errors_that_add_up_are_rounded_as_much_finer_as_they_were_seen_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixteen equal positions: the error is sixteen times what independent ones would make it, and Δ² as much less."""
    alike = torch.randn(512, 1, 16, generator=torch.Generator().manual_seed(3)).expand(-1, 16, -1)

    def rounded() -> rs.PackedModel:
        return rs.pack_model(Averaged().eval(), [alike], example=alike[:1], slope=0.05)

    found = rounded()
    monkeypatch.setattr(Closeness, "surprise", lambda *_: "")
    blind = rounded()
    assert found.safe.keys() == {"inner"}
    assert not blind.safe
    assert 10 < (blind.layers[0].step / found.layers[0].step) ** 2 < 20
    assert found.error < blind.error / 5


def test_only_finer_roundings_are_judged_by_what_they_add_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first one also by what it costs beside the errors that are there already."""
    alike = torch.randn(512, 1, 16, generator=torch.Generator().manual_seed(3)).expand(-1, 16, -1)
    asked: list[bool] = []
    surprise = Closeness.surprise

    def listening(self: Closeness, *numbers: float) -> str:
        *_, alone = numbers
        asked.append(bool(alone))
        return surprise(self, *numbers)  # type: ignore[arg-type]

    monkeypatch.setattr(Closeness, "surprise", listening)
    rs.pack_model(Averaged().eval(), [alike], example=alike[:1], slope=0.05)
    assert asked == [False, True, False], "inner, inner finer, head"
