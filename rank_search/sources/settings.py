"""How inputs are synthesized."""

from __future__ import annotations

from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field

LEAST_IN_BATCH: Final = 64
"""Examples in a batch, whose variances are compared with those of the training data."""


class SynthesisSettings(BaseModel):
    """How inputs are made whose statistics at each batch norm are the stored ones.

    The statistics are those of Haroush, Hubara, Hoffer, Soudry, "The Knowledge Within: Methods for Data-Free Model
    Compression" (CVPR 2020), or the squared distances of Cai et al., "ZeroQ" (CVPR 2020); slack and emphasis follow
    Zhang et al., "Diversifying Sample Generation for Accurate Data-Free Quantization" (CVPR 2021).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    batches: int = Field(default=1, ge=1, description="Batches to make.")
    batch_size: int = Field(
        default=128,
        ge=LEAST_IN_BATCH,
        description="Examples in a batch, whose statistics are to be the stored ones together.",
    )
    at_once: int | None = Field(
        default=None,
        ge=1,
        description="Examples that run through the model at once, which bounds memory and changes no result; a third "
        "more time if it is less than the batch. None: the whole batch.",
    )
    steps: int = Field(default=250, ge=1, description="Steps of Adam for each batch.")
    learning_rate: float = Field(
        default=0.3,
        gt=0,
        allow_inf_nan=False,
        description="Of the inputs, in units of the deviation that they begin with; falls like a cosine.",
    )
    statistics: Literal["kl", "l2"] = Field(
        default="kl",
        description="Distance of the statistics: `kl`: the divergence of two normal distributions. `l2`: squared "
        "distances of means and deviations.",
    )
    class_evidence: float = Field(
        default=0.03,
        ge=0,
        allow_inf_nan=False,
        description="Weight of the cross-entropy to a class drawn for each example, where the outputs are logits, "
        "batch × classes.",
    )
    smoothness: float = Field(
        default=0.03,
        ge=0,
        allow_inf_nan=False,
        description="Weight of the total variation: the mean absolute difference of neighboring pixels.",
    )
    slack: float = Field(
        default=0.0,
        ge=0,
        allow_inf_nan=False,
        description="How far a mean may be off without a penalty, in stored deviations, and the logarithm of a "
        "deviation; keeps examples from looking alike.",
    )
    emphasis: float = Field(
        default=0.0,
        ge=0,
        allow_inf_nan=False,
        description="Each example counts 1 + this in the statistics of one batch norm, in turn, and 1 in all others; "
        "keeps examples from looking alike.",
    )
    jitter: int = Field(default=0, ge=0, description="Pixels by which a batch is shifted at random in each step.")
    flips: bool = Field(
        default=False, description="Whether images and volumes are mirrored left to right at random in each step."
    )
