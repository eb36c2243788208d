"""The `[training]` and `[latency]` tables of a study file."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class TrainingSettings(BaseModel):
    """How each trial fine-tunes the factorized model."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: float = Field(
        default=1.0,
        ge=0,
        allow_inf_nan=False,
        description="Passes over the training data; fractions are allowed, 0 = none.",
    )
    optimizer: Literal["adamw", "sgd"] = Field(default="adamw", description="AdamW, or SGD with Nesterov momentum.")
    learning_rate: float = Field(default=1e-3, gt=0, allow_inf_nan=False, description="Of the weights, at the start.")
    schedule: Literal["cosine", "constant"] = Field(
        default="cosine", description="`cosine` lets every learning rate fall to zero at the last step."
    )
    momentum: float = Field(default=0.9, ge=0, lt=1, description="Of SGD; AdamW does not read it.")
    weight_decay: float = Field(
        default=0.0,
        ge=0,
        allow_inf_nan=False,
        description="Of weights of two or more dimensions (AdamW: decoupled; SGD: L2). Frames under an "
        "orthogonality penalty and everything under the entropy penalty are never decayed.",
    )
    gradient_clip: float = Field(
        default=5.0, gt=0, description="Largest norm of the gradient of all weights together; `inf` = no limit."
    )
    orthogonality_penalty: Literal["so", "srip"] = Field(
        default="so", description="`so`: squared Frobenius norm of QᵀQ − I, over r². `srip`: its spectral norm."
    )
    entropy_start_bits: float = Field(
        default=4.0,
        ge=1,
        le=16,
        description="Bits per weight at which the entropy penalty starts: sets the first step of every tensor "
        "from the spread of its weights.",
    )
    entropy_learning_rate: float = Field(
        default=3e-2, gt=0, allow_inf_nan=False, description="Of the logarithms of steps and prior scales (Adam)."
    )
    entropy_warmup: float = Field(
        default=0.2, ge=0, le=1, description="Share of the training during which the entropy penalty grows from 0."
    )


class LatencySettings(BaseModel):
    """How `latency` is measured, in seconds: the median of repeated forwards."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    batch: int = Field(default=1, ge=1, description="Examples in one forward.")
    threads: int = Field(default=1, ge=1, description="Threads that PyTorch may use.")
    repeats: int = Field(default=30, ge=1, description="Timed forwards; a tenth of as many, at least 3, go before.")
