"""Which dimension of the inputs counts the examples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import torch
from torch import Tensor, nn

from rank_search.layers import layer_by_layer

_MAY_TAKE_TIME_FIRST: Final = (nn.RNNBase, nn.MultiheadAttention)


def batch_dimension(network: nn.Module, inputs: Tensor) -> int:
    """The second one, if a recurrent or attention module that takes time first is given the inputs' own first two
    dimensions; otherwise the first. Tried on the first step, or on two where there is one sequence only.

    Complexity: nothing for a network without such modules, otherwise one forward.
    """
    modules = [each for each in network.modules() if isinstance(each, _MAY_TAKE_TIME_FIRST) and not each.batch_first]
    if not modules or inputs.dim() < 2:
        return 0
    steps = 1 if inputs.shape[1] > 1 else 2
    return 1 if (steps, inputs.shape[1]) in _given(network, modules, inputs[:steps]) else 0


def _given(network: nn.Module, modules: Sequence[nn.Module], inputs: Tensor) -> set[tuple[int, ...]]:
    """The first two dimensions of the batches that come to the modules; nothing if the network does not run."""
    seen: set[tuple[int, ...]] = set()

    def note(_: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        found = next((each for each in (*args, *named.values()) if isinstance(each, Tensor)), None)
        if found is not None and found.dim() == 3:
            seen.add(tuple(found.shape[:2]))

    modes = {each: each.training for each in network.modules()}
    handles = [each.register_forward_pre_hook(note, with_kwargs=True) for each in modules]
    try:
        with torch.no_grad(), layer_by_layer():
            network.eval()(inputs)
    except Exception:  # noqa: BLE001 - what keeps it from running is said where it has to run
        return set()
    finally:
        for handle in handles:
            handle.remove()
        for module, training in modes.items():
            module.training = training
    return seen
