"""How a trial trains: losses, penalties, schedules, checkpoints."""

from __future__ import annotations

from rank_search.training.checkpoint import Checkpoint
from rank_search.training.fine_tuning import Diverged, EntropyPenalty, FineTuning, SparsityPenalty
from rank_search.training.keeping import Keep, Keeping, software
from rank_search.training.latent_rounding import round_latents
from rank_search.training.preflight import check_sampled, check_task, check_test
from rank_search.training.settings import OverparameterizedSettings, TrainingSettings
from rank_search.training.shrinking import balance_components
from rank_search.training.trainer import MODEL, Trainer, fine_tune

__all__ = [
    "MODEL",
    "Checkpoint",
    "Diverged",
    "EntropyPenalty",
    "FineTuning",
    "Keep",
    "Keeping",
    "OverparameterizedSettings",
    "SparsityPenalty",
    "Trainer",
    "TrainingSettings",
    "balance_components",
    "check_sampled",
    "check_task",
    "check_test",
    "fine_tune",
    "round_latents",
    "software",
]
