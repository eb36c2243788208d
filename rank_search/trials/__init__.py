"""One trial: factorize, fine-tune, code, decode, measure."""

from rank_search.trials.batchnorm import reestimate_batchnorm
from rank_search.trials.coding import decode, encode
from rank_search.trials.effort import Diverged, Stop
from rank_search.trials.limits import memory_limited
from rank_search.trials.measure import measure, measure_latency, test_measurements, threads
from rank_search.trials.penalties import orthogonality, soft_orthogonality, srip
from rank_search.trials.rate import Quantizer, laplace_bits
from rank_search.trials.rehearsal import rehearse
from rank_search.trials.settings import LatencySettings, TrainingSettings
from rank_search.trials.task import Batch, Supervised, Task, asked, error_rate
from rank_search.trials.tensors import from_safetensors, to_safetensors
from rank_search.trials.training import fine_tune
from rank_search.trials.trial import ENTROPY, ORTHOGONALITY, dense_measurements, run_trial
from rank_search.trials.workbench import Workbench, build

__all__ = [
    "ENTROPY",
    "ORTHOGONALITY",
    "Batch",
    "Diverged",
    "LatencySettings",
    "Quantizer",
    "Stop",
    "Supervised",
    "Task",
    "TrainingSettings",
    "Workbench",
    "asked",
    "build",
    "decode",
    "dense_measurements",
    "encode",
    "error_rate",
    "fine_tune",
    "from_safetensors",
    "laplace_bits",
    "measure",
    "measure_latency",
    "memory_limited",
    "orthogonality",
    "reestimate_batchnorm",
    "rehearse",
    "run_trial",
    "soft_orthogonality",
    "srip",
    "test_measurements",
    "threads",
    "to_safetensors",
]
