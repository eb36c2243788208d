"""The `[launch]` table of a study file: where and how trials run. No study is made from it: each key may change."""

from __future__ import annotations

import re
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

_DEVICE: Final = re.compile(r"auto|cpu|cuda(:\d+)?")


class LaunchSettings(BaseModel):
    """Where trials run: the same study file runs on one machine and on a cluster."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_by_name=True, validate_by_alias=True)

    on: Literal["local", "ray"] = Field(
        "local", alias="with", description="`local`: processes on this machine. `ray`: actors on a Ray cluster."
    )
    address: str = Field(
        "",
        description="Of the Ray cluster: `auto`, `HOST:PORT` or `ray://HOST:10001`. Default: `RAY_ADDRESS`, or the "
        "cluster that runs on this machine, or a new one that ends with the run.",
    )
    workers: int | None = Field(
        None,
        ge=1,
        description="Trials at a time. Locally 1 by default: the trials run in the driver itself, unless there is a "
        "time limit. On Ray as many as the cluster has room for when the run begins.",
    )
    cpus_per_trial: float = Field(
        1.0, gt=0, allow_inf_nan=False, description="CPUs that Ray sets aside for each worker; fractions are allowed."
    )
    gpus_per_trial: float = Field(
        0.0, ge=0, allow_inf_nan=False, description="GPUs that Ray sets aside for each worker; 0.25 puts four on one."
    )
    device: str = Field(
        "auto",
        description="Where models, batches and decompositions are: `cpu`, `cuda`, or one GPU, such as `cuda:1`. Model "
        "and batches are moved there; a task need not know. With `cuda`, workers on one machine take its GPUs in "
        "turn; on Ray each has the one that it is given (`gpus_per_trial`). `auto`: as `cuda` where PyTorch sees a "
        "GPU, else `cpu`; a model that its task has put on a GPU itself stays there, and batches come to it.",
    )
    threads: int | None = Field(
        None,
        ge=1,
        description="Threads that PyTorch may use in each worker. Default: the whole part of cpus_per_trial.",
    )
    max_retries: int = Field(
        2,
        ge=0,
        description="How often a trial is tried again after its worker died, or its files could not be written.",
    )
    max_failures: int = Field(
        5, ge=0, description="How many trials may fail in a row before the search stops with an error; 0: any number."
    )
    checkpoint_every: float = Field(
        10.0,
        ge=0,
        allow_inf_nan=False,
        description="Minutes between the checkpoints that a training keeps on its way, beside its other files. A trial "
        "whose process dies goes on from the newest one, bit for bit; 0 = none.",
    )
    time_limit: float | None = Field(
        None,
        gt=0,
        description="Seconds after which a trial is ended and recorded as failed.",
    )
    memory_per_trial: float | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="GiB of main memory that a trial may take beyond what its worker holds already; one that wants "
        "more has failed. On Ray it is also set aside for each worker.",
    )
    store_patience: float = Field(
        600.0,
        ge=0,
        allow_inf_nan=False,
        description="Seconds to wait for a store that is out of reach, busy or full, or for room in the artifact "
        "store, before the run ends with an error; the trials in flight go on meanwhile.",
    )
    tensorboard: str = Field(
        "",
        description="Folder for TensorBoard's logs of every trial, written by Ray Tune's logger (relative to the "
        "current folder). Default: none.",
    )

    @field_validator("device")
    @classmethod
    def _is_a_device(cls, device: str) -> str:
        if device == "mps":
            raise ValueError(
                'the device "mps" has no float64, which moments, decompositions and errors are computed in. Take "cpu"'
            )
        if not _DEVICE.fullmatch(device):
            raise ValueError(f'a device is "auto", "cpu", "cuda", or "cuda:" and a number; found {device!r}')
        return device

    @property
    def checkpoint_seconds(self) -> float:
        """Between two checkpoints of a training; 0: it keeps none."""
        return 60 * self.checkpoint_every

    @property
    def torch_threads(self) -> int:
        """Threads of PyTorch in a worker."""
        return self.threads or max(1, int(self.cpus_per_trial))
