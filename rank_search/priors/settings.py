"""The `[priors]` table of a study file."""

from __future__ import annotations

import re
from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from rank_search.priors.rules import LEVELS, RULES
from rank_search.priors.spectrum import Spectrum

ENOUGH: Final = 4
"""Columns for each input of a layer: the least eigenvalues of the moment of white noise are then a quarter of what they
should be, (1 − √¼)², rather than next to nothing."""

AT_LEAST: Final = 2
"""Batches that are looked at."""

_MEMORY: Final = re.compile(r"(\d+(?:\.\d+)?) ?([MGT]B)")
_UNITS: Final = {"MB": 1e6, "GB": 1e9, "TB": 1e12}


class PriorSettings(BaseModel):
    """What the weights say, and how far the data has a say in it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rule: Literal["vbmf", "tail", "energy"] = Field(
        default="vbmf",
        description="Which rank of a spectrum is the prior (weakening 1): `vbmf` what stands out of the noise; `tail` "
        "the least rank with a relative error of at most `level`; `energy` the least that keeps the share `level`.",
    )
    level: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="Of the rule. Default: 0.4 for `tail`, 0.84 for `energy`; `vbmf` has none.",
    )
    spectra: Literal["weights", "outputs"] = Field(
        default="weights",
        description="Of which matrix: the weights as they are, or weighed by the inputs that the layer sees, so that a "
        "tail is an error of the layer's outputs (needs `calibration`).",
    )
    calibration: Annotated[int, Field(ge=0)] | Literal["auto"] = Field(
        default=2,
        description="Batches of training data on which the inputs of each layer are looked at. Fits then come "
        "close to the layer's outputs rather than to its weights. 0 = the weights alone; `auto` = as many as the "
        f"widest layer takes, {ENOUGH} columns for each of its inputs, and {AT_LEAST} at least: for language models, "
        "whose layers have more inputs than two batches have tokens.",
    )
    memory: str | None = Field(
        default=None,
        description="How much memory the moments of the layers' inputs may take beside the model, such as `4 GB`. "
        "Where those of all layers take more, they are made in several passes over the batches, and kept, with all "
        "decompositions, in files from which they are read as they are used. Results are the same. Default: half of "
        "what is free when a search begins.",
    )
    metric: Literal["outputs", "loss"] = Field(
        default="outputs",
        description="What errors and fits are measured in: the squared error of a layer's `outputs`, or the rise of "
        "the `loss` that it makes, by the gradients of the loss at the outputs (one backward pass for each batch of "
        "`calibration`). Much better on a small language model; on ResNet-20 for CIFAR-10, which has learned "
        "its training images, much worse with their labels, and less so with `targets` that are sampled.",
    )
    targets: Literal["labels", "sampled"] = Field(
        default="labels",
        description="What the gradients of the loss are taken with: the `labels` of the batches, or targets `sampled` "
        "from the dense model's own predictions (the Fisher information, as K-FAC has it; labels play no part).",
    )
    cuts: int = Field(
        default=0,
        ge=0,
        le=4,
        description="Cuts of each layer, alone, that are measured by the task's loss on the batches of `calibration` "
        "before the first trial: how much its errors count follows from them. One evaluation each, kept in the cache.",
    )
    importances: Annotated[int, Field(ge=0, le=10)] | Literal["auto"] = Field(
        default="auto",
        description="Costs at which, before the first trial, it is learned how much the errors of each layer count for "
        "the network's outputs: the ranks of all layers are relaxed and moved together by gradients, without labels, "
        "on the first 8 batches of the training data. Allocations are then better, and so are those that `auto` makes. "
        "3 are enough; each takes as long as 20 training steps of the dense model, once. Default: 3 for a task "
        "that is `Supervised` or a `LanguageModel`, with its own data and labels, where there are 12 groups of layers "
        "at least, errors are of the `outputs`, with `calibration` and without `cuts`, the sampler is another than "
        "`continuous`, learning looks at no more inputs than 10 trials and takes no more than 10¹³ MACs, and outputs "
        "and the weights of all forms of all layers no more than 4 GB; elsewhere, and for `rank-search allocate`, 0.",
    )

    sequential: bool = Field(
        default=False,
        description="Whether each trial fits its layers block by block, in the order in which they run, to what the "
        "factorized blocks before them give on the batches of `calibration`, instead of to what the dense model gives: "
        "one pass over the batches for each block but the first. The errors that ranks are chosen by stay those of the "
        "dense model.",
    )

    @model_validator(mode="after")
    def _look_at_batches_where_they_are_needed(self) -> Self:
        needing = [key for key, needs in (("metric", self.metric == "loss"), ("cuts", self.cuts > 0)) if needs]
        if needing and not self.calibration:
            raise ValueError(
                f"{' and '.join(needing)} needs batches to take the loss of, and calibration is 0. Ask for calibration "
                "batches, or leave it out"
            )
        if self.importances not in ("auto", 0) and not self.calibration:
            raise ValueError(
                "importances needs batches to see the network's outputs on, and calibration is 0. Ask for calibration "
                "batches, or leave it out"
            )
        if self.sequential and not self.calibration:
            raise ValueError(
                "sequential needs batches that the factorized layers are run on, and calibration is 0. Ask for "
                "calibration batches, or leave it out"
            )
        return self

    @model_validator(mode="after")
    def _sample_targets_for_the_loss(self) -> Self:
        if self.targets == "sampled" and self.metric != "loss":
            raise ValueError(
                f'targets = "sampled" is of metric = "loss", and metric is "{self.metric}", which looks at no target. '
                'Set metric = "loss", or leave targets out'
            )
        return self

    @field_validator("memory")
    @classmethod
    def _memory_is_an_amount(cls, text: str | None) -> str | None:
        if text is not None and _MEMORY.fullmatch(text) is None:
            raise ValueError(f"{text!r} is no amount of memory; write it as 512 MB, 4 GB or 1.5 TB")
        return text

    @property
    def memory_bytes(self) -> int | None:
        """`memory` in bytes."""
        found = None if self.memory is None else _MEMORY.fullmatch(self.memory)
        return None if found is None else int(float(found[1]) * _UNITS[found[2]])

    def rank(self, spectrum: Spectrum) -> int:
        """What the rule says of a spectrum."""
        return RULES[self.rule](spectrum, LEVELS[self.rule] if self.level is None else self.level)
