"""Tasks of networks without data, and of data without labels."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Final, final

from pydantic import ValidationError
from torch import Tensor, nn

from rank_search.errors import SourceError, StudyFileError
from rank_search.layers import Example, Layer, opened_for, shared, tensors_of
from rank_search.sources import (
    InputForm,
    analytic_moments,
    cached,
    cached_sequences,
    gaussian_inputs,
    stored_norms,
)
from rank_search.study.complaints import complaints
from rank_search.study.data_settings import DataSettings, Source
from rank_search.tasks import AgreementTask, LayerErrorTask, Task

_log: Final = logging.getLogger(__name__)
_steps: Final = logging.getLogger("rank_search.steps")

_TENTHS: Final = 10


def without_data(
    model: nn.Module,
    example: Example,
    source: Source = "synthetic",
    *,
    real: Task | None = None,
    seed: int = 0,
    settings: Mapping[str, Any] | None = None,
    folder: Path | None = None,
) -> Task:
    """A task of a trained network alone: what the search looks at is made up, what it measures is agreement.

    With `synthetic` and `gaussian` inputs it is an `AgreementTask`, with `analytic` moments and with `none` a
    `LayerErrorTask`. Inputs are made when they are first asked for, and are the same for the same seed; batch norms
    keep the dense model's statistics.

    Args:
        model: the trained network; it is not changed.
        example: what one forward takes, as a batch of 1.
        source: as in the `[data]` table of a study file.
        real: a task whose test data the front's members are measured on; nothing else of it is looked at.
        seed: of what is made up.
        settings: further keys of the `[data]` table.
        folder: where synthetic inputs and sampled sequences are kept; None: they are made in each process.

    Raises:
        SourceError: the source has nothing for such a network.
        StudyFileError: the settings break a rule.
    """
    try:
        made = DataSettings.model_validate({**(settings or {}), "source": source})
    except ValidationError as error:
        lines = "\n".join(f"  {line}" for line in complaints(error, DataSettings))
        raise StudyFileError(f"without_data() takes the keys of [data]; these are wrong:\n{lines}") from None
    return task_of(model, example, made, real=real, seed=seed, folder=folder)


def task_of(
    model: nn.Module, example: Example, settings: DataSettings, *, real: Task | None, seed: int, folder: Path | None
) -> Task:
    """The task of a network with what these settings make up.

    Raises:
        SourceError: the source has nothing for such a network; nothing has been computed then.
    """
    if settings.source == "none":
        return LayerErrorTask(model, example, measured_at_the_end=real)
    if settings.source == "analytic":
        moments = partial(_moments, model, example)
        return LayerErrorTask(model, example, moments, "analytic moments of their inputs", measured_at_the_end=real)
    # of its own structure: they are made when first asked for, perhaps while the network's layers are watched
    make = _maker(shared(model, {}), example, settings, seed, folder)
    made = MadeInputs(make.make)
    return AgreementTask(
        network=model,
        training_batches=_Part(made, 0, settings.batches),
        selection_batches=_Part(made, settings.batches, settings.in_all),
        one_example=example,
        outputs=settings.outputs,
        made_up=make.words,
        measured_at_the_end=real,
    )


@final
@dataclass(frozen=True)
class _Maker:
    """How inputs are made, and in words what they are."""

    make: Callable[[], list[Example]]
    words: str


def _maker(model: nn.Module, example: Example, settings: DataSettings, seed: int, folder: Path | None) -> _Maker:
    """Refuses what can be told from the network and the example alone."""
    given = tensors_of(example)
    if settings.source == "synthetic" and given and not any(each.is_floating_point() for each in given):
        text = {"batches": settings.in_all, "batch_size": settings.sequences, "length": settings.length, "seed": seed}
        return _Maker(partial(_sampled, model, example, text, folder), "sequences sampled from the model itself")
    InputForm.of(example, model)
    if settings.source == "gaussian":
        numbers = {"batches": settings.in_all, "batch_size": settings.batch_size, "seed": seed}
        return _Maker(partial(gaussian_inputs, example, **numbers, model=model), "gaussian noise")
    if not stored_norms(model):
        raise SourceError(
            'The network has no batch norms with stored statistics, which [data] source = "synthetic" makes inputs '
            'for. Take source = "none", which looks at the weights alone, or "gaussian"; for a language model give an '
            "example of token ids: then sequences are sampled from it."
        )
    return _Maker(partial(_synthetic, model, example, settings, seed, folder), "synthetic inputs")


def _sampled(model: nn.Module, example: Example, text: Mapping[str, int], folder: Path | None) -> list[Example]:
    count = text["batches"] * text["batch_size"]
    _steps.info("Sampling %d sequences of %d tokens, unless they are kept from before", count, text["length"])
    return cached_sequences(model, example, **text, folder=folder)


def _synthetic(
    model: nn.Module, example: Example, settings: DataSettings, seed: int, folder: Path | None
) -> list[Example]:
    made = settings.synthesis

    def tell(done: int, total: int) -> None:
        tenth = max(1, total // _TENTHS)
        if done == 1 or done % tenth == 0:
            _steps.info("Making synthetic inputs, %d × %d: step %d of %d", made.batches, made.batch_size, done, total)

    return cached(model, example, settings=made, seed=seed, folder=folder, progress=tell)


def _moments(model: nn.Module, example: Example, layers: Mapping[str, Layer]) -> Mapping[str, Tensor]:
    found = analytic_moments(opened_for(model, layers), example, layers)
    _log.info("Moments of the inputs of %d of %d layers follow from batch norms.", len(found), len(layers))
    if not found:
        _log.warning(
            'Of no layer do the moments of its inputs follow from batch norms: [data] source = "analytic" is the same '
            'as "none" here.'
        )
    return found


@final
@dataclass
class MadeInputs:
    """Batches that are made when they are first asked for."""

    make: Callable[[], list[Example]]
    _batches: list[Example] | None = field(default=None, repr=False)

    @property
    def batches(self) -> list[Example]:
        """All of them."""
        if self._batches is None:
            self._batches = self.make()
        return self._batches


@final
@dataclass(frozen=True)
class _Part:
    """Some of the batches, in order."""

    made: MadeInputs
    first: int
    end: int

    def __iter__(self) -> Iterator[Example]:
        return islice(self.made.batches, self.first, self.end)

    def __len__(self) -> int:
        return self.end - self.first
