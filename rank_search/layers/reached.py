"""Whether a replaced layer would run: every layer is replaced by a stand-in, and the model run once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, Final, final

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from rank_search.layers.bases import Bases
from rank_search.layers.copies import shared
from rank_search.layers.factorization import Axis, Factorization
from rank_search.layers.kinds import weight_in
from rank_search.layers.layer import Layer
from rank_search.layers.overlap import Place, overlap, place_of
from rank_search.layers.replace import put, tied_uses

Run = Callable[[nn.Module], object]
"""One forward of a model."""

_ELSEWHERE: Final = (
    "its forward is reached past the model's attributes (by a closure, a global or a weak reference), so that the "
    "dense layer would go on running"
)
_READ: Final = "its weight is read elsewhere, too, so that a factorization would be multiplied out in every forward"
_HEAD: Final = "; an nn.Linear with that weight, where it is read, would be one layer with it"


def unreached(model: nn.Module, layers: Mapping[str, Layer], run: Run) -> dict[str, str]:
    """The layers that a replacement would not stand for, by name, each with the reason.

    In one forward of a model that has stand-ins for all layers, each stand-in runs, and neither the dense layer nor,
    beside the stand-in, its weight or bias are used. Where the model does not run so, each half of the layers is tried,
    down to single ones.
    """
    if not layers:
        return {}
    try:
        return _tried(model, layers, run)
    except Exception as error:  # noqa: BLE001 - a model may do anything with a module that is not its own
        return _by_halves(model, layers, run, error)


def _by_halves(model: nn.Module, layers: Mapping[str, Layer], run: Run, error: Exception) -> dict[str, str]:
    if len(layers) == 1:
        return dict.fromkeys(layers, f"the model does not run with a factorization in its place: {_line(error)}")
    names, middle = list(layers), len(layers) // 2
    reasons: dict[str, str] = {}
    for half in (names[:middle], names[middle:]):
        reasons |= unreached(model, {name: layers[name] for name in half}, run)
    left = {name: layer for name, layer in layers.items() if name not in reasons}
    try:
        return reasons | (_tried(model, left, run) if left else {})
    except Exception as again:  # noqa: BLE001 - as above
        why = f"the model does not run with all of its layers replaced: {_line(again)}"
        return reasons | dict.fromkeys(left, why)


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def _tried(model: nn.Module, layers: Mapping[str, Layer], run: Run) -> dict[str, str]:
    users = {user.name: user for layer in layers.values() for user in layer.users}
    dense = {name: model.get_submodule(name) for name in users}
    stand_ins = {name: _StandIn.of(layer, dense[name]) for name, layer in layers.items()}
    placed: dict[str, nn.Module] = {**stand_ins}
    for name, layer in layers.items():
        placed |= tied_uses(model, layer, stand_ins[name])
    swapped = shared(model, {dense[name]: module for name, module in placed.items()})
    if not {*swapped.modules()} & {
        *model.modules()
    }:  # else something copies itself as itself, and is not to be changed
        for name, module in placed.items():
            put(swapped, users[name], module)
    uses = _Uses(model, layers, stand_ins)
    ties = {name: module for name, module in placed.items() if name not in stand_ins}
    with torch.no_grad(), _counted(dense) as ran, _counted(ties) as calls:
        _watched(uses, lambda: run(swapped))
    calls.update({name: stand_in.calls for name, stand_in in stand_ins.items()})
    reasons = {name: _reason(layer, calls, ran, name in uses.found) for name, layer in layers.items()}
    return {name: reason for name, reason in reasons.items() if reason}


def _reason(layer: Layer, calls: Counter[str], dense_calls: Counter[str], used: bool) -> str:
    missed = [user for user in layer.users if user.inputs and not calls[user.name]]
    if any(dense_calls[user.name] for user in layer.users) or (used and missed):
        return _ELSEWHERE
    if missed:
        return "its forward is not called once it is replaced"
    return _READ + _HEAD * layer.one_hot if used else ""


def _watched(uses: _Uses, run: Callable[[], object]) -> None:
    """Control flow that PyTorch compiles cannot be watched; whether the stand-ins run is seen all the same."""
    try:
        with uses:
            run()
    except Exception as error:
        if not type(error).__module__.startswith("torch._dynamo"):
            raise
        run()


@contextmanager
def _counted(modules: Mapping[str, nn.Module]) -> Iterator[Counter[str]]:
    """How often each module runs."""
    ran: Counter[str] = Counter()
    with ExitStack() as stack:
        for name, module in modules.items():
            hook = module.register_forward_pre_hook(lambda *_, name=name: ran.update([name]))
            stack.callback(hook.remove)
        yield ran


@final
class _StandIn(Factorization):
    """The layer with its own weight, as a factorization would stand in its place."""

    def __init__(self, layer: Layer, **values: float) -> None:
        super().__init__(layer, **values)
        self.own = self.factor(0)
        self.calls = 0
        self._running = [False]  # in a list, which a twin in the place of a tie has, too

    @classmethod
    def of(cls, layer: Layer, module: nn.Module) -> _StandIn:
        own = dict(module.named_parameters(recurse=False))
        made = cls(layer)
        made.own = nn.Parameter(weight_in(module).detach(), requires_grad=False)  # the very numbers
        made.bias = None if own.get("bias") is None else nn.Parameter(own["bias"].detach().clone())
        made.train(module.training)
        return made

    @classmethod
    def axes(cls, layer: Layer) -> tuple[Axis, ...]:
        return ()

    def fit(self, weight: Tensor, bases: Bases) -> None:
        raise NotImplementedError("a stand-in has its weight")

    def dense(self) -> Tensor:
        return self.own

    @property
    def running(self) -> bool:
        """Whether the weight is being used here."""
        return self._running[0]

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        with self._used():
            return super().forward(x)

    def rows(self, index: Tensor) -> Tensor:
        with self._used():
            return super().rows(index)

    @contextmanager
    def _used(self) -> Iterator[None]:
        self._running[0] = True
        try:
            yield
        finally:
            self._running[0] = False


def _own(module: nn.Module, holders: Counter[int]) -> list[nn.Parameter]:
    """The parameters of a layer, without a bias that other modules have, too, and may use as they like."""
    bias = module._parameters.get("bias")
    return [each for each in module.parameters(recurse=False) if each is not bias or holders[id(each)] == 1]


def _is_backward() -> bool:
    """Whether this is the derivative of something that ran before, in a forward that differentiates."""
    return torch._C._current_graph_task_id() != -1


@final
class _Uses(TorchDispatchMode):
    """While it is entered, which dense weights and biases an operation takes, other than in their stand-in."""

    supports_higher_order_operators = True

    def __init__(self, model: nn.Module, layers: Mapping[str, Layer], stand_ins: Mapping[str, _StandIn]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._places: dict[int, list[tuple[Place, str]]] = {}
        holders = Counter(id(each) for module in model.modules() for each in module._parameters.values())
        for name, layer in layers.items():
            modules = [model.get_submodule(user.name) for user in layer.users]
            for parameter in {each: None for module in modules for each in _own(module, holders)}:
                for place in place_of(parameter):
                    self._places.setdefault(place[0], []).append((place, name))
        self._stand_ins = stand_ins
        self.found: set[str] = set()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """PyTorch's question whether to keep its compiler out, for which it would import the compiler."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        looked_at = func is not torch.ops.aten.detach.default and not _is_backward()
        for each in pytree.tree_leaves((args, kwargs)) if looked_at else ():
            if isinstance(each, Tensor):
                self._look(each)
        return func(*args, **kwargs)

    def _look(self, tensor: Tensor) -> None:
        for place in place_of(tensor):
            for other, name in self._places.get(place[0], ()):
                if overlap(place, other) and not self._stand_ins[name].running:
                    self.found.add(name)
