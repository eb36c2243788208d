"""Whether a model could be exported, as far as one forward of it shows, and without PyTorch's compiler."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, final

import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from rank_search.errors import ExportError
from rank_search.export.arguments import Arguments, completed
from rank_search.export.plain_outputs import foreign
from rank_search.layers import Call, copied, layer_by_layer
from rank_search.programs import gives_nothing, is_allowed
from rank_search.tasks import Random, Seen, Task, seeded, watched

LARGEST: Final = 1 << 28
"""Parameters of a model that is tried; of a larger one a forward and a copy take long."""

_VALUES: Final = {
    getattr(Tensor, name) for name in ("__bool__", "__int__", "__float__", "__index__", "tolist", "numpy")
}
_ITEM: Final = Tensor.item
_PARTS: Final = (str(Path(torch.__file__).parent), str(Path(__file__).parents[1]))

_log = logging.getLogger(__name__)


def say_if_unexportable(task: Task, model: nn.Module) -> None:
    """Warn, before a search begins, of what would keep its models from being exported and packed.

    The model is run on the example, and once as the task's `evaluate` runs it. What is not seen in a forward stays
    unknown; a larger model than `LARGEST` is not tried. The model is not changed.
    """
    if sum(each.numel() for each in model.parameters()) > LARGEST:
        return
    found = list(dict.fromkeys(_obstacles(task, copied(model).eval())))
    if found:
        _log.warning(
            "The search will run, but its models cannot be exported or packed as they are: %s. Change the model or the "
            "task if they are to be.",
            "; ".join(found),
        )


def _obstacles(task: Task, model: nn.Module) -> Iterable[str]:
    example, given = task.example(), _first_call(task, model)
    seen, values = given if given is not None else (Seen(), {})
    try:
        example = completed(model, example, seen)
        arguments = Arguments.of(model, example)
        if given is not None:
            arguments.taken(values)
    except ExportError as error:
        return [str(error).removesuffix(".")]
    found, outputs = _forward(model, arguments.call(arguments.tensors))
    if left := ", ".join(foreign(outputs)):
        _log.warning("A model that is exported will give its outputs without %s, as no graph can hold it.", left)
    return found


class _Enough(BaseException):
    """Ends a measurement after its first forward; no Exception, so that it is not taken for an error."""


def _first_call(task: Task, model: nn.Module) -> tuple[Seen, dict[str, Any]] | None:
    """What evaluate() first gives the model; None where it does not call it as a whole."""
    first: list[dict[str, Any]] = []

    def keep(given: Any, states: Random, outputs: Any) -> None:
        first.append(dict(given))
        raise _Enough

    try:
        with torch.no_grad(), seeded(0), watched(model, keep) as watch:
            task.evaluate(model, task.selection())
    except _Enough:
        return watch.seen, first[0]
    return None


def _forward(model: nn.Module, call: Call) -> tuple[list[str], Any]:
    """What one forward shows, and what it gives; a model that does not run has been refused elsewhere."""
    values, operators = _Values(), _Operators()
    try:
        with torch.no_grad(), seeded(0), layer_by_layer(), _exporting(), values, operators:
            outputs = call.on(model)
    except Exception:  # noqa: BLE001 - it may run in another way where it is not exported
        return [*values.found, *operators.found], None
    return [*values.found, *operators.found], outputs


@contextmanager
def _exporting() -> Iterator[None]:
    """Models that ask whether they are exported are told so, as torch.export does."""
    before = torch.compiler._is_compiling_flag, torch.compiler._is_exporting_flag
    torch.compiler._is_compiling_flag = torch.compiler._is_exporting_flag = True
    try:
        yield
    finally:
        torch.compiler._is_compiling_flag, torch.compiler._is_exporting_flag = before


@final
class _Values(TorchFunctionMode):
    """Where Python goes on with a value that is in a tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in _VALUES:
            self.note(func.__name__)
        elif func is _ITEM and isinstance(result, int | float):
            return (_WatchedInt if isinstance(result, int) else _WatchedFloat)(result).told(self)
        return result

    def note(self, name: str) -> None:
        self.found.append(f"forward's control flow depends on the values of a tensor ({name} at {_place()})")


class _Watched:
    """A number out of a tensor, which says when it is compared."""

    _watch: _Values

    def told(self, watch: _Values) -> Any:
        self._watch = watch
        return self

    def _compared(self, name: str, other: Any) -> Any:
        self._watch.note("item()")
        return getattr(super(), name)(other)

    def __lt__(self, other: Any) -> Any:
        return self._compared("__lt__", other)

    def __le__(self, other: Any) -> Any:
        return self._compared("__le__", other)

    def __gt__(self, other: Any) -> Any:
        return self._compared("__gt__", other)

    def __ge__(self, other: Any) -> Any:
        return self._compared("__ge__", other)

    def __eq__(self, other: object) -> Any:
        return self._compared("__eq__", other)

    def __ne__(self, other: object) -> Any:
        return self._compared("__ne__", other)

    def __bool__(self) -> bool:
        self._watch.note("item()")
        return bool(super().__ne__(0))

    def __hash__(self) -> int:
        return super().__hash__()


class _WatchedInt(_Watched, int):
    pass


class _WatchedFloat(_Watched, float):
    pass


@final
class _Operators(TorchDispatchMode):
    """Which operators run that a graph may not name. Internal ones stand for others, and are not looked at."""

    supports_higher_order_operators = True

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: list[str] = []

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """PyTorch's question whether to keep its compiler out, for which it would import the compiler."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if isinstance(func, OpOverload):
            namespace, _, name = func._schema.name.partition("::")
            foreign_one = namespace not in ("aten", "prim", "prims")
            internal = not foreign_one and (name.startswith(("_", "mkldnn_")) or "backward" in name)
            if not internal and not is_allowed(func) and not gives_nothing(func):
                self.found.append(f"it uses {func._schema.name}, which cannot be written as data ({_place()})")
        return func(*args, **(kwargs or {}))


def _place() -> str:
    """The last line outside PyTorch and this package on the way here."""
    frames = [each for each in traceback.extract_stack() if not each.filename.startswith(_PARTS)]
    last = frames[-1] if frames else None
    return f"{Path(last.filename).name}:{last.lineno}" if last else "PyTorch"
