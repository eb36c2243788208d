"""Stores that older versions wrote."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from alembic import command, op
from sqlalchemy import Connection, MetaData, create_engine, insert, inspect, select, update

from rank_search.errors import StoreError
from rank_search.point import Point, State
from rank_search.store import Store, locate, schema
from rank_search.store.database import Database
from tests.store.store_tools import (
    BEGIN,
    END,
    a_point,
    anybody_else,
    complete,
    finish,
    go_on,
    numbers,
    record,
    stopped,
)

NAIVE = END.replace(tzinfo=None)


@pytest.fixture
def old_url(new_url: Callable[[], str]) -> str:
    """A store of the first schema: trials 0 and 1, of which 1 dominates 0, trial 2 that failed, and claim 3."""
    url = new_url()
    database = Database(locate(url))
    database.use_write_ahead_log()
    database.write(_make_first_schema)
    database.close()
    return url


def _make_first_schema(connection: Connection) -> None:
    config = schema._config()
    config.attributes["connection"] = connection
    command.upgrade(config, "0001")
    found = MetaData()
    found.reflect(connection)
    for table, rows in _old_rows().items():
        connection.execute(insert(found.tables[table]), rows)
    trial = found.tables["rs_trial"]
    connection.execute(update(trial).where(trial.c.number == 0).values(dominated_by=2))


def _old_rows() -> dict[str, list[dict[str, Any]]]:
    study = {
        "name": "old",
        "fingerprint": {"weights": "00aa"},
        "space": {"x": 1},
        "reference_point": {"a": 10.0, "b": 10.0},
        "ideal": {"a": 0.0, "b": 0.0},
        "dense": {"a": 4.0},
        "budget": 7.5,
        "created": NAIVE,
    }
    points = [a_point(rank) for rank in range(900, 904)]
    return {
        "rs_study": [study],
        "rs_objective": [
            {"study_id": 1, "position": place, "name": name, "direction": "minimize"} for place, name in enumerate("ab")
        ],
        "rs_claim": [_claim(3, points[3])],
        "rs_trial": [_trial(number, points[number]) for number in range(3)],
        "rs_choice": [
            {"trial_id": number + 1, "layer": layer, "factorization": factorization, "axis": axis, "value": value}
            for number in range(3)
            for layer, factorization, axis, value in (
                ("conv", "tucker2", "rank_out", 900.0 + number),
                ("conv", "tucker2", "rank_in", 3.0),
                ("fc", "dense", "", None),
            )
        ],
        "rs_measurement": [
            {"trial_id": number + 1, "budget": 7.5, "name": name, "value": 2.0 - number}
            for number in range(2)
            for name in "ab"
        ],
    }


def _claim(number: int, point: Point) -> dict[str, Any]:
    return {
        "study_id": 1,
        "number": number,
        "point": point.to_json(),
        "point_key": point.key,
        "worker": "host:1",
        "attempt": 1,
        "started": NAIVE,
        "heartbeat": NAIVE,
        "sampler": json.dumps({"label": "x"}),
    }


def _trial(number: int, point: Point) -> dict[str, Any]:
    common = {name: value for name, value in _claim(number, point).items() if name != "heartbeat"}
    failed = number == 2
    return {
        **common,
        "state": "failed" if failed else "complete",
        "budget": 7.5,
        "rng_seed": number,
        "finished": NAIVE,
        "reason": "it raised" if failed else "",
        "eligible": not failed,
    }


def test_an_old_store_is_read_as_it_was(old_url: str) -> None:
    with Store.open(old_url) as store:
        study = store.study("old")
        assert (study.budget, study.artifacts, study.target) == (7.5, "", None)
        assert [row.number for row in store.trials(study)] == [0, 1, 2]
        assert [row.earlier for row in store.trials(study)] == [{}, {}, {}]
        assert [(row.settled, row.model_point) for row in store.trials(study)] == [
            (None, a_point(rank)) for rank in range(900, 903)
        ]
        assert numbers(store.front(study)) == [1]
        assert numbers(store.front(study, as_of=0)) == [0]
        (claim,) = store.claims(study)
        assert (claim.number, claim.budget, claim.heartbeat) == (3, 7.5, END)
        activity = store.activity(study, BEGIN)
        assert activity.trials == {State.COMPLETE: 2, State.FAILED: 1}
        assert store.check(study) == []


def test_an_old_store_goes_on(old_url: str) -> None:
    with Store.open(old_url, create=True) as store:
        study = store.study("old")
        claim, _ = store.take_over(study, "new", anybody_else("new"))
        assert claim.budget == 7.5
        assert record(store, study, claim, complete(a=0.5, b=0.5)).dominated_by is None
        row = finish(store, study, stopped(a=0, b=0), budget=2.5)
        assert row.number == 4
        go_on(store, study, row.number, complete(a=0.1, b=0.1), budget=7.5)
        store.set_target(study, 9)
        assert store.study("old").target == 9
        assert numbers(store.front(study)) == [4]
        assert store.check(study) == []


def test_an_upgraded_store_has_the_schema_of_a_new_one(old_url: str, new_url: Callable[[], str]) -> None:
    new = new_url()
    Store.open(old_url).close()
    Store.open(new, create=True).close()
    assert _description(old_url) == _description(new)


def _description(url: str) -> dict[str, Any]:
    engine = create_engine(locate(url))
    inspector = inspect(engine)
    found = {
        table: (
            sorted(
                (column["name"], str(column["type"]), column["nullable"]) for column in inspector.get_columns(table)
            ),
            sorted((str(index["name"]), index["column_names"]) for index in inspector.get_indexes(table)),
        )
        for table in inspector.get_table_names()
    }
    engine.dispose()
    return found


def test_several_processes_may_upgrade_at_once(old_url: str) -> None:
    code = (
        "import sys; from rank_search.store import Store\n"
        "with Store.open(sys.argv[1]) as store: print(len(store.trials(store.study('old'))))"
    )
    command_line = [sys.executable, "-c", code, old_url]
    processes = [subprocess.Popen(command_line, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert [process.communicate(timeout=60)[0].strip() for process in processes] == ["3"] * 3


def test_an_upgrade_that_breaks_off_changes_nothing(old_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = _description(old_url)

    def fail(*_: object, **__: object) -> None:
        raise StoreError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(op, "create_index", fail)
        with pytest.raises(StoreError, match="the disk is full"):
            Store.open(old_url)
    assert _description(old_url) == before
    with Store.open(old_url) as store:
        assert len(store.trials(store.study("old"))) == 3


def test_every_table_of_an_old_store_has_rows_here(old_url: str) -> None:
    engine = create_engine(locate(old_url))
    found = MetaData()
    found.reflect(engine)
    with engine.connect() as connection:
        empty = {name for name, table in found.tables.items() if not connection.execute(select(table)).all()}
    engine.dispose()
    assert empty == {"rs_prior", "rs_artifact"}
