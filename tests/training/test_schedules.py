"""Learning rates from step to step."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from rank_search.tasks import Supervised
from rank_search.training import FineTuning, TrainingSettings, fine_tune
from rank_search.training.schedules import rate_factor, relaxed


def factors(total: int, **given: Any) -> list[float]:
    settings = TrainingSettings.model_validate(given)
    return [rate_factor(settings, step, total) for step in range(total)]


def test_cosine_schedule_without_a_warm_up_is_that_of_torch() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)
    for found in factors(10):
        assert found == pytest.approx(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()


def test_one_cycle_rises_from_a_25th_to_the_peak_and_falls_to_a_10000th() -> None:
    found = factors(100, schedule="one-cycle")
    assert found[0] == pytest.approx(1 / 25)
    assert found[15] == pytest.approx((1 / 25 + 1) / 2)
    assert found[30] == 1
    assert found[65] == pytest.approx((1 + 1e-4) / 2)
    assert 1e-4 < found[99] < 1e-4 + (math.pi / 70) ** 2 / 4
    assert factors(100, schedule="one-cycle", warmup=0.3) == found


def test_warm_up_is_linear_and_the_rest_as_without_it() -> None:
    assert factors(8, schedule="constant", warmup=0.5) == [0.25, 0.5, 0.75, 1, 1, 1, 1, 1]
    assert factors(8, warmup=0.5) == [0.25, 0.5, 0.75, 1, *factors(4)]
    assert factors(4, schedule="one-cycle", warmup=0)[0] == 1
    assert factors(4, warmup=1) == [0.25, 0.5, 0.75, 1]


@given(st.integers(1, 60), st.sampled_from(["cosine", "one-cycle", "constant"]), st.none() | st.floats(0, 1))
def test_rate_factors_are_above_zero_and_rise_before_they_fall(total: int, schedule: str, warmup: float | None) -> None:
    found = factors(total, schedule=schedule, warmup=warmup)
    assert all(0 < factor <= 1 for factor in found)
    top = found.index(max(found))
    assert found[: top + 1] == sorted(found[: top + 1])
    assert found[top:] == sorted(found[top:], reverse=True)


@given(st.integers(1, 60), st.floats(0, 1))
def test_orthogonality_share_stays_and_then_falls_on_a_line_to_zero(total: int, decay: float) -> None:
    settings, start = TrainingSettings(orthogonality_decay=decay), decay * total
    for step in range(total):
        expected = 1.0 if step <= start else 1 - (step - start) / (total - start)
        assert relaxed(settings, step, total) == pytest.approx(expected)
        assert 0 < relaxed(settings, step, total) <= 1


def test_orthogonality_share_never_falls_unless_asked() -> None:
    assert {relaxed(TrainingSettings(), step, 7) for step in range(7)} == {1.0}


def test_weights_move_in_proportion_to_the_rate_factors() -> None:
    model, batch = nn.Linear(1, 1, bias=False), (torch.ones(1, 1), torch.zeros(1))
    seen: list[float] = []

    def slope_of_one(outputs: Tensor, targets: Tensor) -> Tensor:
        seen.append(float(outputs.detach()))
        return outputs.sum()

    task = Supervised(model, [batch], [batch], [batch], slope_of_one)
    settings = TrainingSettings(epochs=9, optimizer="sgd", momentum=0, learning_rate=0.5, schedule="one-cycle")
    fine_tune(task, model, FineTuning(settings))
    moved = [before - after for before, after in zip(seen, [*seen[1:], float(model.weight.detach())], strict=True)]
    assert moved == pytest.approx([0.5 * factor for factor in factors(9, schedule="one-cycle")], abs=1e-6)
