"""The files of trials: kept under a digest, in a folder or on a server."""

from __future__ import annotations

from rank_search.artifacts.artifact_store import ArtifactStore, Tenant, artifacts_at
from rank_search.artifacts.recoveries import RECOVERY, Recoveries, Recovery, recoveries_of

__all__ = [
    "RECOVERY",
    "ArtifactStore",
    "Recoveries",
    "Recovery",
    "Tenant",
    "artifacts_at",
    "recoveries_of",
]
