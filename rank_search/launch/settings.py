"""The `[launch]` table of a study file: how trials are run, which never changes what they find."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class LaunchSettings(BaseModel):
    """Where trials run."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    workers: int = Field(
        1,
        ge=1,
        description="Worker processes; 1 runs the trials in the driver itself, unless there is a time limit.",
    )
    threads: int = Field(1, ge=1, description="Threads that PyTorch may use in each worker.")
    max_retries: int = Field(2, ge=0, description="How often a trial is tried again after its process died.")
    time_limit: float | None = Field(
        None,
        gt=0,
        description="Seconds after which a trial is ended and recorded as failed.",
    )
