"""A study of version 0.1 as an SQLite file and as a PostgreSQL dump: every later build opens it and goes on with it.

`golden/make.py` made it, once: trials of every state, some stopped at a rung with their checkpoints, and one in flight
whose driver died.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

import rank_search as rs
from rank_search.point import State
from tests.store.postgres import Server, programs_or_skip
from tests.story.small import Command

GOLDEN = Path(__file__).parent / "golden" / "study"


@dataclass(frozen=True)
class Golden:
    """A copy of the golden study, to be gone on with."""

    folder: Path
    store: str
    kind: str

    @property
    def file(self) -> Path:
        return self.folder / "waves.toml"

    @property
    def files(self) -> Path:
        return self.folder / "waves.artifacts" / "waves"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with ExitStack() as stack:
        yield stack.enter_context(Server(programs_or_skip()))


@pytest.fixture(params=["sqlite", "postgresql"])
def golden(request: pytest.FixtureRequest, tmp_path: Path) -> Golden:
    folder = tmp_path / "golden"
    shutil.copytree(GOLDEN, folder)
    (folder / "waves.artifacts").mkdir()
    (folder / "files").rename(folder / "waves.artifacts" / "waves")
    store = folder / "waves.sqlite"
    (folder / "waves.sqlite3").rename(store)
    if request.param == "sqlite":
        return Golden(folder, str(store), "sqlite")
    store.unlink()
    return Golden(folder, _restored(request.getfixturevalue("server"), folder), "postgresql")


def _restored(server: Server, folder: Path) -> str:
    import psycopg

    url = server.create_database()
    dump = (GOLDEN / "waves.sql").read_text(encoding="utf-8").replace("/golden", str(folder))
    with psycopg.connect(url) as connection:
        connection.execute(dump)  # type: ignore[arg-type]
    return url


def test_everything_that_it_knew_is_read(golden: Golden) -> None:
    with rs.Store.open(golden.store) as store:
        study = store.study("waves")
        assert [each.name for each in study.objectives] == ["error", "macs", "bits"]
        assert (study.budget, study.target, len(study.priors)) == (1.0, 14, 4)
        trials = {row.number: row for row in store.trials(study)}
        assert sorted(trials) == list(range(13))
        states = {state: [n for n, row in sorted(trials.items()) if row.state is state] for state in State}
        assert {state: found for state, found in states.items() if found} == {
            State.COMPLETE: [3, 6, 8, 9],
            State.STOPPED: [5, 7, 10, 11, 12],
            State.INFEASIBLE: [0, 1],
            State.FAILED: [2, 4],
        }
        assert trials[2].reason == "RuntimeError: the golden trial that fails"
        assert [row.earlier.keys() for row in store.front(study)] == [{0.5}] * len(store.front(study))
        (claim,) = store.claims(study)
        assert (claim.number, claim.attempt, claim.budget) == (13, 1, 0.5)


def test_its_front_now_and_then(golden: Golden) -> None:
    with rs.Store.open(golden.store) as store:
        study = store.study("waves")
        now = {row.number for row in store.front(study)}
        order = [row.number for row in store.trials(study)]
        assert now == {3, 6, 8, 9}
        assert {row.number for row in store.front(study, as_of=order[order.index(3)])} == {3}
        assert {row.number for row in store.front(study, as_of=6)} == {3, 6}
        (smallest, *_) = store.front(study, sort="bits")
        assert smallest.measurements["bits"] == 8 * 244


def test_it_is_sound(golden: Golden, command: Command) -> None:
    command.fine("check", golden.store, "waves")
    (one,) = golden.files.glob("*-df56349b2d255fcb.coded")
    one.write_bytes(b"changed")
    assert "SHA-256" in command("check", golden.store, "waves").out.replace("\n", " ")


def test_it_goes_on(golden: Golden, command: Command, tmp_path: Path) -> None:
    with rs.Store.open(golden.store) as store:
        before = {row.number: row for row in store.trials(store.study("waves"))}
        (claim,) = store.claims(store.study("waves"))
    command.fine("run", golden.file, "--store", golden.store, "--trials", 16)
    command.fine("check", golden.store, "waves")
    with rs.Store.open(golden.store) as store:
        study = store.study("waves")
        after = {row.number: row for row in store.trials(study)}
        assert sorted(after) == list(range(16))
        assert store.claims(study) == []
        assert after[13].point == claim.point, "the trial that was in flight is carried out under its number"
        ended = [number for number, row in before.items() if row.state is not State.STOPPED]
        assert [after[number].point for number in before] == [row.point for row in before.values()]
        assert [after[number].state for number in ended] == [before[number].state for number in ended]
        assert all("test_error" in row.measurements for row in store.front(study))
        number = store.front(study)[0].number
    command.fine("export", golden.store, "waves", number, "--study", golden.file, "-o", tmp_path / "exported")
    with torch.no_grad():
        assert rs.load(tmp_path / "exported")(torch.zeros(2, 1, 8, 8)).shape == (2, 4)


def test_what_it_exported_is_loaded(tmp_path: Path) -> None:
    folder, packed = rs.load(GOLDEN / "exported"), rs.load(GOLDEN / "packed.rsz")
    rs.unpack_file(GOLDEN / "packed.rsz", tmp_path / "unpacked")
    batch = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(folder(batch), packed(batch))
        assert torch.equal(rs.load(tmp_path / "unpacked")(batch), packed(batch))
