"""Counts multiply-adds as PyTorch dispatches them."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch._ops import HigherOrderOperator, OpOverload
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.module_tracker import ModuleTracker

from rank_search.layers.products import multiply_adds_of
from rank_search.layers.shapes import given_on_meta

WHOLE: Final = "Global"
"""Stands for everything, inside a module or not (the name is `ModuleTracker`'s)."""

_PYTORCHS: Final = ("aten", "prim", "prims", "profiler", "c10d", "_c10d_functional", "inductor")

_log = logging.getLogger(__name__)


def multiply_adds(run: Callable[[], object], by_module: bool = False) -> Mapping[str, int]:
    """Multiply-adds of what `run` does: of the `WHOLE`, and by module if that is asked for.

    Counted are matrix products, convolutions, attention, recurrent layers and Euclidean distances (`products`), each as
    its closed form; a product of complex numbers is four of real ones. Operations that work number by number, sums,
    norms, Fourier transforms and decompositions count for nothing. Of the branches of a `torch.cond` the dearer counts.
    PyTorch's `FlopCounterMode` makes PyTorch import its compiler, which takes over a second at every start, and does
    not know half of these. Modules are named as `ModuleTracker` names them: the class of the outermost, and from there
    the dotted name.
    """
    with torch.no_grad(), layer_by_layer():
        try:
            return _counts(run, by_module, _MultiplyAdds)
        except Exception as error:
            if not type(error).__module__.startswith("torch._dynamo"):
                raise
            return _counts(run, by_module, _OutsideTheCompiler)  # control flow is compiled, and the counter with it


def _counts(run: Callable[[], object], by_module: bool, counter: type[_MultiplyAdds]) -> Mapping[str, int]:
    tracker = _Forwards() if by_module else None
    counting = counter(tracker)
    with ExitStack() as entered:
        for mode in counting.modes():
            entered.enter_context(mode)
        run()
    return counting.counts


class _Forwards(ModuleTracker):
    """The modules whose forward is running; PyTorch's own follows gradients, too, and fails where there are none."""

    def _fw_pre_hook(self, mod: nn.Module, input: object) -> None:
        super()._fw_pre_hook(mod, ())

    def _fw_post_hook(self, mod: nn.Module, input: object, output: object) -> None:
        super()._fw_post_hook(mod, (), ())


class _MultiplyAdds(TorchDispatchMode):
    """While it is entered, the multiply-adds of every operation are added to `counts`."""

    supports_higher_order_operators = True

    def __init__(self, tracker: ModuleTracker | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counts: Counter[str] = Counter()
        self._tracker = tracker

    def modes(self) -> list[Any]:
        """Everything to enter, in this order."""
        return [each for each in (self._tracker, _ComplexConvolutions(self), self) if each is not None]

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """PyTorch's question whether to keep its compiler out, for which it would import the compiler."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if isinstance(func, HigherOrderOperator):
            return self._dearer(*args) if func is torch.ops.higher_order.cond else NotImplemented
        count = multiply_adds_of(func, args, kwargs)
        out = given_on_meta(func, args, kwargs)
        if out is None:
            out = func(*args, **kwargs) if count else self._uncounted(func, args, kwargs)
        if count:
            self.add(count(out))
        return out

    def _uncounted(self, func: OpOverload, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """What has no formula is looked into, where it consists of other operations."""
        with self:
            inside = func.decompose(*args, **kwargs)
        return _unknown(func, args, kwargs) if inside is NotImplemented else inside

    def add(self, count: int) -> None:
        for module in {WHOLE} if self._tracker is None else set(self._tracker.parents):
            self.counts[module] += count

    def _dearer(self, _: object, yes: Callable[..., Any], no: Callable[..., Any], operands: Sequence[Any]) -> Any:
        before = self.counts
        with self:
            self.counts = Counter()
            no(*operands)
            other, self.counts = self.counts, Counter()
            out = yes(*operands)
        self.counts = before + (self.counts | other)
        return out


class _OutsideTheCompiler(_MultiplyAdds):  # type: ignore[no-untyped-call]
    """The same, with PyTorch's compiler imported and kept out of the counter."""

    def modes(self) -> list[Any]:
        return [each for each in (self._tracker, self) if each is not None]

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return True

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return super().__torch_dispatch__(func, types, args, kwargs)


class _ComplexConvolutions(TorchFunctionMode):
    """PyTorch makes three real convolutions of a complex one, and counted are four, as for every complex product."""

    def __init__(self, counting: _MultiplyAdds) -> None:
        super().__init__()
        self._counting = counting

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        before = self._counting.counts[WHOLE]
        out = func(*args, **(kwargs or {}))
        if _convolves(func) and args and isinstance(args[0], Tensor) and args[0].is_complex():
            self._counting.add((self._counting.counts[WHOLE] - before) // 3)
        return out


def _convolves(func: Any) -> bool:
    return getattr(func, "__name__", "").startswith(("conv1d", "conv2d", "conv3d", "conv_transpose", "convolution"))


def _unknown(func: OpOverload, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Run what has no formula; whether there should be one nobody can know of somebody else's operation."""
    given = pytree.tree_leaves((args, kwargs))
    if func.namespace not in _PYTORCHS and sum(isinstance(x, Tensor) and x.is_floating_point() for x in given) > 1:
        _say_unknown(func._schema.name)
    return func(*args, **kwargs)


@cache
def _say_unknown(name: str) -> None:
    _log.warning(
        "The multiply-adds of %s are counted as none. If it multiplies, register a formula for it with "
        "torch.utils.flop_counter.register_flop_formula.",
        name,
    )


@contextmanager
def layer_by_layer() -> Iterator[None]:
    """Attention runs as the layers that it consists of, not as one operation that nothing sees into."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
