"""Language models from token ids, against loops over tokens."""

from __future__ import annotations

import math
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import rank_search as rs
from rank_search.errors import TaskError
from rank_search.tasks import seeded, task_measurements


class Plain(nn.Module):
    def __init__(self, size: int = 11) -> None:
        super().__init__()
        self.table, self.inner, self.head = nn.Embedding(size, 16), nn.Linear(16, 32), nn.Linear(32, size)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(torch.tanh(self.inner(self.table(ids).cumsum(1))))  # type: ignore[no-any-return]


class Named(Plain):
    """As Hugging Face's: by name, with a cache unless it is told not to, and outputs with names."""

    def forward(self, input_ids: Tensor, use_cache: bool = True) -> Any:  # type: ignore[override]
        logits = super().forward(input_ids)
        return OrderedDict(logits=logits, **({"past_key_values": object()} if use_cache else {}))


def tokens(count: int, seed: int) -> Tensor:
    return torch.randint(11, (count,), generator=torch.Generator().manual_seed(seed))


def made(kind: type[Plain] = Plain, **changed: Any) -> rs.LanguageModel:
    torch.manual_seed(0)
    given = {"network": kind().eval(), "training_tokens": tokens(100, 1), "selection_tokens": tokens(59, 2)}
    return rs.LanguageModel(**{**given, "test_tokens": tokens(20, 3), "length": 7, "windows": 3, **changed})


@pytest.mark.parametrize("kind", [Plain, Named])
def test_nats_and_kl_are_those_of_a_loop(kind: type[Plain]) -> None:
    task = made(kind)
    other = kind().eval()
    nats, kl = [], []
    for start in range(0, 56, 7):
        window = task.selection_tokens[start : start + 7][None]
        with torch.no_grad():
            ours = Plain.forward(other, window)[0].double().log_softmax(-1)
            dense = Plain.forward(task.network, window)[0].double().log_softmax(-1)
        nats += [-float(ours[place - 1, window[0, place]]) for place in range(1, 7)]
        kl += [float((dense[place].exp() * (dense[place] - ours[place])).sum()) for place in range(7)]
    found = task_measurements(task, other, task.selection(), "selection data")
    assert found["nats"] == pytest.approx(sum(nats) / len(nats), rel=1e-6)
    assert found["perplexity"] == pytest.approx(math.exp(found["nats"]))
    assert found["kl"] == pytest.approx(sum(kl) / len(kl), rel=1e-5)
    assert task_measurements(task, task.network, task.selection(), "selection data")["kl"] == pytest.approx(0, abs=1e-9)
    assert "kl" not in task_measurements(made(kind, compare=False), other, task.selection(), "selection data")


def test_training_takes_every_window_once_in_an_order_of_the_seed() -> None:
    task = made()
    passes = []
    for seed in (0, 0, 1):
        with seeded(seed):
            passes.append(torch.cat(list(task.training())))
    assert torch.equal(passes[0], passes[1])
    assert not torch.equal(passes[0], passes[2])
    windows = task.training_tokens[:98].reshape(14, 7)
    for found in passes:
        assert sorted(found.tolist()) == sorted(windows.tolist())


def test_the_loss_and_its_distillation() -> None:
    task, other = made(Named), Named().eval()
    batch = next(iter(task.selection()))
    ours, dense = (Plain.forward(each, batch) for each in (other, task.network))
    loss = F.cross_entropy(ours[:, :-1].reshape(-1, 11), batch[:, 1:].reshape(-1))
    torch.testing.assert_close(task.loss(other, batch), loss)
    far = (dense.softmax(-1) * (dense.log_softmax(-1) - ours.log_softmax(-1))).sum(-1).mean()
    blended = task.distilled_loss(other, task.network, batch, 0.25, 1.0)
    torch.testing.assert_close(blended, 0.75 * loss + 0.25 * far, rtol=1e-4, atol=1e-6)
    assert blended.requires_grad


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"network": "gpt2"}, r"network is str; pass an nn\.Module"),
        ({"selection_tokens": tokens(6, 1)}, r"selection_tokens is a Tensor of torch.int64 and shape \(6,\)"),
        ({"training_tokens": [1, 2, 3]}, "training_tokens is a list; token ids are whole numbers in one dimension"),
        ({"test_tokens": torch.rand(50)}, "test_tokens is a Tensor of torch.float32"),
        ({"length": 1}, "Windows of 1 tokens"),
    ],
)
def test_what_cannot_work_is_refused(changed: dict[str, Any], complaint: str) -> None:
    with pytest.raises(TaskError, match=complaint):
        made(**changed)


def test_a_model_of_other_outputs_is_refused() -> None:
    network = nn.Sequential(nn.Embedding(11, 4), nn.Flatten())
    task = made(network=network)
    with pytest.raises(TaskError, match="logits, batch × length × tokens, are expected"):
        task.loss(network, task.example())


def test_a_model_of_names_is_searched_exported_and_loaded(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    task = made(Named)
    tables = {
        "study": {"name": "lm", "trials": 3, "store": str(tmp_path / "lm.sqlite")},
        "task": {"factory": "(in memory)"},
        "search": {"objectives": ["nats", "params"]},
        "training": {"epochs": 0},
        "folder": tmp_path,
    }
    result = rs.run_study(rs.Study.model_validate(tables), task=task)
    assert "cannot be exported" not in caplog.text
    with rs.Store.open(result.store) as store:
        rs.export_trial(store, "lm", result.front[-1].number, tmp_path / "small", task=task, dynamic=["input_ids:1"])
    back = rs.load(tmp_path / "small")
    for length in (7, 13):
        found = back(input_ids=tokens(2 * length, 4).reshape(2, length))
        assert {*found} == {"logits"}
        assert found["logits"].shape == (2, length, 11)
