"""The `[data]` table of a study file: what is looked at where there is no data, no right to it, or no labels."""

from __future__ import annotations

from typing import Final, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from rank_search.sources import LEAST_IN_BATCH, SynthesisSettings
from rank_search.tasks import AGREEMENT, LAYER_ERROR, OutputKind

Source = Literal["task", "synthetic", "gaussian", "analytic", "none"]

RUN: Final = ("synthetic", "gaussian")
"""Sources of inputs that the network is run on."""


class DataSettings(SynthesisSettings):
    """What calibration, fits, training and trials look at: the task's own batches, or inputs that are made up.

    With another source than `task`, and with `labels = false`, trials are measured by their agreement with the dense
    model: `kl`, `disagreement` and `output_error`, or, where no input is run, `layer_error` (docs/no-data.md). The
    task's own data, if it has any, is looked at by nothing but the test stage. Batch norms take statistics on real
    data only. Keys from `at_once` to `flips` are of synthetic inputs.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: Source = Field(
        default="task",
        description="`task`: its own batches. `synthetic`: inputs on which batch norms see the statistics that they "
        "have stored; for language models, sequences sampled from the model itself. `gaussian`: numbers from N(0, 1). "
        "`analytic`: no input, but moments of layers' inputs that follow from batch norms. `none`: the weights alone. "
        "With any but `task`, the factory may return a network, or a network and an example.",
    )
    labels: bool = Field(
        default=True,
        description="Whether the labels of the task's batches are looked at before the test. `false`: trials are "
        "trained for, and measured by, agreement with the dense model.",
    )
    outputs: OutputKind = Field(
        default="auto",
        description="What the network gives: logits of `classes` in the last dimension, or `values`. `auto`: classes "
        "where outputs are batch × classes, or batch × length × tokens of token ids.",
    )
    batches: int = Field(
        default=2, ge=1, description="Batches to make for calibration and training, which are one epoch."
    )
    selection_batches: int = Field(
        default=1, ge=1, description="Further batches to make, which trials are measured on."
    )
    batch_size: int = Field(
        default=128, ge=LEAST_IN_BATCH, description="Examples in a batch of synthetic or gaussian inputs."
    )
    sequences: int = Field(default=8, ge=1, description="Sequences in a batch, for language models.")
    length: int = Field(default=128, ge=2, description="Of a sequence, in tokens, for language models.")

    @property
    def has_labels(self) -> bool:
        return self.source == "task" and self.labels

    @property
    def measured(self) -> tuple[str, ...]:
        """What trials are measured by, where there are no labels."""
        return AGREEMENT if self.source in ("task", *RUN) else (LAYER_ERROR,)

    @property
    def in_words(self) -> str:
        """What trials are measured by where there are no labels; empty where there are."""
        if self.has_labels:
            return ""
        if not set(self.measured) & set(AGREEMENT):
            return f"{LAYER_ERROR} is the sum of the layers' relative errors; no input is run."
        on = "the task's batches, without labels" if self.source == "task" else f"{self.source} inputs"
        return f"{', '.join(AGREEMENT[:-1])} and {AGREEMENT[-1]} are agreement with the dense model on {on}."

    @property
    def synthesis(self) -> SynthesisSettings:
        """How all batches are made."""
        given = {name: getattr(self, name) for name in SynthesisSettings.model_fields}
        return SynthesisSettings(**{**given, "batches": self.in_all})

    @property
    def in_all(self) -> int:
        """Batches that are made."""
        return self.batches + self.selection_batches

    @model_validator(mode="after")
    def _labels_are_of_a_task(self) -> Self:
        if self.source != "task" and not self.labels:
            raise ValueError(f'labels = false is of source = "task"; made-up inputs ("{self.source}") have none anyway')
        return self
