"""The study file: read, checked, and every complaint at once."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from rank_search.errors import StudyFileError
from rank_search.point import Bound, Objective
from rank_search.study import Study, load_study

LEAST = '[study]\nname = "mine"\n[task]\nfactory = "task.py:task"\n'
FULL = """
[study]
name = "mine"
trials = 7
seed = 3
store = "postgresql://me@host/db"
cache = "spectra"

[task]
factory = "task.py:task"
options = { depth = 3, path = "data.npz" }

[layers]
include = ["conv*"]
exclude = ["conv1"]
factorizations = ["svd", "mine.py:Mine"]
tie = [["conv2", "conv3"]]

[[layers.rules]]
match = "conv9"
factorizations = []

[search]
objectives = ["error", { name = "accuracy", direction = "maximize" }]
reference = { error = 0.5 }
constraints = ["macs <= 0.5 * dense", "error < 0.1"]
sampler = "nsga2"
options = { population_size = 10 }
weakening = [0.5, 1]
multiplier = 2
round_to = 8
orthogonality = { low = 1e-3, high = 1 }
entropy = 0.5

[search.seeds]
dense = false
fractions = []
points = [{ name = "mine", layers = { "conv*" = { factorization = "svd", rank = 4 }, fc = "dense" }, entropy = 0.5 }]

[training]
epochs = 2.5
optimizer = "sgd"
gradient_clip = inf

[latency]
batch = 8

[launch]
workers = 4
time_limit = 60
"""


def load(folder: Path, text: str) -> Study:
    file = folder / "study.toml"
    file.write_text(text, encoding="utf-8")
    return load_study(file)


def complaints(folder: Path, text: str) -> list[str]:
    with pytest.raises(StudyFileError) as raised:
        load(folder, text)
    first, *lines = str(raised.value).splitlines()
    counted = re.search(r"breaks (\d+) of the rules", first)
    assert counted
    assert int(counted[1]) == len(lines)
    assert str(folder / "study.toml") in first
    return [line.strip() for line in lines]


def test_little_has_to_be_given(tmp_path: Path) -> None:
    study = load(tmp_path, LEAST)
    assert (study.name, study.store, study.folder) == ("mine", str(tmp_path / "mine.sqlite"), tmp_path)
    assert [each.name for each in study.search.objectives] == ["error", "macs"]
    assert study.layers.include == ("*",)


def test_everything_can_be_given(tmp_path: Path) -> None:
    study = load(tmp_path, FULL)
    assert study.store == "postgresql://me@host/db"
    assert study.task.options == {"depth": 3, "path": "data.npz"}
    assert study.layers.plugin_names() == ("svd", "mine.py:Mine")
    assert study.search.objectives == (Objective("error"), Objective("accuracy", "maximize"))
    assert study.search.constraints == (Bound("macs", "<=", 0.5, True), Bound("error", "<", 0.1))
    assert study.search.orthogonality.searched
    assert study.search.seeds.points[0].layers["conv*"] == {"factorization": "svd", "rank": 4}
    assert study.training.gradient_clip == float("inf")
    assert study.launch.time_limit == 60


@pytest.mark.parametrize("text", [LEAST, FULL])
def test_a_store_keeps_a_study_as_json_and_gives_it_back(text: str, tmp_path: Path) -> None:
    study = load(tmp_path, text)
    kept = study.model_dump(mode="json")
    assert "folder" not in kept
    assert Study.model_validate({**kept, "folder": tmp_path}) == study


def test_a_study_is_frozen(tmp_path: Path) -> None:
    study = load(tmp_path, LEAST)
    with pytest.raises(ValueError, match="frozen"):
        study.study.name = "yours"


@pytest.mark.parametrize(
    ("tables", "line"),
    [
        ("[sarch]", "sarch: there is no such key; did you mean 'search'?"),
        ("[training]\nepoch = 3", "training.epoch: there is no such key; did you mean 'epochs'?"),
        ("[search.seeds]\nfraction = [1]", "search.seeds.fraction: there is no such key; did you mean 'fractions'?"),
        (
            "[[search.seeds.points]]\nname = 'a'\nlayrs = {}",
            "search.seeds.points.0.layrs: there is no such key; did you mean 'layers'?",
        ),
        (
            "[layers]\nrules = [{match = 'a', factorizations = []}, {match = 'b', factorizations = [], mach = 'c'}]",
            "layers.rules.1.mach: there is no such key; did you mean 'match'?",
        ),
        ("[latency]\nxyz = 1", "latency.xyz: there is no such key; there are: batch, threads, repeats"),
        ("[training]\nepochs = 'two'", "training.epochs: this is a number; found 'two'"),
        ("[launch]\nworkers = 1.5", "launch.workers: this is a whole number; found 1.5"),
        ("[launch]\nworkers = []", "launch.workers: this is a whole number; found []"),
        ("[search]\nobjectives = 'error'", "search.objectives: this is a list; found 'error'"),
        ("[search.seeds]\ndense = 'maybe'", "search.seeds.dense: this is true or false; found 'maybe'"),
        ("[layers]\ninclude = [3]", "layers.include.0: this is a text; found 3"),
        ("search = 3", "search: this is a table; found 3"),
        ("[training]\nepochs = -1", "training.epochs: input should be greater than or equal to 0; found -1"),
        ("[training]\nepochs = nan", "training.epochs: input should be a finite number; found nan"),
        ("[search]\nweakening = [1, 0]", "search.weakening: weakenings range from low to high"),
        ("[search]\nobjectives = []", "search.objectives: a search has at least one objective"),
        ("[search]\nobjectives = ['a', 'a']", "search.objectives: objectives have different names"),
        ("[search]\nobjectives = [{ name = 'a', direction = 'up' }]", "search.objectives.0: an objective is the name"),
        ("[search]\nconstraints = ['macs']", "search.constraints.0: a bound is NAME <= NUMBER"),
        ("[search]\nreference = { bits = 3 }", "search: reference is given for objectives: error, macs; found bits"),
        ("[search]\nentropy = { low = 0, high = 1 }", "search.entropy: {'low': 0, 'high': 1} is no strength"),
    ],
)
def test_a_complaint_names_key_rule_and_what_was_found(tables: str, line: str, tmp_path: Path) -> None:
    text = f"{tables}\n{LEAST}" if "=" in tables.split("\n")[0] and "[" not in tables.split("=")[0] else LEAST + tables
    (found,) = complaints(tmp_path, text)
    assert found.startswith(line)


def test_all_complaints_come_at_once_in_the_order_of_the_tables(tmp_path: Path) -> None:
    text = (
        "[study]\nname = ''\ntrails = 3\n[task]\n[layers]\ninclude = 1\n[search]\nsampler = 'x'\n"
        "[training]\nepochs = -1\noptimizer = 'adam'\n[launch]\nworkers = 0\n[extra]\n"
    )
    paths = [line.partition(":")[0] for line in complaints(tmp_path, text)]
    assert paths == [
        "study.name",
        "study.trails",
        "task.factory",
        "layers.include",
        "search.sampler",
        "training.epochs",
        "training.optimizer",
        "launch.workers",
        "extra",
    ]


def settings(model: type[BaseModel], path: str = "") -> list[tuple[str, str]]:
    """Every key of a study file that is no table and stands in no list, with the table that it stands in."""
    found = []
    for key, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found += settings(field.annotation, f"{path}{key}.")
        elif path:
            found.append((path.rstrip("."), field.alias or key))
    return found


@pytest.mark.parametrize(("table", "key"), settings(Study))
def test_a_misspelt_key_is_recognized(table: str, key: str, tmp_path: Path) -> None:
    misspelt = key[:-1] + key[-1] * 2
    text = LEAST.replace(f"[{table}]", f"[{table}]\n{misspelt} = 1") if f"[{table}]" in LEAST else ""
    (found,) = complaints(tmp_path, text or f"{LEAST}[{table}]\n{misspelt} = 1")
    assert found == f"{table}.{misspelt}: there is no such key; did you mean {key!r}?"


def test_a_file_that_is_no_study_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StudyFileError, match="No such file"):
        load_study(tmp_path / "absent.toml")
    with pytest.raises(StudyFileError, match="Is a directory"):
        load_study(tmp_path)
    with pytest.raises(StudyFileError, match=r"TOML.*line 1"):
        load(tmp_path, "name = = 3")
    with pytest.raises(StudyFileError, match="there is no key 'folder'"):
        load(tmp_path, f"folder = '/etc'\n{LEAST}")
    (tmp_path / "study.toml").write_bytes(b"\xff")
    with pytest.raises(StudyFileError, match="UTF-8"):
        load_study(tmp_path / "study.toml")
