"""Inputs that take long to make are made once for each network, and kept in a folder."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

from torch import Tensor, nn

from rank_search.layers import Example, tensors_of, with_tensors
from rank_search.priors import TensorFiles, digest
from rank_search.sources.sampled_tokens import sampled_sequences
from rank_search.sources.settings import SynthesisSettings
from rank_search.sources.synthesis import Progress, synthetic_inputs

_VERSION: Final = 1
"""Of what the numbers are made by; another one makes all anew."""


def cached(
    model: nn.Module,
    example: Example,
    *,
    settings: SynthesisSettings | None = None,
    seed: int,
    folder: Path | None,
    progress: Progress | None = None,
) -> list[Example]:
    """`synthetic_inputs`, read from the folder where it has them, otherwise made now and kept there.

    They are known by the contents of the network's parameters and buffers, its modules as they are printed, the
    example's shapes, the settings and the seed. A folder that cannot be written to keeps nothing, with a warning.

    Args:
        folder: None: nothing is kept.

    Raises:
        SourceError: as `synthetic_inputs`.
    """
    settings = settings or SynthesisSettings()
    make = partial(synthetic_inputs, model, example, settings=settings, seed=seed, progress=progress)
    about = f"{settings.model_dump_json(exclude={'at_once'})}\n{seed}"
    return _kept(make, model, example, "synthetic", about, folder)


def cached_sequences(
    model: nn.Module, example: Example, *, batches: int, batch_size: int, length: int, seed: int, folder: Path | None
) -> list[Example]:
    """`sampled_sequences`, kept as `cached` keeps synthetic inputs.

    Raises:
        SourceError: as `sampled_sequences`.
    """
    numbers = {"batches": batches, "batch_size": batch_size, "length": length, "seed": seed}
    return _kept(partial(sampled_sequences, model, example, **numbers), model, example, "sampled", f"{numbers}", folder)


def _kept(
    make: Callable[[], list[Example]], model: nn.Module, example: Example, kind: str, about: str, folder: Path | None
) -> list[Example]:
    if folder is None:
        return make()
    files, name = TensorFiles(folder), f"{kind}-{_VERSION}-{_key(model, example, about)}"
    if (kept := files.load(name)) is not None:
        places = len(tensors_of(example))
        return [_put_in(example, kept, number) for number in range(len(kept) // places)]
    made = make()
    files.save(name, {f"{number} {place}": each for number, batch in enumerate(made) for place, each in _of(batch)})
    return made


def _key(model: nn.Module, example: Example, about: str) -> str:
    tensors = {name: each for name, each in model.state_dict().items() if isinstance(each, Tensor)}
    shapes = [(tuple(each.shape), str(each.dtype)) for each in tensors_of(example)]
    return hashlib.sha256(digest(tensors) + f"{model}\n{shapes}\n{about}".encode()).hexdigest()


def _of(batch: Example) -> list[tuple[int, Tensor]]:
    return [(place, each.clone()) for place, each in enumerate(tensors_of(batch))]


def _put_in(example: Example, kept: dict[str, Tensor], number: int) -> Example:
    places = iter(range(len(tensors_of(example))))
    return with_tensors(example, lambda each: kept[f"{number} {next(places)}"].to(each.device))
