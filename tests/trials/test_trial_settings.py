from __future__ import annotations

import pytest
from pydantic import BaseModel, ValidationError

from rank_search.training import TrainingSettings
from rank_search.trials import LatencySettings


@pytest.mark.parametrize("settings", [TrainingSettings, LatencySettings])
def test_every_key_of_the_training_settings_has_a_default_and_a_description(settings: type[BaseModel]) -> None:
    settings()
    assert all(field.description for field in settings.model_fields.values())


@pytest.mark.parametrize(
    "bad",
    [
        {"epoch": 1},
        {"epochs": -1},
        {"epochs": float("inf")},
        {"optimizer": "lion"},
        {"learning_rate": 0},
        {"momentum": 1},
        {"gradient_clip": 0},
        {"orthogonality_penalty": "hard"},
        {"entropy_start_bits": 0.5},
        {"entropy_warmup": 2},
        {"schedule": "step"},
        {"warmup": 1.1},
        {"batchnorm_batches": -1},
        {"batchnorm_batches": 1.5},
        {"distillation": 1.1},
        {"average": 1},
        {"weight_decay_on": "frames"},
        {"orthogonality_decay": 1.1},
        {"distillation_temperature": 0},
    ],
)
def test_impossible_training_is_refused(bad: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        TrainingSettings.model_validate(bad)


def test_training_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        TrainingSettings().epochs = 2.0  # type: ignore[misc]


@pytest.mark.parametrize(
    ("given", "batches"),
    [
        ({"epochs": 0}, 16),
        ({"epochs": 9.9}, 16),
        ({"epochs": 10}, None),
        ({"epochs": 60, "batchnorm_batches": 2}, 2),
        ({"epochs": 0, "batchnorm_batches": 0}, 0),
    ],
)
def test_long_trainings_take_batch_norm_statistics_of_a_whole_pass(
    given: dict[str, float], batches: int | None
) -> None:
    assert TrainingSettings.model_validate(given).norm_batches == batches
