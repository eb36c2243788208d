"""A process that promotes every stopped trial of a study that it can get, and prints their numbers.

Run: python -m tests.store.promoter URL STUDY WORKER
"""

from __future__ import annotations

import sys

from rank_search.point import State
from rank_search.store import Store
from tests.store.recorder import losses_of
from tests.store.store_tools import complete, record


def main(url: str, name: str, worker: str) -> None:
    with Store.open(url) as store:
        study = store.study(name)
        for row in store.trials(study):
            if row.state is not State.STOPPED:
                continue
            claim = store.promote(study, row.number, worker, study.budget)
            if claim is not None:
                rank = int(claim.point.layers["conv"].values["rank_out"])
                record(store, study, claim, complete(**{name: losses_of(rank, name) for name in study.objective_names}))
                print(claim.number, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
