"""The task of studies/stories.toml, on random tokens and random weights."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import rank_search as rs
from tests.study.study_modules import STUDIES, study_module


@pytest.fixture
def study() -> Iterator[ModuleType]:
    with study_module("stories") as module:
        yield module


@pytest.fixture
def task(study: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> rs.Supervised:
    """Ten windows of 12 tokens, and one token too few for another."""
    monkeypatch.setattr(study, "HERE", tmp_path)
    torch.manual_seed(0)
    save_file(study.Llama().state_dict(), tmp_path / "weights.safetensors")
    np.savez(tmp_path / "text.npz", ids=np.random.default_rng(0).integers(0, 512, 132, dtype=np.uint16))
    made = study.task("text.npz", "weights.safetensors", length=12, training=5, selection=3, batch=2)
    assert isinstance(made, rs.Supervised)
    return made


def attended(study: ModuleType, layer: torch.nn.Module, x: Tensor) -> Tensor:
    """One head, one position and one pair of values at a time; x is time × 64."""
    queries, keys, values = (getattr(layer, name)(x) for name in ("wq", "wk", "wv"))

    def turned(row: Tensor, position: int) -> Tensor:
        out = []
        for pair in range(4):
            number = torch.complex(row[2 * pair], row[2 * pair + 1])
            angle = torch.tensor(position / 10000 ** (pair / 4))
            number = number * torch.polar(torch.tensor(1.0), angle)
            out += [number.real, number.imag]
        return torch.stack(out)

    rows = []
    for now in range(len(x)):
        heads = []
        for head in range(8):
            query = turned(queries[now, 8 * head : 8 * head + 8], now)
            part = slice(8 * (head // 2), 8 * (head // 2) + 8)
            scores = torch.stack([query @ turned(keys[then, part], then) for then in range(now + 1)]) / 8**0.5
            heads.append(scores.softmax(0) @ values[: now + 1, part])
        rows.append(torch.cat(heads))
    return layer.wo(torch.stack(rows))  # type: ignore[operator, no-any-return]


@torch.no_grad()
def test_attention_is_that_of_its_definition(study: ModuleType) -> None:
    torch.manual_seed(1)
    layer, x = study.Attention(), torch.randn(7, 64)
    torch.testing.assert_close(layer(x[None])[0], attended(study, layer, x), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_the_network_is_causal_and_has_the_parameters_of_the_file(study: ModuleType, task: rs.Supervised) -> None:
    assert sum(each.numel() for each in task.network.parameters()) == 260_032
    tokens = torch.arange(20)[None]
    changed = tokens.clone()
    changed[0, 12] = 300
    before, after = task.network(tokens), task.network(changed)
    assert before.shape == (1, 20, 512)
    torch.testing.assert_close(before[:, :12], after[:, :12])
    assert not torch.allclose(before[:, 12:], after[:, 12:])


def test_windows_follow_one_another_and_each_target_is_the_next_token(task: rs.Supervised, tmp_path: Path) -> None:
    ids = torch.from_numpy(np.load(tmp_path / "text.npz")["ids"].astype(np.int64))
    splits = [list(part) for part in (task.training_batches, task.selection(), task.test() or ())]
    assert [[len(inputs) for inputs, _ in part] for part in splits] == [[2, 2, 1], [2, 1], [2]]
    torch.manual_seed(3)
    order = torch.randperm(5)
    torch.manual_seed(3)
    inputs, targets = (torch.cat(each) for each in zip(*task.training(), strict=True))
    for place, number in enumerate(order.tolist()):
        assert torch.equal(inputs[place], ids[12 * number : 12 * number + 12])
        assert torch.equal(targets[place], ids[12 * number + 1 : 12 * number + 13])
    first, _ = splits[1][0]
    assert torch.equal(first[0], ids[60:72])


@torch.no_grad()
def test_nats_are_those_of_every_token(task: rs.Supervised) -> None:
    pairs = list(task.selection())
    wanted = []
    for inputs, targets in pairs:
        for logits, aims in zip(task.network(inputs), targets, strict=True):
            wanted += [-float(row.softmax(-1)[aim].log()) for row, aim in zip(logits, aims, strict=True)]
    found = task.evaluate(task.network, pairs)
    assert found["nats"] == pytest.approx(sum(wanted) / len(wanted), rel=1e-4)


def test_the_study_file_is_read() -> None:
    loaded = rs.load_study(STUDIES / "stories.toml")
    assert loaded.priors.metric == "loss"
    assert [each.name for each in loaded.search.objectives] == ["nats", "params"]
