"""The files of trials: kept under a digest, in a folder or on a server."""

from __future__ import annotations

from rank_search.artifacts.artifact_store import ArtifactStore, Tenant, artifacts_at

__all__ = [
    "ArtifactStore",
    "Tenant",
    "artifacts_at",
]
