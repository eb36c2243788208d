"""Searches with all built-in families at hand beside searches with the first four, at equal numbers of trials.

Run: python -m benchmarks.all_families studies/digits.toml [studies/cifar_resnet.toml …] [--options '{"data": "…"}']
         [--trials 40] [--seeds 0 1 2] [--leave-out NAME …]

The studies run as their files say, with another list of factorizations; `--options` are those of the tasks that know
them. Printed is the hypervolume of the front after a quarter, a half and all of the trials, as a share of the study's
box; and, at each share of the dense cost (MACs, or parameters where MACs are no objective), the least value of the
first objective that was found. A last line has the factorizations of the layers on the front, by how often they stand
there.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch

import rank_search as rs
from rank_search.layers.plugins import installed
from rank_search.store import Store, box_of, hypervolume_of

FOUR: Final = ("svd", "svd-spatial", "tucker2", "cp")
SHARES: Final = (0.75, 0.5, 0.35, 0.25)


@dataclass(frozen=True)
class Found:
    """What a search found: hypervolumes after parts of the trials, least losses at shares, forms on the front."""

    volumes: Sequence[float]
    least: Sequence[float | None]
    forms: Counter[str]


def searched(study: rs.Study, forms: Sequence[str], seed: int, trials: int) -> Found:
    """Run the study with these factorizations in a store of its own."""
    layers = study.layers.model_copy(update={"factorizations": tuple(forms)})
    settings = study.study.model_copy(update={"seed": seed})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "store.sqlite"
        rs.run_study(study.model_copy(update={"layers": layers, "study": settings}), store=str(path), trials=trials)
        with Store.open(path) as store:
            return read(store, study.study.name)


def read(store: Store, name: str) -> Found:
    record = store.study(name)
    rows = [row for row in store.trials(record) if row.measurements]
    box = box_of(record)
    volumes = [hypervolume_of(record, rows[: len(rows) * part // 4], box) for part in (1, 2, 4)]
    first, *others = record.objective_names
    cost = "macs" if "macs" in others else "params"
    within = [[row for row in rows if row.measurements[cost] <= share * record.dense[cost]] for share in SHARES]
    least = [min((row.measurements[first] for row in each), default=None) for each in within]
    front = [choice.factorization for row in store.front(record) for choice in row.model_point.layers.values()]
    return Found(volumes, least, Counter(front))


def line(title: str, found: Found) -> str:
    """A row of the table."""
    least = " ".join("   none" if each is None else f"{each:7.4f}" for each in found.least)
    return f"{title:14}" + " ".join(f"{each:.4f}" for each in found.volumes) + "  " + least


def mean(each: Sequence[Found]) -> Found:
    """Over the seeds."""
    volumes = [statistics.mean(column) for column in zip(*(one.volumes for one in each), strict=True)]
    least = [
        None if None in column else statistics.mean(column) for column in zip(*(one.least for one in each), strict=True)
    ]
    return Found(volumes, least, sum((one.forms for one in each), Counter()))


def compared(study: rs.Study, sets: Mapping[str, Sequence[str]], seeds: Sequence[int], trials: int) -> None:
    """Print the table of one study."""
    print(
        f"\n{study.study.name}: hypervolume after 1/4, 1/2, all of {trials} trials; least loss at {SHARES}", flush=True
    )
    found: dict[str, list[Found]] = {title: [] for title in sets}
    for seed in seeds:
        for title, forms in sets.items():
            found[title].append(searched(study, forms, seed, trials))
            print(line(f"{title}, seed {seed}", found[title][-1]), flush=True)
    for title, each in found.items():
        print(line(f"{title}, mean", mean(each)))
        print("  on the front: " + ", ".join(f"{form} {count}" for form, count in mean(each).forms.most_common()))


def with_options(study: rs.Study, options: Mapping[str, Any]) -> rs.Study:
    """Of the options, those that the study's file names."""
    own = {name: options[name] for name in study.task.options if name in options}
    return study.model_copy(update={"task": study.task.model_copy(update={"options": {**study.task.options, **own}})})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("studies", type=Path, nargs="+")
    parser.add_argument("--options", type=json.loads, default={})
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--leave-out", nargs="+", default=[], help="families that are not among all")
    given = parser.parse_args()
    torch.set_num_threads(1)
    families = [name for name in installed() if name not in (*FOUR, *given.leave_out)]
    for path in given.studies:
        study = with_options(rs.load_study(path), given.options)
        compared(study, {"four": FOUR, "all": (*FOUR, *families)}, given.seeds, given.trials)


if __name__ == "__main__":
    main()
