"""Counts multiply-adds as PyTorch dispatches them, by its own formulas."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, Final

import torch
from torch import Tensor
from torch._ops import HigherOrderOperator
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, sdpa_flop_count
from torch.utils.module_tracker import ModuleTracker

_aten: Final = torch.ops.aten

WHOLE: Final = "Global"
"""Stands for everything, inside a module or not (the name is `ModuleTracker`'s)."""


def multiply_adds(run: Callable[[], object], by_module: bool = False) -> Mapping[str, int]:
    """Multiply-adds of what `run` does: of the `WHOLE`, and by module if that is asked for.

    PyTorch's `FlopCounterMode` counts by the same formulas; it makes PyTorch import its compiler, which takes over a
    second at every start, has no formula for what `_OTHERS` lists, and does not see into attention's fast path. Of the
    branches of a `torch.cond` the dearer counts.
    Modules are named as `ModuleTracker` names them: the class of the outermost, and from there the dotted name.
    """
    with torch.no_grad(), _layer_by_layer():
        try:
            return _counts(run, by_module, _MultiplyAdds)
        except Exception as error:
            if not type(error).__module__.startswith("torch._dynamo"):
                raise
            return _counts(run, by_module, _OutsideTheCompiler)  # control flow is compiled, and the counter with it


def _counts(run: Callable[[], object], by_module: bool, counter: type[_MultiplyAdds]) -> Mapping[str, int]:
    tracker = ModuleTracker() if by_module else None
    counting = counter(tracker)
    with tracker or nullcontext(), counting:
        run()
    return counting.counts


class _MultiplyAdds(TorchDispatchMode):
    """While it is entered, the multiply-adds of every operation are added to `counts`."""

    supports_higher_order_operators = True

    def __init__(self, tracker: ModuleTracker | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counts: Counter[str] = Counter()
        self._tracker = tracker

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """PyTorch's question whether to keep its compiler out, for which it would import the compiler."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if isinstance(func, HigherOrderOperator):
            return self._dearer(*args) if func is torch.ops.higher_order.cond else NotImplemented
        packet = func._overloadpacket
        formula = _OTHERS.get(packet) or flop_registry.get(packet)
        if formula is None:
            with self:
                inside = func.decompose(*args, **kwargs)
            return func(*args, **kwargs) if inside is NotImplemented else inside
        out = func(*args, **kwargs)
        self._add(formula(*args, **kwargs, out_val=out) // 2)
        return out

    def _add(self, count: int) -> None:
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

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return True

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return super().__torch_dispatch__(func, types, args, kwargs)


@contextmanager
def _layer_by_layer() -> Iterator[None]:
    """Attention runs as the layers that it consists of, not as one operation that nothing sees into."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def _matrix_by_vector(matrix: Tensor, vector: Tensor, **_: Any) -> int:
    return 2 * matrix.numel()


def _added_matrix_by_vector(added: Tensor, matrix: Tensor, vector: Tensor, **_: Any) -> int:
    return 2 * matrix.numel()


def _attention(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> int:
    return int(sdpa_flop_count(query.shape, key.shape, value.shape))  # type: ignore[no-untyped-call]


def _recurrent(x: Tensor, from_input: Tensor, from_state: Tensor, *_: Any, **__: Any) -> int:
    """x: steps × batch × features, both weights: (gates · hidden) × …"""
    return 2 * x.shape[0] * x.shape[1] * (from_input.numel() + from_state.numel())


_OTHERS: Final[Mapping[Any, Callable[..., int]]] = {
    _aten.mv: _matrix_by_vector,
    _aten.dot: _matrix_by_vector,
    _aten.addmv: _added_matrix_by_vector,
    _aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    _aten.mkldnn_rnn_layer: _recurrent,
}
"""Twice the multiply-adds of operations that PyTorch has no formula for."""
