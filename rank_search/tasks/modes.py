"""The modes in which a model runs when its task is asked for a loss."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode

from rank_search.layers import buffers_kept

_BY_TRAINING: Final = (F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout, F.feature_alpha_dropout)
_BY_TRAIN: Final = (
    *(torch.dropout, torch.alpha_dropout, torch.feature_dropout, torch.feature_alpha_dropout, torch.native_dropout),
    *(torch.dropout_, torch.alpha_dropout_, torch.feature_dropout_, torch.feature_alpha_dropout_),
)
_OFF: Final[Mapping[Any, tuple[int, str, Any]]] = {
    **dict.fromkeys(_BY_TRAINING, (2, "training", False)),
    **dict.fromkeys(_BY_TRAIN, (2, "train", False)),
    F.scaled_dot_product_attention: (4, "dropout_p", 0.0),
    F.multi_head_attention_forward: (13, "training", False),
}
"""Of each function that drops: the place and the name of the argument by which it does, and its value if not."""
_LONE: Final = "Expected more than 1 value per channel when training"


def is_lone(error: BaseException) -> bool:
    """Whether a norm refused a batch that has one value for each channel: most often, of one example."""
    return isinstance(error, ValueError) and str(error).startswith(_LONE)


@contextmanager
def as_for_loss(model: nn.Module, moving: Iterable[nn.Module] = ()) -> Iterator[None]:
    """The model in training mode, as a loss expects it, but acting as in evaluation: nothing is trained here.

    What a model gives in training mode (outputs of auxiliary heads, losses of its own) depends on the mode of modules
    that hold others. So these are in training mode; PyTorch's own modules and those that hold none, such as norms and
    dropout, are in evaluation mode, and dropout that is called as a function drops nothing. Afterwards all modes are
    as they were, and so are all buffers (see `buffers_kept`).

    Args:
        moving: norms that take statistics meanwhile: they are in training mode, and their buffers stay as they end.
    """
    moving = list(moving)
    modes = {module: module.training for module in model.modules()}
    with ExitStack() as stack:
        stack.callback(_put_back, modes)
        stack.enter_context(buffers_kept(model, but=moving))
        model.train()
        for module in model.modules():
            module.training = module is model or _holds_others(module)
        for norm in moving:
            norm.training = True
        with _NoDropout():
            yield


def _holds_others(module: nn.Module) -> bool:
    return not type(module).__module__.startswith("torch.nn.") and any(True for _ in module.children())


def _put_back(modes: Mapping[nn.Module, bool]) -> None:
    for module, training in modes.items():
        module.training = training


class _NoDropout(TorchFunctionMode):
    """Dropout that a module calls as a function, with its own mode."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _OFF:
            place, name, value = _OFF[func]
            if len(args) > place:
                args = (*args[:place], value, *args[place + 1 :])
            else:
                kwargs = {**(kwargs or {}), name: value}
        return func(*args, **(kwargs or {}))
