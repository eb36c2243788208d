"""One trial: factorize, fine-tune, code, decode, measure."""

from rank_search.trials.artifacts import from_safetensors, read_artifact, to_safetensors, write_artifact
from rank_search.trials.coding import decode, encode
from rank_search.trials.measure import measure, measure_latency, test_measurements, threads
from rank_search.trials.penalties import orthogonality, soft_orthogonality, srip
from rank_search.trials.rate import Quantizer, laplace_bits
from rank_search.trials.rehearsal import rehearse
from rank_search.trials.settings import LatencySettings, TrainingSettings
from rank_search.trials.task import Batch, Supervised, Task, asked, error_rate
from rank_search.trials.training import Diverged, Stop, fine_tune, reestimate_batchnorm
from rank_search.trials.trial import ENTROPY, ORTHOGONALITY, Workbench, build, dense_measurements, run_trial

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
    "orthogonality",
    "read_artifact",
    "reestimate_batchnorm",
    "rehearse",
    "run_trial",
    "soft_orthogonality",
    "srip",
    "test_measurements",
    "threads",
    "to_safetensors",
    "write_artifact",
]
