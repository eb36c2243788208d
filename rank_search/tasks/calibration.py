"""What the layers of the dense model see: the second moment of their inputs on some batches of the training data."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from typing import Final, Protocol

import torch
from torch import Tensor, nn

from rank_search.errors import RankSearchError, TaskError
from rank_search.layers import Example, Layer, forward, in_evaluation, input_of, layer_by_layer
from rank_search.tasks.modes import as_for_loss, is_lone
from rank_search.tasks.occurrences import Occurrences
from rank_search.tasks.padding import Padding, padding_of
from rank_search.tasks.randomness import seeded
from rank_search.tasks.task import Task, checked_batches, task_errors

MOST_PATCHES: Final = 8192
"""Of a layer, from one batch: neighboring patches say nearly the same."""

_LONGER: Final = 8
"""Times as many batches, at most, are looked at for a layer that the first ones do not reach."""

_ROWS: Final = 512
"""Of a matrix, that are made wider at once."""

_log = logging.getLogger(__name__)


def input_moments(
    task: Task, model: nn.Module, layers: Mapping[str, Layer], batches: int, rng_seed: int = 0
) -> dict[str, Tensor]:
    """E[x·xᵀ] of each layer's inputs, x a patch in the order in · kh · kw, on the first batches of a training pass.

    Returned n × n with n = in·kh·kw, in float32, by layer name; of a grouped layer groups × n × n, one for each block,
    with n = in/groups·kh·kw. A layer that runs several times in a forward has the average over all of its inputs; one
    that sees no input in these batches, such as an expert that is not chosen, takes the first ones of up to `_LONGER`
    times as many; if there are none, or they are not finite, it is left out, with a warning. The model runs as for its
    loss, without dropout, and is not changed; torch's global generator is at `rng_seed` meanwhile, so that a shuffled
    pass is the same each time. Of a batch, a layer takes at most `MOST_PATCHES` patches: those of its first examples.
    Padded positions (`Task.mask`) of batch × length × features inputs are none. Products are in float32 or wider, sums
    in float64. The moment of a layer that sees no more than n patches is in float64 altogether, with a warning: of
    directions that no patch has, float32 would tell its rounding, where the weight is to decide. Complexity: the
    forwards, and O(patches·n²) for each layer; 12·n² bytes.

    Of one-hot inputs it is the diagonal, n numbers: how often each is to be expected (see `frequencies`). Ties that
    look up rows of a layer have theirs beside it (see `of_uses`).

    Raises:
        TaskError: the task raises, or has no training data.
    """
    sums = watchers(layers)
    watch_loss(task, model, sums, batches, rng_seed)
    _warn_of_short(sums, batches, "set calibration = {} under [priors]")
    return _usable({name: each.mean() for name, each in sums.items()})


def columns_seen(
    task: Task, model: nn.Module, layers: Mapping[str, Layer], batches: int, rng_seed: int = 0
) -> dict[str, int]:
    """How many patches each layer sees in the first batches that `input_moments` looks at; the model is not changed.

    Raises:
        TaskError: the task raises, or has no training data.
    """
    counts = {name: _Count(layer) for name, layer in layers.items()}
    with _looked_at(model, counts, rng_seed) as padding:
        for batch in islice(checked_batches(task.training(), "training data"), batches):
            padding.says(task.mask(batch))
            task.loss(model, batch)
    return {name: each.count for name, each in counts.items()}


def moments_of_inputs(model: nn.Module, layers: Mapping[str, Layer], batches: Iterable[Example]) -> dict[str, Tensor]:
    """The same for a model without a task: all batches are its own inputs, and it runs in evaluation mode.

    Raises:
        TaskError: the model does not run on a batch.
    """
    sums = watchers(layers)
    count = watch_forward(model, sums, batches)
    _warn_of_short(sums, count, "hand over {} batches like these")
    return _usable({name: each.mean() for name, each in sums.items()})


def watch_loss(task: Task, model: nn.Module, sums: Mapping[str, Watcher], batches: int, rng_seed: int) -> None:
    """Have these take in what their layers see while the task computes its loss: see `input_moments`."""
    with _looked_at(model, sums, rng_seed) as padding:
        for number, batch in enumerate(islice(checked_batches(task.training(), "training data"), batches * _LONGER)):
            if number >= batches:
                for each in sums.values():
                    each.is_full = each.is_full or each.count > 0
                if all(each.is_full for each in sums.values()):
                    break
            padding.says(task.mask(batch))
            task.loss(model, batch)


def watch_forward(model: nn.Module, sums: Mapping[str, Watcher], batches: Iterable[Example]) -> int:
    """Have these take in what their layers see in forwards in evaluation mode; returns how many batches there were."""
    watch, count = padding_of(model), 0
    with torch.no_grad(), in_evaluation(model), layer_by_layer(), watch as padding, _hooked(model, sums, padding):
        for count, batch in enumerate(batches, start=1):
            run_on(model, batch, count - 1)
    return count


def run_on(model: nn.Module, inputs: Example, number: int) -> None:
    """Run the model on the inputs of a batch, as they are counted.

    Raises:
        ValueError: a norm in training mode refuses a batch of one example.
        TaskError: the model raises anything else.
    """
    try:
        forward(model, inputs)
    except RankSearchError:
        raise
    except Exception as error:
        if is_lone(error):
            raise
        raise TaskError(
            f"The model does not run on the inputs of batch {number}; its forward raised {type(error).__name__}: "
            f"{error}. Batches are inputs, or pairs of inputs and targets."
        ) from error


def _warn_of_short(sums: Mapping[str, Watcher], batches: int, remedy: str) -> None:
    """Say which layer has the fewest patches for its size, and what would be enough."""
    short = {name: each for name, each in sums.items() if isinstance(each, _Moment) and each.is_short}
    if not short:
        return
    name, worst = max(short.items(), key=lambda item: item[1].size / item[1].count)
    others = f" ({len(short) - 1} other layers are short of data, too)" if len(short) > 1 else ""
    _log.warning(
        "Layer %s has %d inputs, and saw %d columns of them%s; it takes more than %d. Where the data says nothing, its "
        "weight decides. To know its inputs, %s.",
        *(name, worst.size, worst.count, others, worst.size),
        remedy.format(batches * worst.size // worst.count + 1),
    )


def _usable(found: Mapping[str, Tensor | None]) -> dict[str, Tensor]:
    unseen = [name for name, moment in found.items() if moment is None]
    if unseen:
        _log.warning(
            "No training batch that was looked at reaches %s: fitted to the weights alone. More batches ([priors] "
            "calibration) may reach it.",
            ", ".join(unseen),
        )
    usable = {name: each for name, each in found.items() if each is not None and bool(each.isfinite().all())}
    if strange := [name for name, each in found.items() if each is not None and name not in usable]:
        _log.warning("The inputs of %s are not finite: fitted to the weights alone.", ", ".join(strange))
    return usable


class Watcher(Protocol):
    """What takes in the inputs of a layer.

    Attributes:
        count: how many it has taken in.
        is_full: whether it takes in no more.
    """

    layer: Layer
    count: int
    is_full: bool

    def take(self, x: Tensor) -> None:
        """Take in the inputs of one call of the layer."""


class _Count:
    """How many patches a layer has seen."""

    def __init__(self, layer: Layer) -> None:
        self.layer, self.count, self.is_full = layer, 0, False

    def take(self, x: Tensor) -> None:
        """Count the inputs of one call of the layer."""
        self.count += len(self.layer.columns(x.detach(), MOST_PATCHES))


class _Moment:
    """The sum of x·xᵀ over all patches so far, and the patches themselves while there are no more than n."""

    def __init__(self, layer: Layer) -> None:
        self.layer = layer
        self._sum: Tensor | None = None
        self._rows: list[Tensor] = []
        self.count = 0
        self.is_full = False

    def take(self, x: Tensor) -> None:
        """Add the inputs of one call of the layer."""
        if self.is_full:
            return
        seen = wide(self.layer.columns(x.detach(), MOST_PATCHES))
        if self.layer.groups > 1:
            seen = seen.view(len(seen), self.layer.groups, -1).transpose(0, 1)  # groups × rows × n
        self._sum = summed(self._sum, seen.mT @ seen)
        self.count += seen.shape[-2]
        self._rows = [*self._rows, seen.clone()] if self.is_short else []

    @property
    def size(self) -> int:
        """n: the inputs that one output is made of."""
        return self.layer.shape[1] * math.prod(self.layer.kernel)

    @property
    def is_short(self) -> bool:
        """Whether there are directions of the inputs of which the data says nothing."""
        return 0 < self.count <= self.size

    def mean(self) -> Tensor | None:
        """None where the layer has seen nothing; in float64 where it is short of data. The sum is used up."""
        found, self._sum = self._sum, None
        if found is None or not self.count:
            return None
        if not self.is_short:
            return found.div_(self.count).to(torch.float32)
        rows = torch.cat(self._rows, dim=-2).to(torch.float64)
        return rows.mT @ rows / self.count


def summed(total: Tensor | None, product: Tensor) -> Tensor:
    """A sum in float64 with one more matrix in it, changed in place: never all of the matrix is in float64."""
    total = torch.zeros_like(product, dtype=torch.float64) if total is None else total
    for row in range(0, len(product), _ROWS):
        total[row : row + _ROWS].add_(product[row : row + _ROWS])
    return total


def watchers(layers: Mapping[str, Layer]) -> dict[str, _Moment | Occurrences]:
    """Sums of what the layers see, by name; and of what looks up their rows under another name."""
    looked_up = [tie for layer in layers.values() for tie in layer.ties if not layer.one_hot and tie.one_hot]
    watched = {**layers, **{tie.name: tie for tie in looked_up if tie.inputs}}
    return {
        name: Occurrences(layer, MOST_PATCHES) if layer.one_hot else _Moment(layer) for name, layer in watched.items()
    }


def wide(tensor: Tensor) -> Tensor:
    """In float32 or wider: sums of products of many halves are more than a half can hold."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


Hook = Callable[[nn.Module, tuple[Tensor, ...], Mapping[str, Tensor]], None]


def _hook(moment: Watcher, padding: Padding) -> Hook:
    if moment.layer.channels != -1:  # its second dimension has channels, and is no length, even if as long as one
        return lambda module, inputs, named: moment.take(input_of(inputs, named))
    return lambda module, inputs, named: moment.take(padding.without(input_of(inputs, named)))


@contextmanager
def _looked_at(model: nn.Module, sums: Mapping[str, Watcher], rng_seed: int) -> Iterator[Padding]:
    """These layers watched while the task computes its loss; what it raises is a `TaskError`."""
    with (
        seeded(rng_seed),
        torch.no_grad(),
        padding_of(model) as padding,
        _hooked(model, sums, padding),
        as_for_loss(model),
        task_errors("training() or loss()"),
    ):
        yield padding


@contextmanager
def _hooked(model: nn.Module, sums: Mapping[str, Watcher], padding: Padding) -> Iterator[None]:
    """Each of these layers watched."""
    hooks = {model.get_submodule(name): _hook(moment, padding) for name, moment in sums.items()}
    handles = [module.register_forward_pre_hook(hook, with_kwargs=True) for module, hook in hooks.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
