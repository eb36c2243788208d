from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from rank_search.artifacts import ArtifactStore
from rank_search.launch import Executor, InProcess, LaunchSettings, Runner, SearchDriver, SearchPlan
from rank_search.observe import Observers
from rank_search.point import Objective
from rank_search.search import Rungs
from rank_search.store import Store, StudyRecord
from tests.launch.parts import Counting, better_and_better
from tests.launch.runners import Made

if TYPE_CHECKING:
    from rank_search.launch import Cluster

HERE = Path(__file__).parent


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "store.sqlite", create=True) as opened:
        yield opened


@pytest.fixture
def study(store: Store) -> StudyRecord:
    record = StudyRecord(
        name="study",
        fingerprint={},
        space={},
        objectives=(Objective("error"), Objective("macs")),
        reference_point={"error": 1.0, "macs": 10.0},
        ideal={"error": 0.0, "macs": 0.0},
        dense={"error": 0.5, "macs": 10.0},
        budget=1.0,
    )
    return store.join(record)


@pytest.fixture
def drive(store: Store, study: StudyRecord, tmp_path: Path) -> Callable[..., SearchDriver]:
    """Makes a driver; what is not said is the simplest there is."""

    def make(executor: Executor | None = None, searcher: Counting | None = None, **changes: Any) -> SearchDriver:
        driven = changes.pop("study", study)
        observers = Observers(changes.pop("report", lambda progress: None), changes.pop("callbacks", ()))
        plan = SearchPlan(
            **{
                "target": 5,
                "rungs": Rungs(None, 1.0),
                "rng_seed": 0,
                "constraints": (),
                "judge": lambda point: None,
                "max_retries": 1,
                "artifacts": ArtifactStore(tmp_path / "artifacts"),
                **changes,
            }
        )
        chosen = executor or InProcess(better_and_better)
        return SearchDriver(store, driven, searcher or Counting(), chosen, plan, observers)  # type: ignore[arg-type]

    return make


def ray_actors(cluster: Cluster, make: Callable[[], Runner], workers: int, limit: float | None) -> Executor:
    from rank_search.launch import RayActors, ship

    ship(HERE)
    return RayActors(cluster, Made(make), "found", workers, LaunchSettings(on="ray", time_limit=limit))
