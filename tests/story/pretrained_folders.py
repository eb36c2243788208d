"""Models of transformers that were cut, and the folders of them that transformers opens."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import pytest
import transformers
from torch import nn

import rank_search as rs
from rank_search.export.written import Deployable, write_model
from rank_search.layers import forward
from rank_search.tasks import Seen
from tests.story.test_transformers_models import Near

GIVEN = {"do_sample": False, "max_new_tokens": 6, "eos_token_id": None}
"""To generate with."""

_Made = TypeVar("_Made")


class First(Near):
    """As far as what models without logits give first is from the dense model's."""

    def evaluate(self, model: nn.Module, batches: Iterable[Any]) -> dict[str, float]:
        pairs = [(forward(model, each)[0], forward(self.network, each)[0]) for each in batches]
        return {"distance": sum(float((found - wanted).square().mean()) for found, wanted in pairs)}


def opened(folder: Path, auto: str = "AutoModelForCausalLM", **options: Any) -> Any:
    return getattr(transformers, auto).from_pretrained(folder, trust_remote_code=True, **options)


def write(small: nn.Module, task: rs.Task, folder: Path) -> None:
    write_model(Deployable(small, task, Seen(), {}), folder, "transformers")


def write_searched(task: rs.Task, folder: Path, **tables: Any) -> nn.Module:
    """The smallest model of a search, which is in the folder `small`, too."""
    needed = {
        "study": {"name": "s", "trials": 4},
        "task": {"factory": "(in memory)"},
        "search": {"objectives": ["distance", "params"]},
        "training": {"epochs": 0},
        "folder": folder,
    }
    found = rs.run_study(rs.Study.model_validate(needed | tables), task=task)
    number = min(found.front, key=lambda row: row.measurements["params"]).number
    with rs.Store.open(found.store) as store:
        rs.export_trial(store, "s", number, folder / "small", "transformers", task=task)
        return rs.build_model(store, "s", number, task)


def once_each(make: Callable[[str, Path], _Made]) -> Any:
    """A fixture: what is made of a case in a folder, made once."""

    @pytest.fixture(scope="module")
    def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], _Made]:
        return functools.cache(lambda case: make(case, tmp_path_factory.mktemp(case)))

    return made


def of_each(cases: Iterable[str]) -> Any:
    """A fixture: what `made` gives, of one case after the other."""

    @pytest.fixture(params=list(cases))
    def written(request: pytest.FixtureRequest, made: Callable[[str], Any]) -> Any:
        return made(request.param)

    return written
