"""Every verb of the command line on a small study, in every format."""

from __future__ import annotations

import csv
import io
import json
import re
import shlex
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import typer

import rank_search as rs
from rank_search import testing
from rank_search.cli.main import app
from rank_search.observe.optuna_storage import mirrored
from rank_search.run import begin
from tests.store.store_tools import slow_front
from tests.story.small import Command, Small, write_study
from tests.story.stripes import ODD_NAMES

Row = dict[str, Any]

TABLES = {
    "layers": "layers FILE",
    "priors": "priors FILE",
    "studies": "studies STORE",
    "trials": "trials STORE stripes",
    "front": "front STORE stripes",
    "front of nothing": "front STORE stripes --where error<0",
    "check": "check STORE stripes",
    "plugins": "plugins",
    "plugins check": "plugins check svd",
}


def words(line: str, small: Small) -> list[str]:
    return [{"FILE": small.file, "STORE": small.store}.get(word, word) for word in shlex.split(line)]


def rows_of(command: Command, *arguments: object) -> list[Row]:
    found = command.fine(*arguments, "--format", "json").json
    assert isinstance(found, list)
    return found


def flat(row: Mapping[str, Any]) -> Row:
    """A row with the fields inside its fields named `outer.inner`; the layers stay one field."""
    found: Row = {}
    for key, value in row.items():
        if isinstance(value, Mapping) and key != "layers":
            found |= {f"{key}.{inner}": each for inner, each in value.items()}
        else:
            found[key] = value
    return found


def headers(table: str) -> list[str]:
    """The names of a printed table's columns, those split over two lines put together again."""
    lines = [line.strip("┃").split("┃") for line in table.splitlines() if line.startswith("┃")]
    return [".".join(part.strip() for part in parts if part.strip()) for parts in zip(*lines, strict=True)]


def body(table: str) -> list[str]:
    return [line for line in table.splitlines() if line.startswith("│")]


@pytest.fixture(scope="module")
def laws_checked_once() -> Iterator[None]:
    """Checking a plugin takes two seconds."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(testing, "check_factorization", cache(testing.check_factorization))
        yield


@pytest.mark.usefixtures("laws_checked_once")
@pytest.mark.parametrize("line", TABLES.values(), ids=TABLES)
def test_all_formats_have_the_same_rows_and_fields(line: str, small: Small, command: Command) -> None:
    arguments = words(line, small)
    rows = [flat(row) for row in rows_of(command, *arguments)]
    names = {name for row in rows for name in row}
    table = csv.DictReader(io.StringIO(command.fine(*arguments, "--format", "csv").out))
    cells = list(table)
    assert len(cells) == len(rows)
    assert set(table.fieldnames or ()) == names
    for row, given in zip(rows, cells, strict=True):
        for name in names:
            value = row.get(name)
            if isinstance(value, int | float | str | None):
                assert given[name] == ("" if value is None else str(value))
    printed = command.fine(*arguments).out
    if line == TABLES["front"]:  # for people: the dense model and its ratios first, see test_front_table
        assert len(body(printed)) == len(rows) + 1
    elif rows:
        assert headers(printed) == list(table.fieldnames or ())
        assert len(body(printed)) == len(rows)
    else:
        assert len(printed.splitlines()) == 1


def test_layers_lists_all_and_why_some_are_skipped(small: Small, command: Command) -> None:
    rows = {row["layer"]: row for row in rows_of(command, "layers", small.file)}
    assert list(rows) == ["second", "last", "first", "norm"]
    assert rows["second"]["shape"] == "12×8×3×3"
    assert rows["second"]["params"] == 12 * 8 * 9
    assert rows["second"]["macs"] == 12 * 8 * 9 * 4 * 4
    assert rows["second"]["factorizations"] == ["svd", "tucker2"]
    assert rows["last"]["factorizations"] == ["svd"]
    assert rows["last"]["params"] == 48 * 4 + 4
    assert rows["first"]["skipped"] == "an exclude rule matches it"
    assert [row["skipped"] for row in rows.values()][:2] == ["", ""]


SPEAKER = """
import rank_search as rs, torch
from torch import nn

class Speaker(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.head = nn.Embedding(20, 8), nn.Linear(8, 20)
        self.head.weight = self.table.weight

    def forward(self, ids):
        return self.head(self.table(ids))

def task():
    ids = torch.arange(60) % 20
    return rs.LanguageModel(Speaker().eval(), ids, ids, length=6)
"""


def test_layers_shows_what_goes_with_a_layer(command: Command, tmp_path: Path) -> None:
    (tmp_path / "speaker.py").write_text(SPEAKER, encoding="utf-8")
    file = tmp_path / "speaker.toml"
    tables = '[study]\nname = "s"\n[task]\nfactory = "speaker.py:task"\n[search]\nobjectives = ["nats"]\n'
    file.write_text(tables, encoding="utf-8")
    head, table = rows_of(command, "layers", file)
    assert (head["layer"], head["params"], head["macs"]) == ("head", 180, 6 * 160)
    assert head["factorizations"] == ["svd"]
    assert (table["layer"], table["kind"], table["params"]) == ("table", "embedding", 0)
    assert table["skipped"] == "it has the weight of head, and becomes what that becomes"


def test_priors_lists_each_axis(small: Small, command: Command) -> None:
    rows = rows_of(command, "priors", small.file)
    assert [(row["layer"], row["factorization"], row["axis"], row["full_rank"]) for row in rows] == [
        ("second", "svd", "rank", 12),
        ("second", "tucker2", "rank_out", 12),
        ("second", "tucker2", "rank_in", 8),
        ("last", "svd", "rank", 4),
    ]
    for row in rows:
        assert 0 <= row["vbmf_rank"] <= row["full_rank"]
        assert 0 <= row["energy_kept"] <= 1
        assert row["noise_variance"] > 0
    break_even = (12 * 8 * 9) / (8 * 9 + 12)
    assert rows[0]["break_even"] == int(break_even)


def test_priors_lists_the_equivariance_gap_beside_a_symmetric_factorization(tmp_path: Path, command: Command) -> None:
    small = write_study(tmp_path, layers={"factorizations": ["svd", "symmetric-left-right"]})
    rows = rows_of(command, "priors", small.file)
    assert [(row["layer"], row["factorization"], row["axis"]) for row in rows] == [
        ("second", "svd", "rank"),
        ("second", "symmetric-left-right", "order"),
        ("last", "svd", "rank"),
    ]
    assert rows[0]["equivariance_gap"] is rows[2]["equivariance_gap"] is None
    weight = begin(rs.load_study(small.file)).model.get_submodule("second").weight.detach().double()
    expected = float((weight - weight.flip(-1)).norm() / (2 * weight.norm()))
    assert rows[1]["equivariance_gap"] == pytest.approx(expected)
    printed = command.fine("priors", small.file, "--format", "csv").out.splitlines()
    assert printed[0].split(",")[-1] == "equivariance_gap"
    assert float(printed[2].split(",")[-1]) == pytest.approx(expected)


def test_space_shows_what_a_run_would_search(small: Small, command: Command) -> None:
    rows = rows_of(command, "space", small.file)
    coordinates = {row["coordinate"]: row for row in rows if "coordinate" in row}
    seeds = {row["seed"]: row for row in rows if "seed" in row}
    (constraint,) = [row for row in rows if "constraint" in row]
    assert coordinates["weakening"]["high"] == 2
    assert coordinates["factorization:second"]["choices"] == ["svd", "tucker2", "dense"]
    assert list(seeds)[:3] == ["dense", "dense entropy", "fraction 0.5"]
    assert seeds["dense"]["macs_of_dense"] == 1
    assert seeds["fraction 0.5"]["layers"]["second"] == {"factorization": "svd", "rank": 6}
    assert constraint == {"constraint": "macs <= 0.95 * dense", "checked": "before training"}
    printed = command.fine("space", small.file).out
    assert all(title in printed for title in ("coordinates", "seed points", "constraints"))
    made = {row["label"]: row for row in rows_of(command, "trials", small.store, "stripes")}
    for label in ("dense", "fraction 0.5", "fraction 0.25"):
        assert made[label]["measurements"]["macs"] == seeds[label]["macs"]


def test_studies_and_trials_count_alike(small: Small, command: Command) -> None:
    (study,) = rows_of(command, "studies", small.store)
    trials = rows_of(command, "trials", small.store, "stripes")
    assert study["study"] == "stripes"
    assert study["objectives"] == ["error", "macs", "bits"]
    states = [row["state"] for row in trials]
    assert study["trials"] == {state: states.count(state) for state in set(states)}
    assert study["on_front"] == len(rows_of(command, "front", small.store, "stripes"))
    assert [row["trial"] for row in trials] == list(range(9))
    assert trials[0]["reason"] == "macs <= 0.95 * dense does not hold: macs is 18624"


# ---- front -------------------------------------------------------------------------------------------------


def completed(command: Command, small: Small) -> list[Row]:
    return [row for row in rows_of(command, "trials", small.store, "stripes") if row["state"] == "complete"]


def brute(rows: Sequence[Row], objectives: Sequence[str]) -> list[int]:
    losses = [[row["measurements"][name] for name in objectives] for row in rows]
    return sorted(rows[place]["trial"] for place in slow_front(losses))


def test_front_is_an_array_of_exactly_these(small: Small, command: Command) -> None:
    rows = rows_of(command, "front", small.store, "stripes", "--sort", "macs")
    for row in rows:
        assert list(row) == ["trial", "measurements", "losses", "layers", "penalties", "plus_minus"]
        assert row["losses"] == {name: row["measurements"][name] for name in ("error", "macs", "bits")}
        assert set(row["measurements"]) == {"error", "macs", "bits", "nonzeros", "params", "test_error"}
        assert set(row["penalties"]) == {"orthogonality", "entropy"}
        assert set(row["layers"]) == {"second", "last"}
        for choice in row["layers"].values():
            assert choice == "dense" or {"svd": {"rank"}, "tucker2": {"rank_out", "rank_in"}}[
                choice["factorization"]
            ] == set(choice) - {"factorization"}
    macs = [row["measurements"]["macs"] for row in rows]
    assert macs == sorted(macs)
    assert sorted(row["trial"] for row in rows) == brute(completed(command, small), ("error", "macs", "bits"))


def test_front_sorts_by_the_first_objective(small: Small, command: Command) -> None:
    errors = [row["measurements"]["error"] for row in rows_of(command, "front", small.store, "stripes")]
    assert errors == sorted(errors)


def test_front_within_bounds(small: Small, command: Command) -> None:
    everything = rows_of(command, "front", small.store, "stripes")
    limit = sorted(row["measurements"]["error"] for row in everything)[1]
    some = rows_of(
        command, "front", small.store, "stripes", "--where", f"error<={limit}", "--where", "macs <= 0.65*dense"
    )
    dense = rows_of(command, "show", small.store, "stripes", 0)[0]["dense"]
    expected = [
        row
        for row in everything
        if row["measurements"]["error"] <= limit and row["measurements"]["macs"] <= 0.65 * dense["macs"]
    ]
    assert 0 < len(expected) < len(everything)
    assert some == expected


def test_front_limited(small: Small, command: Command) -> None:
    everything = rows_of(command, "front", small.store, "stripes", "--sort", "bits")
    assert rows_of(command, "front", small.store, "stripes", "--sort", "bits", "--limit", 2) == everything[:2]


@pytest.mark.parametrize("objectives", ["error", "macs,error", "params, bits", "params"])
def test_front_of_other_objectives(objectives: str, small: Small, command: Command) -> None:
    rows = rows_of(command, "front", small.store, "stripes", "--objectives", objectives)
    names = objectives.replace(" ", "").split(",")
    assert sorted(row["trial"] for row in rows) == brute(completed(command, small), names)
    first = [row["measurements"][names[0]] for row in rows]
    assert first == sorted(first)


def test_front_in_the_past(small: Small, command: Command) -> None:
    trials = completed(command, small)
    for moment in range(9):
        rows = rows_of(command, "front", small.store, "stripes", "--as-of", moment)
        until = [row for row in trials if row["trial"] <= moment]
        assert sorted(row["trial"] for row in rows) == brute(until, ("error", "macs", "bits"))


# ---- one trial ---------------------------------------------------------------------------------------------


def test_show_says_who_dominates(small: Small, command: Command) -> None:
    for row in rows_of(command, "trials", small.store, "stripes"):
        (shown,) = rows_of(command, "show", small.store, "stripes", row["trial"])
        for field in ("trial", "state", "label", "measurements", "dominated_by", "reason"):
            assert shown[field] == row[field]
        printed = command.fine("show", small.store, "stripes", row["trial"]).out
        assert f"│ dominated_by            │ {'–' if row['dominated_by'] is None else row['dominated_by']}" in printed
        for layer, choice in shown["layers"].items():
            assert re.search(rf"│ {layer} +│ {choice if choice == 'dense' else choice['factorization']} ", printed)


def test_show_compares_with_the_dense_model(small: Small, command: Command) -> None:
    member = rows_of(command, "front", small.store, "stripes")[-1]["trial"]
    (shown,) = rows_of(command, "show", small.store, "stripes", member)
    assert set(shown["dense"]) == set(shown["measurements"])
    assert set(shown["artifacts"]) == {"model", "coded"}
    line = next(line for line in body(command.fine("show", small.store, "stripes", member).out) if " bits " in line)
    value, dense = shown["measurements"]["bits"], shown["dense"]["bits"]
    cells = [cell.strip() for cell in line.strip("│").split("│")]
    assert cells == ["bits", f"{value:,.0f}", "–", f"{dense:,.0f}", f"{dense / value:.4g}"]


def test_check_finds_nothing(small: Small, command: Command) -> None:
    answer = command.fine("check", small.store, "stripes")
    assert answer.out == "check of stripes: 9 trials, their front and its artifacts are as they should be\n"
    assert command.fine("check", small.store, "stripes", "--format", "csv").out == ""


FILES = {
    "safetensors": {"graph.json", "model.safetensors"},
    "pt2": {"model.pt2"},
    "onnx": {"model.onnx"},
}


@pytest.mark.parametrize("format", FILES)
def test_export(format: str, small: Small, tmp_path: Path, command: Command) -> None:
    if format == "onnx":
        pytest.importorskip("onnxscript")
        pytest.importorskip("onnxruntime")
    member = rows_of(command, "front", small.store, "stripes")[-1]["trial"]
    (shown,) = rows_of(command, "show", small.store, "stripes", member)
    folder = tmp_path / "exported"
    answer = command.fine("export", small.store, "stripes", member, "-o", folder, "--format", format)
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    assert {path.name for path in folder.iterdir()} == {"manifest.json", "model.coded", *FILES[format]}
    assert set(manifest["files"]) == {"model.coded", *FILES[format]}
    assert manifest["measurements"] == shown["measurements"]
    assert manifest["layers"] == shown["layers"]
    assert [path.name for path in tmp_path.iterdir()] == ["exported"]
    assert "verified" in answer.out
    assert all(name in answer.out for name in manifest["files"])
    assert (folder / "model.coded").stat().st_size * 8 == shown["measurements"]["bits"]
    if format == "safetensors":
        task = rs.load_study(small.file).task
        assert task.factory == "stripes.py:task"
        assert error_of(rs.load(folder)) == shown["measurements"]["error"]


def error_of(model: torch.nn.Module) -> float:
    from tests.story.stripes import batches

    with torch.no_grad():
        wrong = [(model(inputs).argmax(-1) != targets) for inputs, targets in batches(200, seed=2)]
    return float(torch.cat(wrong).double().mean())


# ---- run ---------------------------------------------------------------------------------------------------


def test_run_says_where_the_front_is(tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    study = write_study(tmp_path / "study", study={"name": "two words", "store": "", "trials": 3})
    answer = command.fine("run", study.file)
    assert answer.out == ""
    *progress, last = answer.err.splitlines()
    assert progress[-1].startswith("3/3 trials (2 infeasible, 1 complete) · front 1 · hypervolume 0.")
    assert last == "1 trial is on the front: rank-search front 'study/two words.sqlite' 'two words'"
    assert len(rows_of(command, *shlex.split(last.partition(": rank-search ")[2]))) == 1


def test_run_goes_on(copied: Small, command: Command) -> None:
    before = rows_of(command, "trials", copied.store, "stripes")
    command.fine("run", copied.file)
    assert rows_of(command, "trials", copied.store, "stripes") == before
    command.fine("run", copied.file, "--trials", 11, "--workers", 2)
    after = rows_of(command, "trials", copied.store, "stripes")
    assert [row["trial"] for row in after] == list(range(11))
    kept = {row["trial"]: {**row, "dominated_by": None, "measurements": None} for row in before}
    assert {row["trial"]: {**row, "dominated_by": None, "measurements": None} for row in after[:9]} == kept
    command.fine("check", copied.store, "stripes")


def test_run_into_another_store(copied: Small, tmp_path: Path, command: Command) -> None:
    store = tmp_path / "new folder" / "other.db"
    command.fine("run", copied.file, "--store", store, "--trials", 4)
    again = rows_of(command, "trials", store, "stripes")
    first = rows_of(command, "trials", copied.store, "stripes")[:4]
    assert [row["measurements"].get("bits") for row in again] == [row["measurements"].get("bits") for row in first]


def test_run_ends_when_everything_has_been_tried(tmp_path: Path, command: Command) -> None:
    study = write_study(
        tmp_path / "study",
        layers={"include": ["last"], "exclude": []},
        search={"entropy": "off", "constraints": []},
        training={"epochs": 0},
    )
    answer = command.fine("run", study.file, "--trials", 50)
    assert "Every point of the search space has been tried" in answer.err
    tried = [json.dumps(row["layers"]) for row in everything(command, study)]
    worthwhile = [rank for rank in range(1, 5) if rank * (48 + 4) < 48 * 4]
    assert len(tried) == len(set(tried)) == len(["dense", *worthwhile])


def everything(command: Command, study: Small) -> list[Row]:
    numbers = [row["trial"] for row in rows_of(command, "trials", study.store, "stripes")]
    return [rows_of(command, "show", study.store, "stripes", number)[0] for number in numbers]


# ---- plugins -----------------------------------------------------------------------------------------------


def test_plugins_lists_what_is_installed(command: Command) -> None:
    rows = {row["name"]: row for row in rows_of(command, "plugins")}
    assert {"svd", "svd-spatial", "tucker2", "cp"} <= set(rows)
    assert rows["svd"]["class"] == "rank_search_plugins.svd:ChannelSVD"
    assert rows["svd"]["package"].startswith("rank-search ")
    assert rows["svd"]["problem"] == ""


@pytest.mark.usefixtures("laws_checked_once")
def test_plugins_check_by_name(command: Command) -> None:
    rows = rows_of(command, "plugins", "check", "svd")
    assert len({row["law"] for row in rows}) == 6
    assert all(row["ok"] for row in rows)
    layers = len({row["layer"] for row in rows})
    assert command.fine("plugins", "check", "svd").err == f"svd keeps all 6 laws on all {layers} layers.\n"


WRONG = """
from rank_search_plugins.svd import ChannelSVD


class Doubled(ChannelSVD):
    def forward(self, x):
        return 2 * super().forward(x)
"""


def test_plugins_check_in_a_file(tmp_path: Path, command: Command) -> None:
    (tmp_path / "wrong.py").write_text(WRONG)
    answer = command("plugins", "check", f"{tmp_path / 'wrong.py'}:Doubled", "--format", "json")
    assert answer.code == 1
    assert {row["law"] for row in answer.json if not row["ok"]} == {"Agreement"}
    oks = [row["ok"] for row in answer.json]
    assert oks == sorted(oks)  # what is broken comes first
    layers, broken = len({row["layer"] for row in answer.json}), oks.count(False)
    assert answer.err.endswith(f":Doubled breaks 1 of 6 laws: Agreement on {broken} of {layers} layers.\n")


# ---- names -------------------------------------------------------------------------------------------------


def test_names_are_taken_as_they_are(tmp_path: Path, command: Command) -> None:
    """Layers and studies with markup of terminals, of HTML and of SQL in their names, in every verb."""
    name = """[red]"naïve"[/red] <script>'; DROP TABLE rs_trial; --"""
    study = write_study(
        tmp_path / "study",
        study={"name": name, "trials": 4},
        task={"factory": "stripes.py:oddly_named"},
        layers={"exclude": [], "factorizations": ["svd"]},
        search={"sampler": "tpe", "seeds": {"fractions": [0.75, 0.5, 0.35, 0.25, 0.15]}},
    )
    command.fine("run", study.file)
    for verb in ("layers", "priors", "space"):
        printed = command.fine(verb, study.file).out
        assert all(layer in printed for layer in ODD_NAMES[1:])
    assert name in command.fine("studies", study.store).out
    assert f"check of {name}: 4 trials" in command.fine("check", study.store, name).out
    assert f"trials of {name}" in command.fine("trials", study.store, name).out
    member = rows_of(command, "front", study.store, name)[0]
    assert set(ODD_NAMES) == set(member["layers"])
    assert all(layer in command.fine("front", study.store, name).out for layer in ODD_NAMES)
    assert all(layer in command.fine("show", study.store, name, member["trial"]).out for layer in ODD_NAMES)
    command.fine("export", study.store, name, member["trial"], "-o", tmp_path / "exported")
    assert error_of(rs.load(tmp_path / "exported")) == member["measurements"]["error"]


# ---- help --------------------------------------------------------------------------------------------------


def verbs() -> list[tuple[str, Any]]:
    group: Any = typer.main.get_command(app)
    return [*group.commands.items(), ("plugins check", group.commands["plugins"].commands["check"])]


@pytest.mark.parametrize(("verb", "its"), verbs(), ids=[verb for verb, _ in verbs()])
def test_help_says_what_is_printed_and_has_an_example(verb: str, its: Any, command: Command) -> None:
    printed = command.fine(*verb.split(), "--help").out
    assert printed.startswith("Usage: ")
    examples = re.findall(r"Example: rank-search (.*)", its.help)
    assert len(examples) == 1
    assert len(its.help.partition("Example")[0].split()) > 5
    example = shlex.split(examples[0])
    if verb != "plugins":
        assert " ".join(example).startswith(verb)
    assert "rank-search " + examples[0] in " ".join(printed.split())
    parsed = parse(example)
    assert parsed.params


def parse(example: list[str]) -> Any:
    """The context that a command line makes, without running it."""
    current: Any = typer.main.get_command(app)
    while hasattr(current, "commands") and example[0] in current.commands:
        current, example = current.commands[example[0]], example[1:]
    return current.make_context(current.name, list(example))


def test_help_lists_every_verb(command: Command) -> None:
    printed = command.fine("--help").out
    assert all(re.search(rf"^  {verb} ", printed, re.MULTILINE) for verb, _ in verbs() if " " not in verb)


# ---- dashboard ---------------------------------------------------------------------------------------------


def test_the_mirror_has_everything(small: Small, command: Command) -> None:
    with rs.Store.open(small.store) as store:
        storage = mirrored(store)
    (study,) = storage.get_all_studies()
    assert study.study_name == "stripes"
    trials = storage.get_all_trials(study._study_id)
    rows = everything(command, small)
    assert len(trials) == len(rows)
    members = {row["trial"] for row in rows_of(command, "front", small.store, "stripes")}
    for trial, row in zip(trials, rows, strict=True):
        assert trial.number == trial.user_attrs["trial"] == row["trial"]
        assert trial.user_attrs["layers"] == row["layers"]
        assert trial.user_attrs["on_front"] == (row["trial"] in members)
        assert trial.state.name == {"complete": "COMPLETE", "infeasible": "PRUNED"}[row["state"]]
        assert 0 <= trial.params["weakening"] <= 2
        if row["state"] == "complete":
            assert trial.values == [row["measurements"][name] for name in ("error", "macs", "bits")]


@contextmanager
def serving(small: Small) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`rank-search dashboard` in a process of its own, on a free port; yields the process and its address."""
    program = Path(sys.executable).with_name("rank-search")
    with subprocess.Popen(
        [program, "dashboard", small.store, "--port", "0"], stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stderr is not None
            line = process.stderr.readline()
            found = re.search(r"http://127\.0\.0\.1:[1-9]\d*", line)
            assert found, line
            yield process, found[0]
        finally:
            process.kill()


def test_dashboard(small: Small, command: Command) -> None:
    with serving(small) as (process, address):
        with urllib.request.urlopen(f"{address}/api/studies") as answer:
            (study,) = json.load(answer)["study_summaries"]
        assert study["study_name"] == "stripes"
        with urllib.request.urlopen(f"{address}/api/studies/{study['study_id']}") as answer:
            assert len(json.load(answer)["trials"]) == 9
        port = address.rpartition(":")[2]
        taken = command("dashboard", small.store, "--port", port)
        assert taken.code == 2
        assert "Address already in use. Try --port 0." in " ".join(taken.err.split())
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
