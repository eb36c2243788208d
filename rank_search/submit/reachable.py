"""Where results go: what is to outlive the job has a place that means the same on the cluster, and no secret."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from rank_search.basics import has_credentials
from rank_search.errors import LaunchError
from rank_search.store import locate
from rank_search.study import Study

STORE_VARIABLE: Final = "RANK_SEARCH_STORE"


def check_places(study: Study, store: str | None) -> None:
    """Check the places in a study file, and the store given instead of the file's.

    Raises:
        StoreError: the store is neither an SQLite file nor a PostgreSQL database.
        LaunchError: a place is within the job's own folder, or a URL has a password.
    """
    for where, value in (("[study] store", study.study.store), ("--store", store or "")):
        if value:
            _refuse_secret(where, value)
    _refuse_secret("[study] artifacts", study.study.artifacts)
    chosen = store or study.study.store
    _check_artifacts(study.study.artifacts, needed=not (chosen and _is_on_head(chosen)))


def _is_on_head(store: str) -> bool:
    """Whether it is an SQLite file, which then lies on the head node, with the files of trials beside it."""
    url = locate(store)
    if url.get_backend_name() != "sqlite":
        return False
    if not Path(str(url.database)).is_absolute():
        raise LaunchError(
            f"The store {store!r} would be in the job's folder, which is temporary; on a cluster it is a server or an "
            "absolute path. Give --store postgresql://USER@HOST/DATABASE, or the absolute path of an SQLite file on "
            "the head node."
        )
    return True


def _check_artifacts(place: str, needed: bool) -> None:
    if (not place and needed) or (place and "://" not in place and not Path(place).is_absolute()):
        found = f"{place!r} in [study] artifacts is" if place else "Without [study] artifacts the files of trials are"
        raise LaunchError(
            f"{found} in the job's folder, which is temporary; they go to a URL or to an absolute path. "
            "Give s3://BUCKET/FOLDER, or a folder that every node has at the same path."
        )


def _refuse_secret(where: str, value: str) -> None:
    if has_credentials(value):
        raise LaunchError(
            f"The URL in {where} holds a password, and everybody who sees Ray's dashboard sees a job's command and "
            "files. Leave it out, and give it on the head node: in ~/.pgpass, in PGPASSFILE or PGPASSWORD, or as "
            f"the whole URL in {STORE_VARIABLE} (for s3:// in the AWS_ variables, on every node). See docs/cluster.md."
        )
