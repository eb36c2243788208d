"""What a model has to be before anything is done with it: trained weights in ordinary tensors, and two modes."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from rank_search.errors import TaskError
from rank_search.layers.looking import evaluation_mode


def require_ordinary(model: nn.Module) -> None:
    """Refuse a model that cannot be taken apart, copied and coded.

    Raises:
        TaskError: it has no evaluation mode (an exported graph), its weights are not set yet (lazy layers), or its
            state is not made of tensors (a quantized model).
    """
    _require_modes(model)
    if unset := [name for name, each in model.named_parameters() if is_lazy(each)]:
        raise TaskError(
            f"The model's weights are not all set yet: {', '.join(unset)} (a lazy layer). Load them, or run the model "
            "on an example and train it, before you hand it over."
        )
    if strange := [name for name, each in model.state_dict().items() if not _is_coded(each)]:
        quantized = [name for name, module in model.named_modules() if _is_quantized(module)]
        if quantized:
            raise TaskError(
                f"The model is quantized already ({', '.join(quantized)}); only floating-point weights can be worked "
                "with. Hand over the model from before it was quantized."
            )
        raise TaskError(
            f"{', '.join(strange)} is no ordinary tensor, so the model's state cannot be coded. Keep it as a buffer, "
            "or out of the state dict."
        )


def _require_modes(model: nn.Module) -> None:
    try:
        with evaluation_mode(model):
            pass
    except Exception as error:
        raise TaskError(
            f"The model cannot be put into evaluation mode; it raised {type(error).__name__}: {error} If it is an "
            "exported graph, hand over the module that it was exported from."
        ) from error


def _is_quantized(module: nn.Module) -> bool:
    return "quantized" in type(module).__module__ and hasattr(module, "weight")


def _is_coded(value: object) -> bool:
    return isinstance(value, Tensor) and not value.is_quantized and not is_traceable_wrapper_subclass(value)
