"""A network that is trained on its signal, or on views of its scene, once, and kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import count, islice
from pathlib import Path

import torch
from torch import Tensor, nn

from rank_search.basics import replace_whole
from rank_search.coding import from_safetensors, to_safetensors
from rank_search.errors import TaskError, TrialError
from rank_search.representations.networks import Several
from rank_search.representations.radiance import SAMPLES, WHITE
from rank_search.representations.representation import Representation
from rank_search.representations.scene import DrawnRays, pixel_error
from rank_search.representations.signals import Signal
from rank_search.representations.views import Views
from rank_search.tasks import Batch, seeded


def trained_once(
    network: Callable[[], nn.Module],
    signal: Signal | Sequence[Signal],
    cache: str | Path | None = None,
    *,
    steps: int = 2000,
    batch: int | None = 8192,
    learning_rate: float = 2e-3,
    rng_seed: int = 0,
    shared: float = 1.0,
) -> nn.Module:
    """The network, trained to stand for the signal: from `cache` if it is there, otherwise trained now and kept there.

    By Adam, on random coordinates, the learning rate falling to nothing along a cosine. Everything random is drawn from
    `rng_seed`; torch's global generator is left as it was. A signal of fewer samples than a batch is one batch.

    Args:
        network: makes it, untrained.
        signal: or several, for a network of `several` copies.
        cache: a safetensors file; delete it to train anew. None keeps nothing.
        shared: the share of the steps, from the first, in which such copies have the same weights and differ in their
            biases alone; then each is trained by itself. Little that they learn by themselves is of low rank.

    Raises:
        TaskError: network and signal do not go together, or `cache` holds another network.
    """

    def train(model: nn.Module) -> None:
        task = Representation(model, signal, batch)
        _train(model, task.training, partial(task.loss, model), steps, learning_rate, round(shared * steps))

    return _once(network, train, cache, rng_seed)


def trained_scene(
    network: Callable[[], nn.Module],
    views: Views,
    cache: str | Path | None = None,
    *,
    steps: int = 3000,
    batch: int = 512,
    samples: int = SAMPLES,
    background: float = WHITE,
    learning_rate: float = 5e-3,
    rng_seed: int = 0,
) -> nn.Module:
    """The radiance field, trained on views of a scene: from `cache` if it is there, otherwise trained and kept there.

    By Adam, on random rays and random points on each, otherwise as `trained_once` does.

    Args:
        network: makes it, untrained.
        views: to train on; others are to be measured on.
        cache: a safetensors file; delete it to train anew. None keeps nothing.
        batch, samples, background: as of `Scene`.

    Raises:
        TaskError: `cache` holds another network.
    """

    def train(model: nn.Module) -> None:
        drawn = DrawnRays.of(views, samples, batch, steps)
        _train(model, lambda: drawn, lambda each: pixel_error(model, each, background), steps, learning_rate)

    return _once(network, train, cache, rng_seed)


def _once(
    network: Callable[[], nn.Module], train: Callable[[nn.Module], None], cache: str | Path | None, rng_seed: int
) -> nn.Module:
    with seeded(rng_seed):
        model = network()
        path = None if cache is None else Path(cache)
        if path is not None and path.exists():
            return _kept(model, path).eval()
        train(model.train())
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_whole(path, to_safetensors(model.state_dict()))
    return model.eval()


def _kept(model: nn.Module, path: Path) -> nn.Module:
    try:
        model.load_state_dict(from_safetensors(path.read_bytes()))
    except (OSError, TrialError, RuntimeError) as error:
        said = " ".join(str(error).split())
        raise TaskError(
            f"{path} does not hold this network: {said} Delete it to train anew, or keep to its shape."
        ) from error
    return model


def _train(
    model: nn.Module,
    passes: Callable[[], Iterable[Batch]],
    loss: Callable[[Batch], Tensor],
    steps: int,
    learning_rate: float,
    shared: int = 0,
) -> None:
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step, batch in enumerate(islice((each for _ in count() for each in passes()), steps)):
        optimizer.zero_grad()
        torch.autograd.backward(loss(batch))
        if step < shared and isinstance(model, Several):
            _share_gradients(model)
        optimizer.step()
        schedule.step()


def _share_gradients(model: Several) -> None:
    """Give equal weights the mean of their gradients, so that they stay equal under any optimizer."""
    for same in zip(*(each.parameters() for each in model.networks), strict=True):
        if same[0].dim() > 1:
            mean = torch.stack([each.grad for each in same if each.grad is not None]).mean(0)
            for each in same:
                each.grad = mean.clone()
