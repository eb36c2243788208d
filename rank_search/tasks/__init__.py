"""Step 2 of the data path: the user's model and data as a `Task`, and how both are handled."""

from __future__ import annotations

from rank_search.tasks.agreement import AGREEMENT, WORST_AGREEMENT, AgreementTask, OutputKind
from rank_search.tasks.agreement_sums import relative_error
from rank_search.tasks.batch import batch_dimension
from rank_search.tasks.batch_inputs import inputs_in
from rank_search.tasks.calibration import columns_seen, input_moments, moments_of_inputs, run_on, wide
from rank_search.tasks.calibration_pass import CalibrationPass, ForwardPass, LossPass
from rank_search.tasks.compared_classes import compares_classes
from rank_search.tasks.examples import selection_examples
from rank_search.tasks.gradients import MOST_OUTPUTS, LayerMoments, LossAlone, LossOf, loss_moments
from rank_search.tasks.language_model import LanguageModel
from rank_search.tasks.layer_error import LAYER_ERROR, WORST_LAYER_ERROR, LayerErrorTask
from rank_search.tasks.logits import logits_of, token_logits
from rank_search.tasks.mean_loss import mean_loss
from rank_search.tasks.modes import as_for_loss, is_lone
from rank_search.tasks.on_device import on_device, to_device, without_device
from rank_search.tasks.randomness import generators, seeded, set_generators
from rank_search.tasks.supervised import Supervised, error_rate, teacher_distance
from rank_search.tasks.task import (
    MEASURED_HERE,
    Batch,
    Task,
    checked_batches,
    has_test,
    has_training,
    known_count,
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
    "AGREEMENT",
    "LAYER_ERROR",
    "MEASURED_HERE",
    "MOST_OUTPUTS",
    "PLAIN",
    "WORST_AGREEMENT",
    "WORST_LAYER_ERROR",
    "AgreementTask",
    "Batch",
    "CalibrationPass",
    "ForwardPass",
    "Given",
    "LanguageModel",
    "LayerErrorTask",
    "LayerMoments",
    "LossAlone",
    "LossOf",
    "LossPass",
    "OutputKind",
    "Random",
    "Seen",
    "Supervised",
    "Task",
    "as_for_loss",
    "batch_dimension",
    "checked_batches",
    "columns_seen",
    "compares_classes",
    "error_rate",
    "generators",
    "has_test",
    "has_training",
    "input_moments",
    "inputs_in",
    "is_lone",
    "known_count",
    "leaves_of",
    "logits_of",
    "loss_moments",
    "mean_loss",
    "moments_of_inputs",
    "not_finite",
    "of_uses",
    "on_device",
    "relative_error",
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
    "to_device",
    "token_logits",
    "watched",
    "wide",
    "without_device",
]
