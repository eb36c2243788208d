"""One trial: factorize, fine-tune, code, decode, measure."""

from rank_search.trials.batchnorm import reestimate_batchnorm
from rank_search.trials.calibration import input_moments, patches
from rank_search.trials.densities import laplace_bits, logistic_bits
from rank_search.trials.effort import Diverged
from rank_search.trials.examples import selection_examples
from rank_search.trials.forms import form_ratio
from rank_search.trials.latency import LATENCY, LATENCY_RATIO, measure_latency, measure_latency_ratio, threads
from rank_search.trials.limits import memory_limited
from rank_search.trials.measure import measure, on_test, test_measurements
from rank_search.trials.penalties import (
    double_soft_orthogonality,
    frobenius,
    mutual_coherence,
    orthogonality,
    soft_orthogonality,
    srip,
)
from rank_search.trials.randomness import seeded
from rank_search.trials.rate import Quantizer
from rank_search.trials.rehearsal import rehearse, rehearse_test
from rank_search.trials.settings import CodingSettings, LatencySettings, OverparameterizedSettings, TrainingSettings
from rank_search.trials.stop import Stop
from rank_search.trials.supervised import Supervised, error_rate, teacher_distance
from rank_search.trials.task import Batch, Task, asked, has_test
from rank_search.trials.tensors import from_safetensors, to_safetensors
from rank_search.trials.training import fine_tune
from rank_search.trials.trial import ENTROPY, ORTHOGONALITY, dense_measurements, run_trial
from rank_search.trials.workbench import Workbench, build

__all__ = [
    "ENTROPY",
    "LATENCY",
    "LATENCY_RATIO",
    "ORTHOGONALITY",
    "Batch",
    "CodingSettings",
    "Diverged",
    "LatencySettings",
    "OverparameterizedSettings",
    "Quantizer",
    "Stop",
    "Supervised",
    "Task",
    "TrainingSettings",
    "Workbench",
    "asked",
    "build",
    "dense_measurements",
    "double_soft_orthogonality",
    "error_rate",
    "fine_tune",
    "form_ratio",
    "frobenius",
    "from_safetensors",
    "has_test",
    "input_moments",
    "laplace_bits",
    "logistic_bits",
    "measure",
    "measure_latency",
    "measure_latency_ratio",
    "memory_limited",
    "mutual_coherence",
    "on_test",
    "orthogonality",
    "patches",
    "reestimate_batchnorm",
    "rehearse",
    "rehearse_test",
    "run_trial",
    "seeded",
    "selection_examples",
    "soft_orthogonality",
    "srip",
    "teacher_distance",
    "test_measurements",
    "threads",
    "to_safetensors",
]
