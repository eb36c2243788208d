"""The checkpoint that a trial goes on from: read, and proved to be its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rank_search.artifacts import ArtifactStore
from rank_search.errors import ArtifactError, CheckpointError
from rank_search.point import Artifact
from rank_search.quantization import CodingSettings
from rank_search.training import Checkpoint, TrainingSettings


def read_checkpoint(
    artifacts: ArtifactStore | None, checkpoint: Artifact, trial: Mapping[str, Any], budget: float
) -> Checkpoint:
    """The checkpoint, if it is of this trial, and not past the budget.

    Raises:
        CheckpointError: it is not.
        ArtifactError: it cannot be read.
    """
    if artifacts is None:
        raise ArtifactError("No artifact store was given to read the checkpoint from; pass the study's.")
    found = Checkpoint.from_bytes(artifacts.read(checkpoint))
    # A key that was not there yet when the checkpoint was left counts as its default.
    defaults = {"training": TrainingSettings().model_dump(), "coding": CodingSettings().model_dump()}
    about = {**found.about} | {name: each | found.about.get(name, {}) for name, each in defaults.items()}
    if any(about.get(key) != value for key, value in trial.items()):
        raise CheckpointError(
            f"The checkpoint {checkpoint.location} is of another point, another rng seed or other training settings "
            "than this trial. Start the trial over."
        )
    if found.about["epochs"] > budget:
        raise CheckpointError(
            f"The checkpoint {checkpoint.location} was left after {found.about['epochs']:g} epochs, and {budget:g} are "
            "asked for: a trial goes on to a larger budget only. Start the trial over."
        )
    return found
