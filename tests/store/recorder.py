"""A process that claims and records the points of some ranks.

Run: python -m tests.store.recorder URL STUDY WORKER FIRST LAST [PATIENCE]
"""

from __future__ import annotations

import random
import sys

from rank_search.point import Execution
from rank_search.store import Store
from tests.store.store_tools import BEGIN, END, a_point, complete


def main(url: str, name: str, worker: str, first: int, last: int, patience: float = 0.0) -> None:
    with Store.open(url, create=True, patience=patience) as store:
        study = store.study(name)
        for rank in range(first, last):
            claim = store.claim(study, a_point(rank), worker)
            if claim is not None:
                outcome = complete(**{name: losses_of(rank, name) for name in study.objective_names})
                store.record(study, claim, outcome, Execution(rank, BEGIN, END))
                print(claim.number, flush=True)


def losses_of(rank: int, name: str) -> float:
    """The same loss for the same rank, on a coarse grid so that ties happen."""
    return float(random.Random(f"{rank} {name}").randint(0, 12))


if __name__ == "__main__":
    main(*sys.argv[1:4], *map(int, sys.argv[4:6]), *map(float, sys.argv[6:]))
