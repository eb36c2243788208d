"""Whatever is wrong with the input: one clear message, exit code 2, no traceback, and nothing is lost."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import rank_search as rs
from tests.story.small import Command, Small, write_study

Tables = dict[str, dict[str, Any]]

FILES: list[tuple[str, str, list[str]]] = [
    ("empty", "", ["breaks 2 of the rules", "study: this key is needed", "task: this key is needed"]),
    ("no TOML", "[study\nname = 3", ["is not TOML", "line 1"]),
    ("tables that are none", "study = 3\ntask = 4", ["study: this is a table; found 3", "task: this is a table"]),
    ("key at the top", "[sarch]", ["sarch: there is no such key; did you mean 'search'?"]),
]

STUDY_FILES: list[tuple[str, Tables, list[str]]] = [
    ("key", {"study": {"trails": 3}}, ["study.trails: there is no such key; did you mean 'trials'?"]),
    ("key in a list", {"layers": {"rules": [{"mach": "a"}]}}, ["layers.rules.0.mach", "did you mean 'match'?"]),
    ("key below", {"search": {"seeds": {"fraction": [0.5]}}}, ["search.seeds.fraction", "'fractions'?"]),
    ("key far from all", {"launch": {"zzz": 1}}, ["launch.zzz", "there are: with, address, workers"]),
    ("types", {"study": {"trials": "many"}}, ["study.trials: this is a whole number; found 'many'"]),
    ("list", {"layers": {"include": "conv"}}, ["layers.include: this is a list; found 'conv'"]),
    ("range", {"training": {"epochs": -1}}, ["training.epochs", "greater than or equal to 0; found -1"]),
    (
        "all at once",
        {"study": {"seed": -1}, "search": {"sampler": "tpee"}, "training": {"optimizer": "adam"}},
        ["breaks 3 of the rules", "study.seed", "search.sampler", "training.optimizer", "'adamw' or 'sgd'"],
    ),
    ("sampler", {"search": {"sampler": "nsga22"}}, ["no sampler 'nsga22'", "did you mean 'nsga2'?"]),
    (
        "sampler option",
        {"search": {"sampler": "tpe", "options": {"n_startup": 3}}},
        ["did you mean 'n_startup_trials'?"],
    ),
    (
        "option's type",
        {"search": {"sampler": "tpe", "options": {"n_startup_trials": "x"}}},
        ["is a whole number; found 'x'"],
    ),
    ("option's kind", {"search": {"sampler": "tpe", "options": {"gamma": 0.1}}}, ["no option 'gamma'. There are: "]),
    ("option of auto", {"search": {"options": {"gamma": 0.1}}}, ["'auto' has no option 'gamma'. There are: none"]),
    ("strength", {"search": {"entropy": {"low": 2.0, "high": 1.0}}}, ["search.entropy", "0 < low < high"]),
    ("plugin", {"layers": {"factorizations": ["tuker2"]}}, ["'tuker2'", "did you mean 'tucker2'?"]),
    ("plugin file", {"layers": {"factorizations": ["no.py:SVD"]}}, ["There is no file", "no.py"]),
    ("plugin that breaks", {"layers": {"factorizations": ["broken.py:X"]}}, ["does not import", "no_such_module"]),
    ("plugin that is none", {"layers": {"factorizations": ["stripes.py:task"]}}, ["subclass", "Factorization"]),
    ("plugin class", {"layers": {"factorizations": ["stripes.py:SVD"]}}, ["has no class 'SVD'"]),
    (
        "plugin that cannot be counted",
        {"layers": {"factorizations": ["raising.py:InForward"]}},
        ["InForward.forward() on the meta device with rank=", "for second raised ArithmeticError: never"],
    ),
    (
        "plugin that refuses layers",
        {"layers": {"factorizations": ["raising.py:InAxes"]}},
        ["InAxes.axes() for second raised KeyError"],
    ),
    ("include", {"layers": {"include": ["conv*"]}}, ["'conv*' matches none of: first, second, norm, last"]),
    (
        "rule",
        {"layers": {"rules": [{"match": "x", "factorizations": []}]}},
        ["'x' in [[layers.rules]] matches no layer", "second, last"],
    ),
    ("tie", {"layers": {"tie": [["x*"]]}}, ["['x*'] in [layers] tie matches no layer"]),
    (
        "nothing allowed",
        {"layers": {"rules": [{"match": "*", "factorizations": []}]}, "search": {"entropy": "off"}},
        ["None of the 2 layers can be factorized"],
    ),
    (
        "seed point",
        {"search": {"seeds": {"points": [{"name": "mine", "layers": {"conv": "dense"}}]}}},
        ["point 'mine'", "'conv' matches none of: second, last"],
    ),
    ("objective", {"search": {"objectives": ["eror", "macs"]}}, ["objectives", "'eror'", "did you mean 'error'?"]),
    (
        "objective on test data",
        {"search": {"objectives": ["test_error"]}},
        ["selection data", "names 'test_error'"],
    ),
    ("constraint", {"search": {"constraints": ["macs is small"]}}, ["search.constraints.0", "'macs is small'"]),
    ("constraint's name", {"search": {"constraints": ["mcs <= 0.5 * dense"]}}, ["'mcs'", "did you mean 'macs'?"]),
    (
        "constraint without dense",
        {"search": {"constraints": ["macs <= 0.5"]}},
        ["none keeps 'macs <= 0.5'", "the dense model has 18,624", "'macs <= 0.5 * dense'"],
    ),
    (
        "constraint too tight",
        {"search": {"constraints": ["error <= 1", "params <= 0.01 * dense"]}},
        ["none keeps 'params <= 0.01 * dense'", "params goes from", "to 1,164"],
    ),
    (
        "constraint too wide",
        {"search": {"constraints": ["params > dense"]}},
        ["none keeps 'params > 1 * dense'", "params goes from"],
    ),
]

TASKS: list[tuple[str, list[str]]] = [
    ("stripes.py", ["'file.py:function'", "task.factory 'stripes.py' is neither"]),
    ("absent.py:task", ["there is no file", "absent.py"]),
    ("no_such_package.tasks:task", ["does not import", "No module named 'no_such_package'"]),
    ("broken.py:task", ["does not import", "No module named 'no_such_module'"]),
    ("faulty.py:absent", ["faulty.py has no function 'absent'"]),
    ("faulty.py:NOT_A_FUNCTION", ["has no function 'NOT_A_FUNCTION'"]),
    ("faulty.py:unlucky", ["raised ValueError: no luck today"]),
    ("faulty.py:wants_an_answer", ["missing 1 required positional argument: 'answer'", "[task.options]"]),
    ("faulty.py:a_list", ["must return a rank_search.Task", "returned list"]),
    ("faulty.py:ModelRaises", ["model() raised FileNotFoundError: weights.pt"]),
    ("faulty.py:ModelIsADict", ["model() returned dict", "must return a torch.nn.Module"]),
    ("faulty.py:ExampleRaises", ["example() or examples() raised RuntimeError: no example at hand"]),
    ("faulty.py:ExampleDoesNotFit", ["does not run on the task's example", "3 channels"]),
    ("faulty.py:ExampleIsAList", ["example() returned list", "must return a tensor"]),
    ("faulty.py:NoTrainingData", ["training data yielded no batch"]),
    ("faulty.py:NoSelectionData", ["selection data yielded no batch"]),
    ("faulty.py:NoTestData", ["test data yielded no batch"]),
    ("faulty.py:SelectionRaises", ["selection() or evaluate() raised OSError: the data's disk is gone"]),
    ("faulty.py:LossPerExample", ["must be one number as a tensor", "shape (40,)"]),
    ("faulty.py:LossRaises", ["training() or loss() raised KeyError: 'label'"]),
    ("faulty.py:LossWithoutGradient", ["has a gradient", "detach()"]),
    ("faulty.py:LossIsNan", ["on the first training batch it is nan"]),
    ("faulty.py:MetricIsNan", ["dense model", "error is nan"]),
    ("faulty.py:MetricRaises", ["evaluate() raised ZeroDivisionError: no classes"]),
    ("faulty.py:MetricIsANumber", ["named numbers", "gave 0.5"]),
    ("faulty.py:MetricIsATensor", ["'error' is Tensor", "must be one number"]),
    ("faulty.py:MetricOfOurs", ["gave bits, which is measured for every trial"]),
    ("faulty.py:TestRaises", ["test() or evaluate() raised PermissionError"]),
    ("faulty.py:WeightsWithNan", ["must be finite", "second.weight holds NaN"]),
    (
        "faulty.py:NothingToFactorize",
        ["has no layer to factorize", "BatchNorm1d has no matrix that could be factorized (1)"],
    ),
]

QUERIES: list[tuple[list[str], list[str]]] = [
    (["front", "STORE", "strips"], ["no study 'strips'", "did you mean 'stripes'?"]),
    (["trials", "STORE", "x"], ["no study 'x'", "There are: stripes"]),
    (["check", "STORE", "x"], ["no study 'x'"]),
    (["show", "STORE", "stripes", "99"], ["no trial 99", "there are 0 to 8"]),
    (["front", "STORE", "stripes", "--as-of", "99"], ["no trial 99"]),
    (["front", "STORE", "stripes", "--where", "error is small"], ["A bound is NAME <= NUMBER", "'error is small'"]),
    (["front", "STORE", "stripes", "--where", "error <= x"], ["'error <= x'"]),
    (["front", "STORE", "stripes", "--where", "eror<=1"], ["'eror'", "did you mean 'error'?"]),
    (["front", "STORE", "stripes", "--sort", "mac"], ["'mac'", "did you mean 'macs'?"]),
    (["front", "STORE", "stripes", "--objectives", "error,bit"], ["'bit'", "did you mean 'bits'?"]),
    (["front", "STORE", "stripes", "--objectives", ""], ["No objective is given"]),
    (["export", "STORE", "stripes", "99", "-o", "NEW"], ["no trial 99"]),
    (
        ["export", "STORE", "stripes", "0", "-o", "NEW"],
        ["trial 0 was not kept", "(infeasible)", "`rank-search front` lists"],
    ),
    (["export", "STORE", "stripes", "DOMINATED", "-o", "NEW"], ["dominated by trial", "`rank-search front` lists"]),
    (["export", "STORE", "stripes", "MEMBER", "-o", "FOLDER"], ["already exists"]),
    (["export", "STORE", "stripes", "MEMBER", "-o", "NEW", "--format", "keras"], ["onnx, pt2, safetensors", "'keras'"]),
    (["export", "STORE", "stripes", "MEMBER", "-o", "/proc/none/new"], ["/proc/none/new could not be made"]),
    (["export", "STORE", "stripes", "MEMBER", "-o", "NEW", "--dynamic", "x:9"], ["INPUT:DIMENSION", "'x:9'"]),
    (["pack", "STORE", "stripes", "MEMBER", "-o", "NEW", "--dynamic", "far"], ["INPUT:DIMENSION", "'far'"]),
    (["plugins", "check", "svdd"], ["'svdd'", "did you mean 'svd'?"]),
    (["plugins", "check", "none.py:SVD"], ["There is no file", "none.py"]),
]

STORES: list[tuple[str, list[str]]] = [
    ("FOLDER/none.sqlite", ["no store at", "none.sqlite"]),
    ("FOLDER", ["could not be read", "Check that it is a file"]),
    ("FOLDER/text", ["file is not a database"]),
    ("FOLDER/empty", ["holds no rank-search store"]),
    ("FOLDER/foreign", ["holds no rank-search store"]),
    ("FOLDER/newer", ["has schema 9999", "pip install --upgrade ."]),
    ("sqlite://", ["cannot be in memory"]),
    ("mysql://me:secret@host/db", ["neither an SQLite file nor a PostgreSQL database", "mysql://me:***@host"]),
    ("postgresql://me:secret@host:port/db", ["is neither", "//***@host"]),
    ("postgresql://me:secret@127.0.0.1:1/db", ["postgresql://me:***@127.0.0.1:1/db"]),
]

RAISING = """
from rank_search_plugins.svd import ChannelSVD


class InForward(ChannelSVD):
    def forward(self, x):
        raise ArithmeticError("never")


class InAxes(ChannelSVD):
    @classmethod
    def axes(cls, layer):
        raise KeyError("rank")
"""

ids = [name for name, *_ in STUDY_FILES]


def contents(study: Small, command: Command) -> dict[str, Any]:
    """All that a study must not lose."""
    return {
        "trials": command.fine("trials", study.store, "stripes", "--format", "json").json,
        "studies": command.fine("studies", study.store, "--format", "json").json,
        "artifacts": {path.name: path.read_bytes() for path in study.artifacts.iterdir() if path.is_file()},
        "folder": sorted(path.name for path in study.folder.iterdir() if not path.name.endswith(("-wal", "-shm"))),
    }


def refused(command: Command, study: Small, *arguments: object) -> str:
    """The message with which a command is refused that must leave the study as it was."""
    before = contents(study, command)
    message = command.refused(*arguments)
    assert contents(study, command) == before
    return message


def another(folder: Path, beside: Small, **changes: dict[str, Any]) -> Small:
    """Another study for the same store, wrong in some way."""
    study = write_study(
        folder, **{**changes, "study": {"name": "other", "store": beside.store, **changes.get("study", {})}}
    )
    (folder / "broken.py").write_text("import no_such_module\n")
    (folder / "raising.py").write_text(RAISING)
    return study


@pytest.mark.parametrize(("text", "said"), [each[1:] for each in FILES], ids=[each[0] for each in FILES])
def test_files_that_are_no_study(text: str, said: list[str], tmp_path: Path, command: Command) -> None:
    file = tmp_path / "study.toml"
    file.write_text(text)
    message = command.refused("run", file)
    assert all(part in message for part in (*said, str(file))), message


def test_files_that_cannot_be_read(tmp_path: Path, command: Command) -> None:
    assert "No such file" in command.refused("run", tmp_path / "absent.toml")
    assert "Is a directory" in command.refused("layers", tmp_path)
    (tmp_path / "latin.toml").write_bytes("name = 'é'".encode("latin-1"))
    assert "TOML in UTF-8" in command.refused("space", tmp_path / "latin.toml")


@pytest.mark.parametrize(("changes", "said"), [each[1:] for each in STUDY_FILES], ids=ids)
def test_study_files(changes: Tables, said: list[str], copied: Small, tmp_path: Path, command: Command) -> None:
    message = refused(command, copied, "run", another(tmp_path / "other", copied, **changes).file)
    assert all(part in message for part in said), message


@pytest.mark.parametrize(("factory", "said"), TASKS, ids=[factory for factory, _ in TASKS])
def test_tasks(factory: str, said: list[str], copied: Small, tmp_path: Path, command: Command) -> None:
    study = another(tmp_path / "other", copied, task={"factory": factory}, layers={"exclude": []})
    message = refused(command, copied, "run", study.file)
    assert all(part in message for part in said), message


@pytest.mark.parametrize(("words", "said"), QUERIES, ids=[" ".join(words) for words, _ in QUERIES])
def test_queries(words: list[str], said: list[str], small: Small, tmp_path: Path, command: Command) -> None:
    rows = command.fine("trials", small.store, "stripes", "--format", "json").json
    meant = {
        "STORE": small.store,
        "FOLDER": str(tmp_path),
        "NEW": str(tmp_path / "new"),
        "DOMINATED": next(str(row["trial"]) for row in rows if row["dominated_by"] is not None),
        "MEMBER": str(command.fine("front", small.store, "stripes", "--format", "json").json[0]["trial"]),
    }
    message = refused(command, small, *(meant.get(word, word) for word in words))
    assert all(part in message for part in said), message
    assert not any(tmp_path.iterdir())


@pytest.fixture(scope="module")
def no_stores(tmp_path_factory: pytest.TempPathFactory, small: Small) -> Path:
    """A folder of files that are no store that this version can use."""
    folder = tmp_path_factory.mktemp("stores")
    (folder / "text").write_text("Dear database, " * 1000)
    (folder / "empty").touch()
    shutil.copy(small.store, folder / "newer")
    execute(folder / "foreign", "CREATE TABLE books (title TEXT)")
    execute(folder / "newer", "UPDATE rs_version SET version_num = '9999'")
    return folder


def execute(database: str | Path, statement: str) -> None:
    connection = sqlite3.connect(database)
    connection.execute(statement)
    connection.commit()
    connection.close()


@pytest.mark.parametrize("verb", ["studies", "dashboard"])
@pytest.mark.parametrize(("store", "said"), STORES, ids=[store for store, _ in STORES])
def test_stores(store: str, said: list[str], verb: str, no_stores: Path, command: Command) -> None:
    before = {path.name: path.read_bytes() for path in no_stores.iterdir()}
    message = command.refused(verb, store.replace("FOLDER", str(no_stores)))
    assert all(part in message for part in said), message
    assert "secret" not in message
    assert {path.name: path.read_bytes() for path in no_stores.iterdir()} == before


@pytest.mark.parametrize("store", ["FOLDER", "FOLDER/text", "FOLDER/newer", "postgresql://me:secret@127.0.0.1:1/db"])
def test_stores_to_write_to(store: str, no_stores: Path, tmp_path: Path, command: Command) -> None:
    study = write_study(tmp_path / "study", task={"factory": "faulty.py:sound"})
    message = command.refused("run", study.file, "--store", store.replace("FOLDER", str(no_stores)))
    assert "secret" not in message


def test_a_store_that_can_only_be_read(copied: Small, command: Command) -> None:
    before, members = contents(copied, command), command.fine("front", copied.store, "stripes").out
    read_only = f"sqlite:///file:{copied.store}?mode=ro&uri=true"
    assert command.fine("front", read_only, "stripes").out == members
    answer = command("run", copied.file, "--store", read_only, "--trials", 11)
    assert answer.code == 2
    *progress, last = answer.err.splitlines()
    assert last.startswith("rank-search: ")
    assert "readonly database" in last
    assert not any("rank-search" in line for line in progress)
    assert contents(copied, command) == before


def test_a_study_goes_on_only_with_what_it_was_made_from(copied: Small, tmp_path: Path, command: Command) -> None:
    changed = write_study(
        tmp_path / "changed",
        study={"store": copied.store, "seed": 3, "trials": 20},
        search={"objectives": ["error", "macs", "params"]},
        training={"epochs": 0.25},
        launch={"workers": 2},
    )
    message = refused(command, copied, "run", changed.file)
    assert "study.seed is 0 in the store, 3 now" in message
    assert "training.epochs is 0.5 in the store, 0.25 now" in message
    assert "search.objectives is ['error', 'macs', 'bits'] in the store, ['error', 'macs', 'params'] now" in message
    assert not any(key in message for key in ("learning_rate", "trials", "store is", "workers", "weights"))


def test_changed_weights_are_refused(copied: Small, command: Command) -> None:
    task = copied.folder / "stripes.py"
    task.write_text(task.read_text(encoding="utf-8").replace("epochs: int = 6", "epochs: int = 7"), encoding="utf-8")
    message = refused(command, copied, "run", copied.file, "--trials", 10)
    assert "weights is" in message
    assert "code stripes.py is" in message  # which the weights come from
    assert message.count(" in the store, ") == 2


def test_a_task_that_fails_when_a_study_goes_on(copied: Small, command: Command) -> None:
    task = copied.folder / "stripes.py"
    text = task.read_text(encoding="utf-8").replace("training_batches=batches(320, seed=1)", "training_batches=[]")
    task.write_text(text, encoding="utf-8")
    assert "training data yielded no batch" in refused(command, copied, "run", copied.file, "--trials", 10)


@pytest.mark.parametrize("damage", ["other", "short", "absent"])
def test_damaged_artifacts(damage: str, copied: Small, tmp_path: Path, command: Command) -> None:
    member = command.fine("front", copied.store, "stripes", "--format", "json").json[0]["trial"]
    shown = command.fine("show", copied.store, "stripes", member, "--format", "json").json[0]
    file = copied.artifacts / shown["artifacts"]["model"]
    content = file.read_bytes()
    file.unlink()
    if damage != "absent":
        file.write_bytes(content[:-8] + (b"\0" * 8 if damage == "other" else b""))
    message = refused(command, copied, "export", copied.store, "stripes", member, "-o", tmp_path / "new")
    assert str(file) in message
    assert not (tmp_path / "new").exists()
    checked = command("check", copied.store, "stripes", "--format", "json")
    assert checked.code == 1
    (problem,) = checked.json
    assert f"Trial {member}: its model, {file.name}: " in problem["problem"]


def test_a_row_that_was_changed_behind_our_back(copied: Small, command: Command) -> None:
    execute(copied.store, "UPDATE rs_trial SET dominated_by = NULL WHERE dominated_by IS NOT NULL")
    checked = command("check", copied.store, "stripes")
    assert checked.code == 1
    assert "on the front; the store says otherwise" in checked.out


@pytest.mark.parametrize("artifacts", ["gs://bucket/prefix", "nowhere://host"])
def test_a_place_for_files_that_waiting_makes_no_better_ends_the_search_before_its_first_trial(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch, artifacts: str
) -> None:
    monkeypatch.setitem(sys.modules, "gcsfs", None)  # as if it were not installed
    study = write_study(tmp_path / "study", study={"artifacts": artifacts}, launch={"store_patience": 1})
    said = command("run", study.file)
    assert said.code == 2
    assert ("is not installed" if artifacts.startswith("gs") else "Protocol not known") in said.err
    with rs.Store.open(study.store) as store:
        assert store.studies() == []  # so that another place may be named


def test_without_ray_a_line_says_what_needs_it(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name == "ray" or name.startswith("ray.")]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("rank_search.observe.tensorboard", "rank_search.launch.ray_actors"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "ray", None)
    study = write_study(tmp_path / "study", launch={"tensorboard": str(tmp_path / "logs")})
    said = command("run", study.file)
    assert (said.code, "Traceback" in said.err) == (2, False)
    assert "Ray is not installed" in said.err


def test_an_address_of_a_cluster_is_for_trials_that_run_on_one(small: Small, command: Command) -> None:
    assert "Add --on ray" in command.refused("run", small.file, "--address", "auto")
    assert "Add --on ray" in command.refused("confirm", small.store, "stripes", "--address", "auto")


def test_a_network_in_the_place_of_a_study_file(command: Command, tmp_path: Path) -> None:
    (tmp_path / "net.pt2").write_bytes(b"PK")
    for given in (tmp_path / "net.pt2", "net.py:network"):
        assert "is a network, and a study file is needed" in command.refused("layers", given)


def test_no_trials_are_no_search(small: Small) -> None:
    with pytest.raises(rs.RankSearchError, match="trials is 0"):
        rs.run_study(rs.load_study(small.file), trials=0)


def test_a_disk_that_is_full_when_artifacts_are_written(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = write_study(tmp_path / "study", launch={"store_patience": 0.1})
    synced, room = (
        os.fsync,
        iter(range(15)),
    )  # six for folders and the store's note; two trials leave two files each, synced with their folder

    def full(handle: int) -> None:
        if next(room, None) is None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        synced(handle)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        answer = command("run", study.file)
    assert answer.code == 2
    (message,) = [line for line in answer.err.splitlines() if line.startswith("rank-search: ")]
    assert "No space left" in message
    assert "Traceback" not in answer.err
    _goes_on(study, command)


def _goes_on(study: Small, command: Command) -> None:
    """What was recorded before is kept, nothing half-written is left, and the same command finishes the study."""
    before = command.fine("trials", study.store, "stripes", "--format", "json").json
    assert sum(row["state"] == "complete" for row in before) >= 2
    command.fine("check", study.store, "stripes")
    command.fine("run", study.file)
    after = command.fine("trials", study.store, "stripes", "--format", "json").json
    assert [row["trial"] for row in after] == list(range(9))
    assert [row["label"] for row in after[: len(before)]] == [row["label"] for row in before]
    kept = [artifact for row in front(study, command) for artifact in row["artifacts"].values()]
    assert sorted(path.name for path in study.artifacts.iterdir() if path.is_file()) == sorted(kept)
    command.fine("check", study.store, "stripes")


def front(study: Small, command: Command) -> list[dict[str, Any]]:
    members = command.fine("front", study.store, "stripes", "--format", "json").json
    return [command.fine("show", study.store, "stripes", row["trial"], "--format", "json").json[0] for row in members]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of its own, of 1 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    if not sys.platform.startswith("linux") or not shutil.which("mount"):
        pytest.skip("mounts a file system in memory, which needs Linux")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounts a file system in memory, which needs the right to")
    yield place
    subprocess.run(["umount", place], check=True)


def test_a_disk_that_is_really_full(disk: Path, tmp_path: Path, command: Command) -> None:
    study = write_study(tmp_path / "study", study={"trials": 4})
    store = disk / "stripes.sqlite"
    command.fine("run", study.file, "--store", store)
    before = command.fine("trials", store, "stripes", "--format", "json").json
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"x" * 4096)
    assert shutil.disk_usage(disk).free < 4096
    answer = command("run", study.file, "--store", store, "--trials", 6)
    assert answer.code == 2
    assert answer.err.splitlines()[-1].startswith("rank-search: ")
    assert "Traceback" not in answer.err
    filler.unlink()
    assert command.fine("trials", store, "stripes", "--format", "json").json[: len(before)] == before
    command.fine("run", study.file, "--store", store, "--trials", 6)
    after = command.fine("trials", store, "stripes", "--format", "json").json
    assert [row["trial"] for row in after] == list(range(6))
    command.fine("check", store, "stripes")


CRASHING = """
from rank_search_plugins.svd import ChannelSVD


class Crashing(ChannelSVD):
    def forward(self, x):
        if self.left.shape[1] < 4 and not x.is_meta:
            raise ArithmeticError("too few for me")
        return super().forward(x)
"""


def test_a_trial_that_raises_is_failed_and_the_study_goes_on(tmp_path: Path, command: Command) -> None:
    study = write_study(
        tmp_path / "study",
        study={"trials": 5},
        layers={"include": ["second"], "exclude": [], "factorizations": ["crashing.py:Crashing"]},
        search={"constraints": []},
    )
    (study.folder / "crashing.py").write_text(CRASHING)
    command.fine("run", study.file)
    rows = {row["label"]: row for row in command.fine("trials", study.store, "stripes", "--format", "json").json}
    assert rows["fraction 0.25"]["state"] == "failed"
    assert rows["fraction 0.25"]["reason"] == "ArithmeticError: too few for me"
    assert rows["fraction 0.5"]["state"] == rows["dense"]["state"] == "complete"
    assert len(rows) == 5
    command.fine("check", study.store, "stripes")


def test_a_trial_that_diverges_says_where(tmp_path: Path, command: Command) -> None:
    study = write_study(
        tmp_path / "study", study={"trials": 4}, search={"constraints": []}, training={"learning_rate": 1e30}
    )
    command.fine("run", study.file)
    rows = {row["label"]: row for row in command.fine("trials", study.store, "stripes", "--format", "json").json}
    assert rows["dense"]["state"] == "complete"
    assert rows["fraction 0.5"]["state"] == "diverged"
    assert "epoch 1, step" in rows["fraction 0.5"]["reason"]
    assert command.fine("front", study.store, "stripes", "--format", "json").json[0]["trial"] == 0


def test_a_front_without_members_points_to_the_reasons(tmp_path: Path, command: Command) -> None:
    study = write_study(tmp_path / "study", study={"trials": 2}, search={"constraints": ["error < 0"]})
    answer = command.fine("run", study.file)
    assert "No trial is on the front" in answer.err
    assert f"rank-search trials {study.store} stripes" in answer.err
    assert "error < 0 does not hold" in command.fine("trials", study.store, "stripes").out


def test_as_a_program_of_its_own(tmp_path: Path) -> None:
    program = [Path(sys.executable).with_name("rank-search"), "studies", tmp_path / "none.sqlite"]
    ended = subprocess.run(program, capture_output=True, text=True)
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert ended.stderr.count("\n") == 1
    assert ended.stderr.startswith("rank-search: There is no store at ")
