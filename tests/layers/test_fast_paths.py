"""What a factorized model runs is what is counted: in PyTorch's Transformer modules, and where weights are read."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Sequence
from math import prod
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from rank_search.export.formats import FORMATS
from rank_search.export.tracing import Traced, trace
from rank_search.layers import (
    DirectBases,
    Example,
    Factorization,
    Inventory,
    Layer,
    factorize,
    forward,
    layer_cost,
    load_plugin,
    recompose,
    skeleton,
    take_inventory,
)
from rank_search.layers.costs import count_macs
from rank_search.point import Choice, Point

D, HIDDEN, HEADS, STEPS, RANK = 16, 24, 4, 6, 3
SVD = {"svd": load_plugin("svd")}


class Products(TorchDispatchMode):
    """Multiply-adds of what PyTorch really dispatches, fast paths and all; written apart from what it checks."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total, self.names = 0, set[str]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func._schema.name.removeprefix("aten::")
        self.names.add(name)
        if name in ("mm", "bmm"):
            self.total += prod(out.shape) * args[0].shape[-1]
        elif name in ("addmm", "baddbmm"):
            self.total += prod(out.shape) * args[1].shape[-1]
        elif name == "convolution":
            self.total += prod(out.shape) * prod(args[1].shape[1:])
        elif name == "_scaled_dot_product_flash_attention_for_cpu":
            self.total += 2 * prod(args[0].shape) * args[1].shape[2]
        elif name == "_native_multi_head_attention":
            batch, steps, width = args[0].shape
            self.total += batch * (4 * steps * width**2 + 2 * steps**2 * width)
        return out


def run(model: nn.Module, example: Example) -> tuple[int, set[str]]:
    """Multiply-adds and names of what one forward in evaluation dispatches."""
    products = Products()
    with torch.no_grad(), products:
        forward(model.eval(), example)
    return products.total, products.names


class Encoder(nn.Module):
    """A Transformer encoder; with `pad`, tokens of zeros are masked."""

    def __init__(self, pad: bool = False, batch_first: bool = True, **options: Any) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(D, HEADS, HIDDEN, dropout=0.0, batch_first=batch_first, **options)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it will not use nested tensors
            self.encoder = nn.TransformerEncoder(layer, 2)
        self.pad, self.out = pad, nn.Linear(D, 4)

    def forward(self, x: Tensor) -> Tensor:
        mask = (x == 0).all(-1) if self.pad else None
        found = self.encoder(x, src_key_padding_mask=mask)
        found = found if mask is None else found.masked_fill(mask[..., None], 0)
        return self.out(found)  # type: ignore[no-any-return]


class Decoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerDecoderLayer(D, HEADS, HIDDEN, dropout=0.0, batch_first=True)
        self.decoder = nn.TransformerDecoder(layer, 2)

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        return self.decoder(x, memory)  # type: ignore[no-any-return]


class Attention(nn.Module):
    def __init__(self, plain_out: bool = False) -> None:
        super().__init__()
        self.before, self.after = nn.Linear(D, D), nn.Linear(D, 4)
        self.attention = nn.MultiheadAttention(D, HEADS, batch_first=True)
        if plain_out:
            self.attention.out_proj = nn.Linear(D, D)  # type: ignore[assignment]

    def forward(self, x: Tensor) -> Tensor:
        x = self.before(x)
        return self.after(self.attention(x, x, x, need_weights=False)[0])  # type: ignore[no-any-return]


def batch(steps: int = STEPS, padded: int = 0) -> Tensor:
    x = torch.randn(1, steps, D)
    x[:, steps - padded :] = 0
    return x


NETWORKS: dict[str, tuple[Callable[[], nn.Module], Callable[[], Example]]] = {
    "encoder": (Encoder, batch),
    "encoder, gelu": (lambda: Encoder(activation="gelu"), batch),
    "encoder, norm first": (lambda: Encoder(norm_first=True), batch),
    "encoder, time first": (lambda: Encoder(batch_first=False), lambda: batch().transpose(0, 1)),
    "encoder, nested": (lambda: Encoder(pad=True), lambda: batch(padded=2)),
    "encoder, nested, nothing padded": (lambda: Encoder(pad=True), batch),
    "encoder, norm first, padded": (lambda: Encoder(pad=True, norm_first=True), lambda: batch(padded=2)),
    "decoder": (Decoder, lambda: (batch(), batch(4))),
    "transformer": (
        lambda: nn.Transformer(D, HEADS, 1, 1, HIDDEN, dropout=0.0, batch_first=True),
        lambda: (batch(), batch(4)),
    ),
    "attention": (Attention, batch),
    "attention with a plain projection": (lambda: Attention(plain_out=True), batch),
}


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def low_rank(model: nn.Module, inventory: Inventory, *without: str) -> nn.Module:
    point = Point({name: Choice("svd", {"rank": RANK}) for name in inventory.layers if name not in without})
    assert point.layers
    return factorize(model, point, inventory.layers, SVD, lambda name: DirectBases(model.get_submodule(name).weight))


def written(model: nn.Module, example: Example, folder: Path) -> nn.Module:
    """The model, exported and read back."""
    return written_as("safetensors", trace(model, example), folder)


def written_as(format: str, traced: Traced, folder: Path) -> nn.Module:
    FORMATS[format].write(traced, folder)
    return FORMATS[format].read(folder, {"sizes": traced.sizes.to_json()})


def costs(inventory: Inventory, model: nn.Module) -> int:
    """What the layers cost by themselves, and the rest of the model."""
    total = inventory.rest
    for name, layer in inventory.layers.items():
        is_low = isinstance(model.get_submodule(name), Factorization)
        choice = Choice("svd", {"rank": RANK}) if is_low else Choice()
        total = total + layer_cost(layer, SVD["svd"] if is_low else None, choice)
    return total.macs


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("name", NETWORKS)
def test_recorded_operations_are_those_that_run_eagerly_and_exported(name: str, frozen: bool, tmp_path: Path) -> None:
    make, example = NETWORKS[name][0]().eval().requires_grad_(not frozen), NETWORKS[name][1]()
    inventory = take_inventory(make, example)
    model = low_rank(make, inventory).eval()
    counted = count_macs(model, [example])
    assert counted == costs(inventory, model) < inventory.dense.macs
    assert run(model, example)[0] == counted
    with torch.no_grad():
        expected = forward(model, example)
    traced = trace(model, example)  # which takes longer than all the rest
    for format in ("safetensors", "pt2"):
        loaded = written_as(format, traced, tmp_path)
        assert count_macs(loaded, [example]) == counted
        assert run_loaded(loaded, example) == counted
        torch.testing.assert_close(forward(loaded, example), expected)


def run_loaded(model: nn.Module, example: Example) -> int:
    products = Products()
    with torch.no_grad(), products:
        forward(model, example)
    return products.total


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
@pytest.mark.parametrize("first", [True, False])
def test_one_factorized_layer_is_enough_and_the_others_keep_their_fast_path(first: bool) -> None:
    model, example = Encoder(pad=True).eval(), batch(padded=2)
    inventory = take_inventory(model, example)
    assert {"encoder.layers.0.linear1", "encoder.layers.1.linear2", "out"} <= inventory.layers.keys()
    rest = [each for each in inventory.layers if each != f"encoder.layers.{0 if first else 1}.linear1"]
    total, names = run(found := low_rank(model, inventory, *rest), example)
    assert "_transformer_encoder_layer_fwd" in names
    fused = 4 * STEPS * D**2 + 2 * STEPS**2 * D + 2 * STEPS * D * HIDDEN
    assert total + fused == count_macs(found, [example])
    assert "_transformer_encoder_layer_fwd" in run(model, example)[1]  # the dense model is as it was


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
def test_a_layer_of_full_rank_gives_the_dense_models_outputs() -> None:
    model, example = Encoder(pad=True).eval(), batch(padded=2)
    layers = take_inventory(model, example).layers
    point = Point({"encoder.layers.1.linear1": Choice("svd", {"rank": 9})})
    found = factorize(model, point, layers, SVD, lambda name: DirectBases(model.get_submodule(name).weight))
    full = SVD["svd"](layers["encoder.layers.1.linear1"], rank=D)
    full.fit(model.encoder.layers[1].linear1.weight.detach(), DirectBases(model.encoder.layers[1].linear1.weight))  # type: ignore[union-attr,arg-type,operator]
    with torch.no_grad():
        full.bias.copy_(model.encoder.layers[1].linear1.bias)  # type: ignore[union-attr,arg-type]
        found.encoder.layers[1].linear1 = full  # type: ignore[union-attr]
        torch.testing.assert_close(found.eval()(example), model(example))


def test_a_skeleton_steps_aside_and_a_recomposed_model_steps_back() -> None:
    model, example = Encoder().eval(), batch()
    inventory = take_inventory(model, example)
    made = low_rank(model, inventory)
    point = Point({name: Choice("svd", {"rank": RANK}) for name in inventory.layers})
    built = skeleton(model, point, inventory.layers, SVD)
    built.load_state_dict(made.state_dict())
    assert run(built, example) == run(made, example)
    whole = recompose(made, model, inventory.layers).eval()
    assert run(whole, example)[1] == run(model, example)[1] >= {"_transformer_encoder_layer_fwd"}
    assert run(copy.deepcopy(made), example) == run(made, example)


class Asking(nn.Module):
    """Asks its layer what it is, as many published networks do."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        assert isinstance(self.fc.weight, Tensor)
        assert self.conv.weight.shape[1] == x.shape[1]
        assert self.fc.weight.size(1) == len(self.fc.weight)
        assert self.fc.weight.is_floating_point() is torch.is_floating_point(self.fc.weight) is True
        x = self.conv(x.to(device=self.conv.weight.device, dtype=self.conv.weight.dtype))
        return self.fc(x.mean((2, 3)).to(self.fc.weight.dtype))  # type: ignore[no-any-return]


def test_a_weight_that_is_only_asked_about_is_not_worked_out(tmp_path: Path) -> None:
    model, example = Asking().eval(), torch.randn(1, 3, 5, 5)
    inventory = take_inventory(model, example)
    found = low_rank(model, inventory)
    assert run(found, example)[0] == count_macs(found, [example]) == costs(inventory, found)
    assert count_macs(written(found, example, tmp_path), [example]) == costs(inventory, found)


class Reading(nn.Module):
    """Calls its layer, and multiplies with its weight besides."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x) + F.linear(x, self.fc.weight.detach() * 2) + x @ self.fc.weight


def test_a_weight_that_is_multiplied_with_is_the_dense_one_and_counts(tmp_path: Path) -> None:
    model, example = Reading().eval(), torch.randn(1, 8)
    assert "its weight is read elsewhere" in take_inventory(model, example).skipped[0].reason
    point, layers = Point({"fc": Choice("svd", {"rank": RANK})}), {"fc": Layer.of(model.fc, "fc")}
    found = factorize(model, point, layers, SVD, lambda name: DirectBases(model.fc.weight))
    weight, bias = found.fc.dense(), found.fc.bias  # type: ignore[union-attr,operator]
    expected = F.linear(example, 3 * weight, bias) + example @ weight  # type: ignore[arg-type]
    torch.testing.assert_close(found(example), expected)
    found(example).sum().backward()
    assert all(parameter.grad is not None for parameter in found.parameters())
    counted = count_macs(found, [example])
    assert counted == 2 * 8 * RANK + 2 * 64 + 2 * 64 * RANK == run(found, example)[0]
    loaded = written(found, example, tmp_path)
    torch.testing.assert_close(loaded(example), expected)
    assert count_macs(loaded, [example]) == counted


class Unused(nn.Module):
    """Works something out that goes nowhere, and changes a tensor in place."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.other = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        self.other(x)
        found = self.fc(x)
        found.add_(1.0)
        return found  # type: ignore[no-any-return]


def test_an_export_runs_only_what_its_outputs_need(tmp_path: Path) -> None:
    model, example = Unused().eval(), torch.randn(1, 8)
    loaded = written(model, example, tmp_path)
    assert count_macs(loaded, [example]) == 64
    torch.testing.assert_close(loaded(example), model(example))
