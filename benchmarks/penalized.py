"""What the benchmarks of networks that are signals share: a study's task, a trial of one strength, bits and deflate."""

from __future__ import annotations

import copy
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import nn

import rank_search as rs
from rank_search.store import TrialRow
from rank_search.study import load_study, load_task

STUDIES: Final = Path(__file__).parents[1] / "studies"


def task_of(study_name: str, /, **options: Any) -> Any:
    """The task of `studies/NAME.toml`, some of its options changed."""
    study = load_study(STUDIES / f"{study_name}.toml")
    changed = study.task.model_copy(update={"options": {**study.task.options, **options}})
    return load_task(study.model_copy(update={"task": changed}))


def deflated(network: nn.Module, bits: int) -> tuple[nn.Module, int]:
    """A copy, each tensor in multiples of its largest number's share, and the bytes of all of them deflated."""
    rounded, data = copy.deepcopy(network), b""
    with torch.no_grad():
        for parameter in rounded.parameters():
            step = parameter.abs().max() / (2 ** (bits - 1) - 1)
            whole = (parameter / step).round()
            parameter.copy_(whole * step)
            data += np.float32(step).tobytes() + whole.to(torch.int8).numpy().tobytes()
    return rounded, len(zlib.compress(data, 9))


@contextmanager
def one_trial(
    task: Any,
    epochs: int,
    strength: float,
    chosen: Mapping[str, Mapping[str, Any]] | None = None,
    tied: str = "",
    size: str = "bits_per_sample",
) -> Iterator[tuple[rs.Store, TrialRow]]:
    """A study of one trial under the entropy penalty, in a store that is there as long as the context.

    Args:
        chosen: the factorization of layers, with its axes; all others, or all, are dense.
        tied: a pattern of layers that share their weights.
        size: the objective beside the decibels.
    """
    forms = list(dict.fromkeys(each["factorization"] for each in (chosen or {}).values()))
    layers = {"factorizations": forms} if forms else {"rules": [{"match": "*", "factorizations": []}]}
    tables = {
        "study": {"name": "penalized"},
        "task": {"factory": "(in memory)"},
        "layers": {**layers, "tie": [[tied]]} if tied else layers,
        "search": {
            "objectives": [{"name": "psnr", "direction": "maximize"}, size],
            "entropy": {"low": strength / 2, "high": strength * 2},
            "seeds": {
                "dense": False,
                "points": [{"name": "strength", "entropy": strength, "layers": dict(chosen or {})}],
            },
        },
        "training": {"epochs": epochs, "learning_rate": 2e-3},
        "coding": {"rounding": "grid"},
    }
    with tempfile.TemporaryDirectory() as folder:
        store = str(Path(folder) / "s.sqlite")
        result = rs.run_study(rs.Study.model_validate(tables), task=task, store=store, trials=1)
        with rs.Store.open(store) as opened:
            (trial,) = opened.trials(result.study)
            yield opened, trial
