"""Recovery checkpoints: named after what they are, one at a time, found again by whoever has the same mark."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rank_search.artifacts import ArtifactStore, Recoveries, Recovery, Tenant, recoveries_of
from rank_search.errors import ArtifactError

KEY = "00ff" * 16
OTHER = "ff00" * 16


@pytest.fixture(params=["folder", "server"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "files") if request.param == "folder" else f"memory://{uuid4()}/files"


def test_the_one_before_goes_when_the_next_is_there(place: str) -> None:
    artifacts = ArtifactStore(place)
    recoveries = Recoveries(artifacts, KEY, "mark")
    for epochs in (0.5, 1.0, 1.5):
        recoveries.keep(str(epochs).encode(), 2, epochs)
        (name,) = artifacts.names()
        found = recoveries.newest(budget=9.0)
        assert found is not None
        recovery, artifact = found
        assert recovery == Recovery(name, KEY[:16], "mark", 2, epochs)
        assert artifacts.read(artifact) == str(epochs).encode()


def test_whoever_goes_on_replaces_what_it_went_on_from(place: str) -> None:
    artifacts = ArtifactStore(place)
    Recoveries(artifacts, KEY, "mark").keep(b"one", 1, 0.5)
    (first,) = artifacts.names()
    Recoveries(artifacts, KEY, "mark", first).keep(b"two", 2, 1.0)
    assert [each.epochs for each in recoveries_of(artifacts, [KEY])] == [1.0]


def test_one_that_cannot_be_written_leaves_the_one_before(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    artifacts = ArtifactStore(place)
    recoveries = Recoveries(artifacts, KEY, "mark")
    recoveries.keep(b"one", 1, 0.5)

    def full(name: str, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(artifacts._place, "put", full)
        with pytest.raises(ArtifactError, match="No space left"):
            recoveries.keep(b"two", 1, 1.0)
    assert [each.epochs for each in recoveries_of(artifacts, [KEY])] == [0.5]
    recoveries.keep(b"two", 1, 1.5)
    assert [each.epochs for each in recoveries_of(artifacts, [KEY])] == [1.5]


def test_others_are_left_alone(place: str) -> None:
    artifacts = ArtifactStore(place)
    Recoveries(artifacts, OTHER, "mark").keep(b"one", 1, 0.5)
    model = artifacts.write("model", KEY, ".safetensors", b"model")
    mine = Recoveries(artifacts, KEY, "mark")
    assert mine.newest(budget=9.0) is None
    mine.drop(budget=9.0)
    assert len(artifacts.names()) == 2
    assert model.location in artifacts.names()
    assert recoveries_of(artifacts, []) == []


def test_nothing_goes_where_another_store_uses_the_place(tmp_path: Path) -> None:
    """As with all files of trials: the other store may have the same trial in flight."""
    one, other = (ArtifactStore(tmp_path, Tenant(name, name)) for name in ("one", "other"))
    one.move_in(), other.move_in()
    Recoveries(one, KEY, "mark").keep(b"one", 1, 0.5)
    Recoveries(other, KEY, "mark").drop(budget=9.0)
    assert len(recoveries_of(one, [KEY])) == 1


@pytest.mark.parametrize(
    "name",
    ["", ".recovery", "a-b.recovery", "a-b.c.d.e.recovery", "a-b.c.1.1.0", "a-b.c.1.x.recovery", "a-b.checkpoint"],
)
def test_other_names_are_none(name: str) -> None:
    assert Recovery.named(name) is None


@given(epochs=st.floats(0, 1e9, allow_nan=False), attempt=st.integers(1, 10**6))
def test_a_name_says_what_it_is(epochs: float, attempt: int) -> None:
    artifacts = ArtifactStore(f"memory://{uuid4()}")
    Recoveries(artifacts, KEY, "c3d4").keep(b"", attempt, epochs)
    (found,) = recoveries_of(artifacts, [OTHER, KEY])
    assert (found.attempt, found.epochs, found.mark) == (attempt, epochs, "c3d4")
    assert found.is_of(KEY)
    assert not found.is_of(OTHER)


def test_one_at_the_end_of_a_budget_is_up_to_it(place: str) -> None:
    """Of thirds of an epoch, too, as rungs may have."""
    recoveries, budget = Recoveries(ArtifactStore(place), KEY, "mark"), 20 / 3
    recoveries.keep(b"one", 1, budget)
    assert recoveries.newest(budget) is not None
    recoveries.drop(budget)
    assert recoveries.newest(budget) is None
