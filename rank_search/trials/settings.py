"""The `[latency]` table of a study file."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class LatencySettings(BaseModel):
    """How `latency_ratio` (the model and the dense one by turns, as deployed) and `latency` (seconds) are measured.

    In the model's own precision, on the device of `[launch]`; a GPU is waited for after each forward.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    batch: int = Field(default=1, ge=1, description="Examples in one forward.")
    threads: int = Field(default=1, ge=1, description="Threads that PyTorch may use.")
    repeats: int = Field(
        default=30, ge=1, description="Rounds of the measurement: in each the two models run twice, A B B A."
    )
    slower_forms: bool = Field(
        default=False,
        description="Let a layer take a form that saves parameters or MACs, but no time. Else, where latency is an "
        "objective or a constraint, such a layer stays dense; the forms are timed when the study begins.",
    )
