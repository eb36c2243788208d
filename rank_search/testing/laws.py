"""The six laws of factorizations, each a generator of the violations it finds in a case."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Final

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from rank_search.errors import ContractError
from rank_search.layers import Axis, Factorization, drop_not_stored, output_error
from rank_search.testing.case import Case, normal
from rank_search.testing.settling_law import settling

Law = Callable[[Case], Iterator[str]]

ROUNDING: Final = 1000
"""Differences up to this many times the machine's precision, relative to the largest number, are rounding."""

_SAME_FIT: Final = 0.01  # of the weight's norm: an iterative fit may turn rounding into a little more


def agreement(case: Case) -> Iterator[str]:
    """1. `forward(x)` is the layer's operation with `dense()`, and `rows` are its rows, in shape, dtype and value.

    In training and in evaluation, and in channels-last memory where the weight can be in it.
    """
    module, layer = case.moved(), case.layer
    dense = module.dense()
    if tuple(dense.shape) != layer.shape or dense.dtype != layer.dtype:
        yield f"dense() is {_kind(dense)}; the layer's weight is {list(layer.shape)} {layer.dtype}"
        return
    if (module.bias is not None) != layer.bias:
        yield f"the layer has {'a' if layer.bias else 'no'} bias and self.bias is {module.bias!r}"
        return
    yield from _operation(case, module, "forward(x)")
    yield from _operation(case, module.eval(), "in evaluation forward(x)")
    if case.has_formats:
        yield from _operation(case, case.moved(case.in_channels_last()), "in channels-last memory forward(x)")
    dense = module.dense()
    if len(layer.shape) > 2:  # what is looked up is a row of a matrix
        return
    places = torch.tensor([[0, layer.out_features - 1]])
    yield from _difference("rows(places)", module.rows(places), dense.flatten(1)[places])


def rank_law(case: Case) -> Iterator[str]:
    """2. The rank of each unfolding that an axis names is at most the axis value, wherever training moves to."""
    exact = replace(case.layer, dtype=torch.float64)
    dense = Case(case.factorization, exact, case.axes, case.values).moved().eval().dense().detach()
    for axis, name, matrices in _unfolded(case, dense):
        matrix = matrices[0]
        if matrix.ndim != 2 or matrix.numel() * len(matrices) != dense.numel():
            yield f"{name} makes {list(matrix.shape)} of {list(dense.shape)}, not a matrix of the same numbers"
            continue
        rank = max(map(_rank, matrices))
        value = case.values[axis.name]
        if rank > axis.rank(value):
            most = f"{axis.name}={value}" + (f" allows ({axis.rank(value)})" if axis.bound else "")
            yield f"{name} of dense() has rank {rank}, more than {most}"


def spectrum_bound(case: Case) -> Iterator[str]:
    """3. ‖W − dense()‖ lies between the tail of every named spectrum (Eckart–Young) and ‖W‖.

    A fit that a moment makes another one is, in its outputs, no farther than zero.
    """
    weight, fitted = case.weight.to(torch.float64), case.fitted()
    in_training = fitted.dense().detach()
    error = _norm(weight - fitted.eval().dense().detach())
    slack = ROUNDING * torch.finfo(case.layer.dtype).eps * _norm(weight)
    tails = {
        name: _tail(matrices, axis.rank(case.values[axis.name])) for axis, name, matrices in _unfolded(case, weight)
    }
    for name, tail in tails.items():
        if error < tail - slack:
            yield f"the fit is {error:.6g} from the weight, closer than the tail {tail:.6g} of {name} allows"
    if not error <= _norm(weight) + slack:
        yield f"the fit is {error:.6g} from the weight, farther than zero is ({_norm(weight):.6g})"
    if case.equality and tails and not error <= max(tails.values()) + slack:
        yield f"the fit is {error:.6g} from the weight; equality claims the tail {max(tails.values()):.6g}"
    yield from _outputs_bound(case, in_training)
    if case.has_formats:
        other = _norm(weight - case.in_channels_last().eval().dense().detach())
        if not abs(other - error) <= _SAME_FIT * _norm(weight) + slack:
            yield f"the fit to the weight in channels-last memory is {other:.6g} from it, else {error:.6g}"


def skeleton(case: Case) -> Iterator[str]:
    """4. Nothing is allocated on the meta device, shapes are the same there, copies and what is stored are faithful."""
    with torch.device("meta"), _RealTensors() as real:
        bare = case.factorization(case.layer, **case.values).eval()
    if real.found:
        yield f"on the meta device __init__ makes real tensors: {real.found[0]}"
        return
    module = case.fitted().eval()
    shapes, bare_shapes = _shapes(module), _shapes(bare)
    if shapes != bare_shapes:
        yield f"the state dict is {shapes}, on the meta device {bare_shapes}"
        return
    yield from _meta_forward(case, bare)
    yield from _copies(case, module, bare)
    try:
        drop_not_stored(case.moved(module))
    except ContractError as error:
        yield str(error)


def life(case: Case) -> Iterator[str]:
    """5. Every parameter is set and gets a gradient; the same inputs and rng seed give the same result."""
    weight = case.weight.clone()
    module = case.fitted(weight)
    if not torch.equal(weight, case.weight):
        yield "fit changes the weight it is given"
    if unset := [name for name, tensor in module.named_parameters() if not tensor.isfinite().all()]:
        yield f"fit leaves {', '.join(unset)} unset or not finite"
        return
    if module.bias is not None and not bool((module.bias == 1).all()):
        yield "fit changes the bias"
    yield from _same_again(case, module)
    yield from _gradients(case, module)
    yield from _frames(module)
    if not case.fitted(torch.zeros_like(weight)).dense().isfinite().all():
        yield "fit to a weight of zeros gives numbers that are not finite"
    yield from _with_moments(case)


LAWS: Final[Mapping[str, Law]] = MappingProxyType(
    {
        "Agreement": agreement,
        "Rank law": rank_law,
        "Spectrum bound": spectrum_bound,
        "Skeleton": skeleton,
        "Life": life,
        "Settling": settling,
    }
)


# ---- agreement -------------------------------------------------------------------------------------------


def _operation(case: Case, module: Factorization, what: str) -> Iterator[str]:
    for x in case.inputs():
        expected = case.layer.operate(x, module.dense(), module.bias)
        yield from _difference(what, module(x), expected)


def _difference(what: str, found: Tensor, expected: Tensor) -> Iterator[str]:
    if found.shape != expected.shape or found.dtype != expected.dtype:
        yield f"{what} is {_kind(found)}, with dense() it is {_kind(expected)}"
        return
    allowed = ROUNDING * torch.finfo(expected.dtype).eps * (expected.abs().max().item() + 1)
    difference = (found - expected).abs().max().item()
    if not difference <= allowed:
        yield f"{what} is {difference:.3g} from the layer's operation with dense() (rounding: {allowed:.1g})"


def _kind(tensor: Tensor) -> str:
    return f"{list(tensor.shape)} {tensor.dtype}"


# ---- unfoldings and spectra ------------------------------------------------------------------------------


def _unfolded(case: Case, weight: Tensor) -> Iterator[tuple[Axis, str, list[Tensor]]]:
    """Each unfolding of each block: one, but for a grouped layer."""
    for axis in case.axes:
        for number, unfolding in enumerate(axis.unfoldings):
            matrices = [unfolding(block) for block in weight.chunk(case.layer.groups)]
            yield axis, f"unfolding {number} of axis {axis.name}", matrices


def _outputs_bound(case: Case, without_moment: Tensor) -> Iterator[str]:
    weight, found = case.weight, case.fitted(bases=case.bases(case.weight, case.moment)).dense().detach()
    if torch.equal(found, without_moment):
        return  # it looks at the weight alone, and may be anywhere
    error, zero = (output_error(weight, other, case.moment) for other in (found, torch.zeros_like(weight)))
    if not error <= zero * (1 + ROUNDING * torch.finfo(torch.float32).eps):
        yield f"with a moment the fit's outputs are {error:.6g} from the layer's, farther than zero is ({zero:.6g})"


def _rank(matrix: Tensor) -> int:
    values = torch.linalg.svdvals(matrix)
    return int((values > values[0] * ROUNDING * torch.finfo(values.dtype).eps).sum())


def _tail(matrices: list[Tensor], rank: float) -> float:
    return _norm(torch.cat([torch.linalg.svdvals(matrix)[int(rank) :] for matrix in matrices]))


def _norm(tensor: Tensor) -> float:
    return float(torch.linalg.vector_norm(tensor))


# ---- skeleton --------------------------------------------------------------------------------------------


class _RealTensors(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes every tensor that comes into being on a real device."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(made):
            if isinstance(leaf, Tensor) and leaf.device.type != "meta":
                self.found.append(f"{func} gives {_kind(leaf)} on {leaf.device}")
        return made


def _shapes(module: Factorization) -> dict[str, str]:
    return {name: _kind(tensor) for name, tensor in module.state_dict().items()}


def _meta_forward(case: Case, bare: Factorization) -> Iterator[str]:
    with torch.device("meta"):
        weight = torch.empty(case.layer.shape, dtype=case.layer.dtype)
        for shape in case.layer.inputs:
            x = case.layer.inputs_like(torch.empty(shape, dtype=case.layer.dtype))
            found, expected = bare(x), case.layer.operate(x, weight)
            if found.shape != expected.shape or not found.is_meta:
                yield f"on the meta device forward gives {_kind(found)}, the layer {_kind(expected)}"


def _copies(case: Case, module: Factorization, bare: Factorization) -> Iterator[str]:
    state = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    loaded = case.built().eval()
    loaded.load_state_dict(state)
    bare.load_state_dict(state, assign=True)
    copies = {
        "its state dict loaded into a fresh one": loaded,
        "its state dict loaded into one from the meta device": bare,
        "its deep copy": copy.deepcopy(module),
        "its pickle": pickle.loads(pickle.dumps(module)),  # noqa: S301 - made in this line
    }
    dense = module.dense()
    for how, twin in copies.items():
        if not torch.equal(twin.dense(), dense):
            yield f"{how} has another dense()"
    yield from _pickled_unfoldings(case)


def _pickled_unfoldings(case: Case) -> Iterator[str]:
    for axis in case.axes:
        try:
            pickle.dumps(axis.unfoldings)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            yield f"the unfoldings of axis {axis.name} do not pickle (define them at module level): {error}"


# ---- life ------------------------------------------------------------------------------------------------


def _same_again(case: Case, module: Factorization) -> Iterator[str]:
    bases = case.bases(case.weight.clone())
    first = case.fitted(bases=bases)
    if not torch.equal(first.dense(), module.dense()):
        yield "two fits with the same weight and the same rng seed differ"
        return
    kept = first.dense().detach().clone()
    with torch.no_grad():
        for parameter in first.parameters():
            parameter.zero_()
    if not torch.equal(case.fitted(bases=bases).dense(), kept):
        yield "training one module changes the bases that the next fit takes (copy them into the factors)"


def _with_moments(case: Case) -> Iterator[str]:
    for inputs, given in (("few inputs", case.moment), ("no inputs", torch.zeros_like(case.moment))):
        moment = given.clone()
        module = case.fitted(bases=case.bases(case.weight.clone(), moment))
        if not torch.equal(moment, given):
            yield f"fit changes the moment of {inputs}"
        if unset := [name for name, tensor in module.named_parameters() if not tensor.isfinite().all()]:
            yield f"fit with the moment of {inputs} leaves {', '.join(unset)} unset or not finite"


def _gradients(case: Case, module: Factorization) -> Iterator[str]:
    for x in case.inputs():
        out = module(x)
        (out * normal(out.shape, out.dtype)).sum().backward()
    for name, parameter in module.named_parameters():
        if parameter.grad is None or not parameter.grad.any():
            yield f"forward gives {name} no gradient"
        elif not parameter.grad.isfinite().all():
            yield f"forward gives {name} a gradient that is not finite"


def _frames(module: Factorization) -> Iterator[str]:
    for number, frame in enumerate(module.frames()):
        if frame.ndim != 2 or not frame.requires_grad:
            yield f"frame {number} is {_kind(frame)}; a frame is a matrix made from parameters"
