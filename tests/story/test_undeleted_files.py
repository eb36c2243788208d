"""Files that no trial needs any longer are gone when the search is, though deleting them did not work at once."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

import rank_search as rs
from rank_search.artifacts import ArtifactStore
from rank_search.errors import ArtifactError
from rank_search.store import Store
from tests.story.stripes import batches, network


def _searched(folder: Path) -> tuple[set[str], set[str]]:
    """The files of a small search in which members of the front are beaten, and those that its trials know."""
    train, selection = batches(80, 1), batches(80, 2)
    ladder = {"dense": True, "allocations": 0, "fractions": [0.9, 0.7, 0.5, 0.3]}
    rs.compress(
        network(),
        train=train,
        selection=selection,
        trials=5,
        name="left",
        store=folder / "left.sqlite",
        search={"objectives": ("error", "bits"), "seeds": ladder},
        training={"epochs": 0},
    )
    with Store.open(folder / "left.sqlite") as store:
        rows = store.trials(store.study("left"))
    (kept,) = (folder / "left.artifacts").iterdir()
    return set(ArtifactStore(kept).names()), {each.location for row in rows for each in row.artifacts}


def test_what_could_not_be_deleted_at_once_is_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    discard, refused = ArtifactStore.discard, set[str]()

    def once(self: ArtifactStore, name: str) -> bool:
        if name in refused:
            return discard(self, name)
        refused.add(name)
        raise ArtifactError("out of reach")

    monkeypatch.setattr(ArtifactStore, "discard", once)
    there, known = _searched(tmp_path)
    assert refused - known
    assert there == known


def test_where_nothing_can_be_deleted_the_search_succeeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def never(self: ArtifactStore, name: str) -> bool:
        raise ArtifactError("no right to delete")

    monkeypatch.setattr(ArtifactStore, "discard", never)
    with caplog.at_level(logging.WARNING):
        there, known = _searched(tmp_path)
    assert there > known
    assert "no right to delete" in caplog.text
