"""The `[coding]` table of a study file."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

GroupingKind = Literal["kind", "tensor"]
StepsKind = Literal["tensor", "channel", "component", "frequency"]
PriorKind = Literal["laplace", "logistic", "density"]
RoundingKind = Literal["nearest", "rate", "grid"]


class CodingSettings(BaseModel):
    """How weights become whole numbers under the entropy penalty; where it is off, nothing here is read.

    The method is that of Oktay, Ballé, Singh, Shrivastava, "Scalable Model Compression by Entropy Penalized
    Reparameterization" (ICLR 2020), on dense layers as on factors. Weights, factors and biases are trained rounded,
    with learned steps; each group shares a prior while training, and a coder in the file. Batch norms are stored as a
    scale and a shift for each channel. The file's coder is the one that takes least, whichever prior was trained with.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    grouping: GroupingKind = Field(
        default="tensor",
        description="What shares a prior and a coder: `tensor`: each tensor is alone. `kind`: parameters of one name "
        "within their layers and of one kernel size, across all layers.",
    )
    steps: StepsKind = Field(
        default="tensor",
        description="What has its own learned step: `tensor`: each tensor. `channel`: each output channel. "
        "`component`: each component of a factor, such as a column of a frame. `frequency`: each spatial frequency of "
        "kernels larger than one pixel, which are rounded as frequencies. Where it does not apply, each tensor.",
    )
    prior: PriorKind = Field(
        default="logistic",
        description="Prior of the whole numbers while training: `laplace` or `logistic`, with a learned scale, or "
        "`density`, a small network.",
    )
    rounding: RoundingKind = Field(
        default="nearest",
        description="Of the trained weights: `nearest`, as in training; or `rate`: a weight may go to its other "
        "neighbour where that saves more bits than it costs of the loss, by its squared gradients on some training "
        "batches. Kept only if the loss on these batches, with the price of bits, falls. `grid`: of a grid of steps "
        "for weights and for biases, after training, the one of least loss on some training batches + price of the "
        "coded bits; the trained steps if they are no worse, and for a model without factors also the weights from "
        "before the penalty. For networks of some thousand weights.",
    )
