"""Where importances are learned without being asked for, and where not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import rank_search as rs
from rank_search.errors import TaskError
from rank_search.run import prepare, run_study, worthwhile
from rank_search.study import Study
from rank_search.tasks import LanguageModel, Supervised, Task


class Deep(nn.Module):
    """So many layers, without gradients if asked for, and a head."""

    def __init__(self, layers: int, has_gradients: bool = True) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.layers = nn.ModuleList(nn.Linear(12, 12) for _ in range(layers))
            self.head = nn.Linear(12, 12)
        self.has_gradients = has_gradients

    def forward(self, x: Tensor) -> Tensor:
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.has_gradients):
            for layer in self.layers:
                x = torch.relu(layer(x)) + x
        return self.head(x)  # type: ignore[no-any-return]


def task(layers: int = 12, selection: int = 100, training: int = 1, has_gradients: bool = True) -> Supervised:
    """With batches of four inputs: learning looks at 3·3·20 of them."""
    drawn = torch.Generator().manual_seed(1)

    def batches(count: int) -> list[Any]:
        return [(torch.randn(4, 12, generator=drawn), torch.arange(4)) for _ in range(count)]

    return Supervised(Deep(layers, has_gradients), batches(training), batches(selection))


class Strangers(Task):
    """The same, written by somebody else: it is not known what the outputs are."""

    def __init__(self, inner: Supervised) -> None:
        self.network, self.inner = inner.network, inner

    def model(self) -> nn.Module:
        return self.network

    def example(self) -> Any:
        return self.inner.example()

    def training(self) -> Any:
        return self.inner.training()

    def selection(self) -> Any:
        return self.inner.selection()

    def test(self) -> None:
        return None

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        return self.inner.loss(model, batch)

    def evaluate(self, model: nn.Module, batches: Any) -> Any:
        return self.inner.evaluate(model, batches)


def learned(
    folder: Path,
    made: Supervised | Strangers,
    caplog: pytest.LogCaptureFixture,
    epochs: float = 0,
    **tables: dict[str, Any],
) -> bool:
    caplog.clear()
    caplog.set_level("INFO", "rank_search")
    layers = {"factorizations": ["svd"], "exclude": ["head"]}
    about = {
        "study": {"name": "deep", "cache": str(folder)},
        "task": {"factory": "here.py:task"},
        "layers": layers,
        "training": {"epochs": epochs},
    }
    prepared = prepare(Study.model_validate({"search": {"objectives": ["error", "macs"]}, **about, **tables}), made)
    assert prepared.options is None or len(prepared.options.of) == len(made.network.layers)  # type: ignore[arg-type]
    return any(each.getMessage().startswith("Importances, 3 of 3") for each in caplog.records)


def test_they_are_learned_where_there_are_many_layers_and_inputs(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert learned(tmp_path, task(), caplog)


class Reader(nn.Module):
    """The same layers between tokens and their logits."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.tokens, self.inner = nn.Embedding(12, 12), Deep(12)

    def forward(self, ids: Tensor) -> Tensor:
        return self.inner(self.tokens(ids))  # type: ignore[no-any-return]


def test_they_are_learned_of_a_language_model(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tokens = torch.randint(12, (40 * 8,), generator=torch.Generator().manual_seed(2))
    made = LanguageModel(Reader(), tokens, tokens, length=8, windows=2)
    caplog.set_level("INFO", "rank_search")
    about = {"study": {"name": "deep", "cache": str(tmp_path)}, "task": {"factory": "here.py:task"}}
    about |= {"layers": {"factorizations": ["svd"], "include": ["inner.layers.*"]}, "training": {"epochs": 0}}
    prepared = prepare(Study.model_validate({**about, "search": {"objectives": ["nats", "macs"]}}), made)
    assert prepared.options is not None
    assert any(each.getMessage().startswith("Importances, 3 of 3") for each in caplog.records)


@pytest.mark.parametrize(
    ("made", "tables"),
    [
        (task(layers=11), {}),
        (task(selection=17), {}),
        (task(), {"priors": {"importances": 0}}),
        (task(), {"priors": {"cuts": 1}}),
        (task(), {"priors": {"metric": "loss"}}),
        (task(), {"priors": {"calibration": 0}}),
        (task(), {"search": {"objectives": ["error", "macs"], "sampler": "continuous"}}),
        (task(), {"data": {"labels": False}, "search": {"objectives": ["disagreement", "macs"]}}),
        (Strangers(task()), {}),
    ],
)
def test_elsewhere_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, made: Supervised | Strangers, tables: dict[str, Any]
) -> None:
    assert not learned(tmp_path, made, caplog, **tables)


def test_trainings_of_trials_count_as_three_times_their_inputs(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A tenth of 180 batches is 18: 3 of the selection, and 5 that are trained on."""
    assert learned(tmp_path, task(selection=3, training=5), caplog, epochs=1)
    assert not learned(tmp_path, task(selection=3, training=4), caplog, epochs=1)


@pytest.mark.parametrize(("name", "most"), [("MACS", 180 * 4 * 13 * 144), ("MEMORY", 4 * 12 * 144 * 2)])
def test_time_and_memory_have_an_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, name: str, most: int
) -> None:
    """Twelve layers of 144 weights, each of two forms at least."""
    monkeypatch.setattr(worthwhile, name, most - 1)
    assert not learned(tmp_path, task(), caplog)
    monkeypatch.setattr(worthwhile, name, 100 * most)
    assert learned(tmp_path, task(), caplog)


def test_a_network_without_gradients_keeps_its_errors_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert not learned(tmp_path, task(has_gradients=False), caplog)
    assert "Each layer's errors count as they are, since their importances cannot be learned" in caplog.text
    with pytest.raises(TaskError, match="outputs have no gradient"):
        learned(tmp_path, task(has_gradients=False), caplog, priors={"importances": 3})


def test_a_confirmation_learns_none_since_its_points_are_known(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store, made = f"sqlite:///{tmp_path / 'deep.sqlite'}", task(selection=3, training=5)
    tables = {"task": {"factory": "here.py:task"}, "study": {"name": "deep", "cache": str(tmp_path), "trials": 1}}
    given = Study.model_validate({**tables, "search": {"objectives": ["error", "macs"]}, "training": {"epochs": 0}})
    run_study(given, task=made, store=store)
    caplog.set_level("INFO", "rank_search")
    assert rs.confirm(store, "deep", epochs=1, task=made).added == 1
    assert "Importances" not in caplog.text
