"""How a trial trains: losses, penalties, schedules, checkpoints."""

from __future__ import annotations

from rank_search.training.checkpoint import Checkpoint
from rank_search.training.fine_tuning import Diverged, Effort, EntropyPenalty
from rank_search.training.latent_rounding import round_latents
from rank_search.training.preflight import rehearse, rehearse_test
from rank_search.training.settings import OverparameterizedSettings, TrainingSettings
from rank_search.training.tensors import from_safetensors, to_safetensors
from rank_search.training.training import MODEL, Training, fine_tune

__all__ = [
    "MODEL",
    "Checkpoint",
    "Diverged",
    "Effort",
    "EntropyPenalty",
    "OverparameterizedSettings",
    "Training",
    "TrainingSettings",
    "fine_tune",
    "from_safetensors",
    "rehearse",
    "rehearse_test",
    "round_latents",
    "to_safetensors",
]
