"""A model as it is deployed: batch norms folded into the layers before them, convolutions in channels-last memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations
from typing import Final

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from rank_search.layers.calls import Call, Example, forward, tensors_of
from rank_search.layers.copies import copied
from rank_search.layers.factorization import Factorization
from rank_search.layers.opener import Opened
from rank_search.layers.pools import own_parameters, share

CLOSE: Final = 1e-5
"""How far the outputs of a fused model may be from the model's, relative to the largest one."""

_CHANNELS_LAST: Final = {4: torch.channels_last, 5: torch.channels_last_3d}

_ROWS_CLOSE: Final = 1e-4  # whether a factor carries the rows is plain to see; the outputs are checked in the end


@torch.no_grad()
def fuse(model: nn.Module, example: Example) -> nn.Module | None:
    """A copy in eval mode whose batch norms are folded into the convolution, linear layer or factorization before them.

    A batch norm y = γ(x − μ)/√(σ² + ε) + β after a layer with weight W and bias b is that layer with the rows of W
    scaled by s = γ/√(σ² + ε) and the bias s(b − μ) + β. In a factorization the rows are scaled in the one factor
    that carries them, or two; which one is found by trying, so that it need not say so. Where none is found, where the
    layer's output goes elsewhere, too, or where the layer is called more than once, the batch norm stays.

    The order of the modules is traced by `torch.fx`. None if the model cannot be traced, or if the copy's outputs
    on the example are farther than `CLOSE` from the model's. The model is not changed.
    """
    try:
        plain = copied(model).eval()
        expected = forward(plain, example)  # a lazy layer becomes an ordinary one when it first runs
        folded = _folded(copied(plain))
        # called as a module, a graph prints a traceback of its own where it fails
        found = Call.of(example).on(folded.forward)
        return folded if distance(expected, found) <= CLOSE else None
    except Exception:  # noqa: BLE001 - what cannot be traced can still be run as it is
        return None


def deployed(*models: nn.Module, example: Example) -> tuple[nn.Module, ...]:
    """Copies of the models as they would be deployed: in eval mode, fused, convolutions in channels-last memory.

    If one of them cannot be fused, none is: what is compared is prepared in one way.
    """
    fused = [fuse(model, example) for model in models]
    found = [each for each in fused if each is not None]
    if len(found) < len(models):
        found = [copied(model).eval() for model in models]
    return tuple(map(_channels_last, found))


def channels_last(tensor: Tensor) -> Tensor:
    """A batch of images or volumes, or a kernel, in channels-last memory; any other tensor as it is."""
    layout = _CHANNELS_LAST.get(tensor.dim())
    return tensor if layout is None else tensor.contiguous(memory_format=layout)


def is_channels_last(tensor: Tensor) -> bool:
    """Whether it is in channels-last memory, which only some tensors can be in."""
    layout = _CHANNELS_LAST.get(tensor.dim())
    return layout is not None and tensor.is_contiguous(memory_format=layout)


def distance(expected: object, found: object) -> float:
    """The largest difference between the tensors of two outputs, relative to the largest number expected.

    Infinite if the shapes differ or an output is not finite.
    """
    tensors = list(zip(tensors_of(expected), tensors_of(found), strict=True))
    if not all(bool(torch.isfinite(other).all()) for _, other in tensors):
        return torch.inf
    return max((tensor_distance(one, other) for one, other in tensors), default=0.0)


def tensor_distance(expected: Tensor, found: Tensor, least: float = 0.0) -> float:
    """max |found − expected| in units of max |expected|, of its finite numbers, or of `least` if that is larger.

    NaN equals NaN, and an infinity itself; other shapes, and what else is not finite, are infinitely far. O(n).

    >>> tensor_distance(torch.tensor([1.0, -4.0]), torch.tensor([1.5, -4.0]))
    0.125
    """
    if expected.shape != found.shape:
        return torch.inf
    if expected.numel() == 0:
        return 0.0
    wide = torch.complex128 if expected.is_complex() or found.is_complex() else torch.float64
    one, other = expected.to(wide), found.to(wide)
    same = (one == other) | (one.isnan() & other.isnan())
    gap = torch.where(same, 0.0, (one - other).abs()).nan_to_num(torch.inf, torch.inf)
    largest = float(one.abs().nan_to_num(0.0, 0.0).max())
    return float(gap.max()) / (max(least, largest) or 1.0)


def _channels_last(model: nn.Module) -> nn.Module:
    for parameter in model.parameters():
        parameter.data = channels_last(parameter.data)
    return model


# ---- the order of the modules ----------------------------------------------------------------------------


class _Tracer(fx.Tracer):
    """A factorization is one step, like PyTorch's own modules, and so is what has been opened."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, Factorization | Opened) or super().is_leaf_module(m, module_qualified_name)


def _folded(model: nn.Module) -> fx.GraphModule:
    traced = fx.GraphModule(model, _Tracer().trace(model))
    for node, before in list(_followed(traced)):
        fused = _fuse_pair(traced.get_submodule(str(before.target)), traced.get_submodule(str(node.target)))
        if fused is not None:
            traced.set_submodule(str(before.target), fused)
            node.replace_all_uses_with(before)
            traced.graph.erase_node(node)
    traced.recompile()
    traced.delete_all_unused_submodules()
    return traced.eval()


def _followed(traced: fx.GraphModule) -> Iterator[tuple[fx.Node, fx.Node]]:
    """Each batch norm with the module before it, which is called only there and goes nowhere else."""
    called = [traced.get_submodule(str(node.target)) for node in traced.graph.nodes if node.op == "call_module"]
    for node in traced.graph.nodes:
        before = node.args[0] if node.op == "call_module" and node.args else None
        if not isinstance(before, fx.Node) or before.op != "call_module" or len(before.users) > 1:
            continue
        module = traced.get_submodule(str(before.target))
        if sum(each is module for each in called) == 1:
            yield node, before


def _fuse_pair(module: nn.Module, norm: nn.Module) -> nn.Module | None:
    if not isinstance(norm, _BatchNorm) or norm.running_mean is None or norm.running_var is None:
        return None
    if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        return fuse_conv_bn_eval(module, norm)
    if isinstance(module, nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d) and module.groups == 1:
        return fuse_conv_bn_eval(module, norm, transpose=True)
    if isinstance(module, nn.Linear):
        return fuse_linear_bn_eval(module, norm)
    return _fuse_factorization(module, norm) if isinstance(module, Factorization) else None


# ---- factorizations --------------------------------------------------------------------------------------


def _fuse_factorization(module: Factorization, norm: _BatchNorm) -> Factorization | None:
    """The factorization with the norm in it; None if no factor carries the rows of the weight."""
    scale, shift = _affine(norm)
    biased = _with_bias(module)
    for slots in _slots(biased):
        if _carry_rows(biased, slots):
            fused = _scaled(biased, slots, scale)
            if fused.bias is None:
                return None
            fused.bias.copy_(fused.bias * scale + shift)
            share([module, fused])
            return fused
    return None


def _affine(norm: _BatchNorm) -> tuple[Tensor, Tensor]:
    """Scale and shift of each channel, worked out in float64."""
    if norm.running_mean is None or norm.running_var is None:
        raise ValueError("a batch norm without running statistics has no fixed scale")
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    scale = scale if norm.weight is None else scale * norm.weight.double()
    shift = -norm.running_mean.double() * scale
    return scale, shift if norm.bias is None else shift + norm.bias.double()


def _with_bias(module: Factorization) -> Factorization:
    """A copy that adds a bias, zero if there was none."""
    if module.bias is not None:
        return copied(module)
    state = module.state_dict()
    made = type(module)(replace(module.layer, bias=True), **module.values)
    made.load_state_dict({**state, "bias": torch.zeros(module.layer.out_features, dtype=module.layer.dtype)})
    return made.to(next(iter(state.values())).device).eval()


Slot = tuple[str, int]
"""A factor by its name, and one of its modes."""


def _slots(module: Factorization) -> Iterator[tuple[Slot, ...]]:
    """Where the rows may be: one factor, or two (a sum of two terms); the factors as long as the output somewhere."""
    found = [
        (name, mode)
        for name, factor in own_parameters(module).items()
        for mode, size in enumerate(factor.shape)
        if name != "bias" and size == module.layer.out_features
    ]
    yield from combinations(found, 1)
    yield from combinations(found, 2)


def _carry_rows(module: Factorization, slots: tuple[Slot, ...]) -> bool:
    """Whether scaling these factors scales the rows of `dense()`, tried with a different factor for each row."""
    dense = module.dense()
    probe = torch.linspace(0.5, 1.5, module.layer.out_features, dtype=torch.float64, device=dense.device)
    rows = dense.double() * probe.reshape(-1, *[1] * (dense.dim() - 1))
    return distance(rows, _scaled(module, slots, probe).dense()) <= _ROWS_CLOSE


def _scaled(module: Factorization, slots: tuple[Slot, ...], scale: Tensor) -> Factorization:
    scaled = copied(module)
    for name, mode in slots:
        factor = scaled.get_parameter(name)
        shape = [-1 if each == mode else 1 for each in range(factor.dim())]
        factor.copy_(factor.double() * scale.reshape(shape))
    return scaled
