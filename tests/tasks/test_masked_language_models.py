"""Masked language models from token ids, against loops over hidden tokens."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import rank_search as rs
from rank_search.errors import TaskError
from rank_search.tasks import seeded, task_measurements
from rank_search.tasks.hidden_tokens import NOT_HIDDEN, with_hidden
from tests.pretrained_models import WORDS, pretrained, token_ids

MASK = 2


class Around(nn.Module):
    """Predicts a token from all that are around it."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.inner, self.head = nn.Embedding(WORDS, 16), nn.Linear(16, 32), nn.Linear(32, WORDS)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.table(ids)
        return self.head(torch.tanh(self.inner(x + x.mean(1, keepdim=True))))  # type: ignore[no-any-return]


def made(network: nn.Module, **changed: Any) -> rs.LanguageModel:
    text = {f"{name}_tokens": token_ids(1, 60, seed)[0] for seed, name in enumerate(("training", "selection", "test"))}
    return rs.LanguageModel(**{"network": network, **text, "length": 9, "windows": 4, "mask_token": MASK, **changed})


def plain(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return Around().eval()


def bert(seed: int) -> nn.Module:
    model, _ = pretrained("bert")
    torch.manual_seed(seed)
    with torch.no_grad():
        for each in model.parameters():
            each.add_(0.3 * torch.randn_like(each))
    return model


def logits(model: nn.Module, window: Tensor) -> Tensor:
    found = model(window[None])
    return (found if isinstance(found, Tensor) else found.logits)[0].double().log_softmax(-1)  # type: ignore[no-any-return]


@pytest.mark.parametrize("make", [plain, bert])
@torch.no_grad()
def test_nats_and_kl_are_those_of_a_loop_over_hidden_tokens(make: Any) -> None:
    task, other = made(make(0), masked=0.3), make(1)
    nats, kl, seen = [], [], []
    for hidden, _ in task.selection():
        seen += list(hidden)
    text = task.selection_tokens
    for number, window in enumerate(seen):
        ours, dense = logits(other, window), logits(task.network, window)
        for place in range(9):
            if window[place] == MASK:
                nats.append(-float(ours[place, text[9 * number + place]]))
                kl.append(float((dense[place].exp() * (dense[place] - ours[place])).sum()))
            else:
                assert window[place] == text[9 * number + place]
    assert len(nats) == 6 * 3
    found = task_measurements(task, other, task.selection(), "selection data")
    assert found["nats"] == pytest.approx(sum(nats) / len(nats), rel=1e-5)
    assert found["perplexity"] == pytest.approx(math.exp(found["nats"]))
    assert found["kl"] == pytest.approx(sum(kl) / len(kl), rel=1e-4)
    assert task_measurements(task, task.network, task.selection(), "selection data")["kl"] == pytest.approx(0, abs=1e-9)


def test_what_is_hidden_is_the_same_in_every_measurement_and_drawn_anew_in_training() -> None:
    task = made(plain(0))
    for part in (task.selection, task.test):
        first, again = (list(part() or ()) for _ in range(2))
        for one, other in zip(first, again, strict=True):
            assert [each.tolist() for each in one] == [each.tolist() for each in other]
    passes = []
    for seed in (0, 0, 1):
        with seeded(seed):
            passes.append(torch.cat([hidden for hidden, _ in task.training()]))
    assert torch.equal(passes[0], passes[1])
    with seeded(0):
        anew = [torch.cat([hidden for hidden, _ in task.training()]) for _ in range(2)]
    assert not torch.equal(*[each.eq(MASK) for each in anew])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 4), st.integers(1, 12), st.floats(0.01, 1.0), st.integers(0, 5))
def test_hidden_tokens_and_targets_make_the_windows(count: int, length: int, share: float, seed: int) -> None:
    windows = token_ids(count, length, seed)
    hidden, targets = with_hidden(windows, MASK, share, torch.Generator().manual_seed(seed))
    is_hidden = hidden == MASK
    assert is_hidden.sum(1).tolist() == [max(1, round(share * length))] * count
    assert torch.equal(torch.where(is_hidden, targets, hidden), windows)
    assert bool((targets[~is_hidden] == NOT_HIDDEN).all())


@torch.no_grad()
def test_the_loss_and_its_distillation_look_at_hidden_tokens_alone() -> None:
    task, other = made(plain(0)), plain(1)
    hidden, targets = next(iter(task.selection()))
    places = (hidden == MASK).nonzero().tolist()
    ours, dense = (
        torch.stack([logits(each, hidden[row])[place] for row, place in places]) for each in (other, task.network)
    )
    loss = -torch.stack([ours[number, targets[row, place]] for number, (row, place) in enumerate(places)]).mean()
    far = (dense.exp() * (dense - ours)).sum(-1).mean()
    batch = (hidden, targets)
    assert float(task.loss(other, batch)) == pytest.approx(float(loss), rel=1e-5)
    blended = task.distilled_loss(other, task.network, batch, 0.25, 1.0)
    assert float(blended) == pytest.approx(float(0.75 * loss + 0.25 * far), rel=1e-4)


def test_a_masked_model_is_searched_packed_and_loaded(tmp_path: Path) -> None:
    task = made(bert(0))
    tables = {
        "study": {"name": "mlm", "trials": 3, "store": str(tmp_path / "mlm.sqlite")},
        "task": {"factory": "(in memory)"},
        "search": {"objectives": ["nats", "params"]},
        "training": {"epochs": 1, "distillation": 0.5},
        "folder": tmp_path,
    }
    result = rs.run_study(rs.Study.model_validate(tables), task=task)
    with rs.Store.open(result.store) as store, torch.no_grad():
        small = rs.build_model(store, "mlm", result.front[-1].number, task)
        rs.pack_trial(store, "mlm", result.front[-1].number, tmp_path / "small.rsz", task=task)
        ids = token_ids(3, 9, seed=5)
        found = rs.load(tmp_path / "small.rsz")(input_ids=ids)["logits"]
        torch.testing.assert_close(found, small(ids).logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("share", [0.0, -0.1, 1.5, math.nan])
def test_a_share_of_hidden_tokens_that_is_none_is_refused(share: float) -> None:
    with pytest.raises(TaskError, match="masked lies above 0 and is at most 1"):
        made(plain(0), masked=share)
