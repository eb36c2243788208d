"""Step 2 of the data path: the user's model and data as a `Task`, and how both are handled."""

from __future__ import annotations

from rank_search.tasks.batch_inputs import inputs_in
from rank_search.tasks.calibration import columns_seen, input_moments, moments_of_inputs, run_on, wide
from rank_search.tasks.calibration_pass import CalibrationPass, ForwardPass, LossPass
from rank_search.tasks.examples import selection_examples
from rank_search.tasks.gradients import MOST_OUTPUTS, LayerMoments, LossAlone, LossOf, loss_moments
from rank_search.tasks.language_model import LanguageModel
from rank_search.tasks.logits import logits_of
from rank_search.tasks.mean_loss import mean_loss
from rank_search.tasks.modes import as_for_loss, is_lone
from rank_search.tasks.randomness import generators, seeded, set_generators
from rank_search.tasks.supervised import Supervised, compares_classes, error_rate, teacher_distance
from rank_search.tasks.task import (
    Batch,
    Task,
    checked_batches,
    has_test,
    not_finite,
    task_distilled_loss,
    task_errors,
    task_loss,
    task_measurements,
    task_sampled_loss,
)
from rank_search.tasks.tied_moments import of_uses
from rank_search.tasks.watching import PLAIN, Given, Random, Seen, leaves_of, set_random_states, watched

__all__ = [
    "MOST_OUTPUTS",
    "PLAIN",
    "Batch",
    "CalibrationPass",
    "ForwardPass",
    "Given",
    "LanguageModel",
    "LayerMoments",
    "LossAlone",
    "LossOf",
    "LossPass",
    "Random",
    "Seen",
    "Supervised",
    "Task",
    "as_for_loss",
    "checked_batches",
    "columns_seen",
    "compares_classes",
    "error_rate",
    "generators",
    "has_test",
    "input_moments",
    "inputs_in",
    "is_lone",
    "leaves_of",
    "logits_of",
    "loss_moments",
    "mean_loss",
    "moments_of_inputs",
    "not_finite",
    "of_uses",
    "run_on",
    "seeded",
    "selection_examples",
    "set_generators",
    "set_random_states",
    "task_distilled_loss",
    "task_errors",
    "task_loss",
    "task_measurements",
    "task_sampled_loss",
    "teacher_distance",
    "watched",
    "wide",
]
