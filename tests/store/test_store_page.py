"""What `docs/store.md` shows runs, on both databases, and its tables name every column."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from rank_search.store import PriorRow, Store, tables
from tests.store.store_tools import a_point, a_record, complete, fill, finish, go_on, stopped

PAGE = (Path(__file__).parents[2] / "docs" / "store.md").read_text()
EXAMPLES = re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture(scope="module")
def answers(new_url) -> list[list[tuple[object, ...]]]:
    """What each example answers on a study of 14 trials in which 0 and 12 are on the front, 1 was, and 13 went on."""
    url = new_url()
    with Store.open(url, create=True) as store:
        study = store.join(a_record(name="digits", priors=(PriorRow("conv", "tucker2", "rank_in", 2, 9),)))
        finish(store, study, complete(a=1, b=5, error=0.5, macs=7.0), point=a_point(1000))
        fill(store, study, [[3, 3], *[[5, 5]] * 10])
        finish(store, study, complete(a=2, b=2), point=a_point(1012))
        finish(store, study, stopped(a=9, b=9), point=a_point(1013), budget=1.0)
        go_on(store, study, 13, complete(a=8, b=8))
        store.join(replace(study, fingerprint={**study.fingerprint, "code task.py": "22cc"}))
        longer = store.join(a_record(name="digits@30"))
        finish(store, longer, complete(a=1, b=5, error=0.25), point=a_point(1000))
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.connect() as connection:
        found = [[tuple(row) for row in connection.execute(text(sql.rstrip(";\n")))] for sql in EXAMPLES]
    engine.dispose()
    return found


def test_the_examples_answer(answers: list[list[tuple[object, ...]]]) -> None:
    by_trial, ranks, dense, suggested, confirmed, states, past, budgets, changes = answers
    assert sorted(row[0] for row in by_trial) == [0, 12]
    assert (0, 0.5, 7.0) in by_trial
    assert ranks == []  # no layer is called conv1 here
    assert dense == [("fc", 2)]
    assert suggested == [(0, "conv", "rank_in", 9, 2, 3.0), (12, "conv", "rank_in", 9, 2, 3.0)]
    assert confirmed == [(0, 0, 0.5, 0.25)]
    assert states == [("complete", 14, 1)]
    assert past == [(0,), (12,)]
    assert [(part, last) for part, _, last in changes] == [("code task.py", 13)]
    assert budgets == [(13, 1.0, "a", 9.0), (13, 1.0, "b", 9.0), (13, 2.0, "a", 8.0), (13, 2.0, "b", 8.0)]


@pytest.mark.parametrize("table", tables.metadata.sorted_tables, ids=str)
def test_every_column_is_explained(table) -> None:
    about = PAGE.split(f"`{table.name}`:")[1].split("\n`rs_")[0]
    assert [column.name for column in table.c if f"`{column.name}`" not in about] == []


def test_the_python_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    with Store.open("digits.sqlite", create=True) as store:
        study = store.join(a_record(name="digits", dense={"macs": 10.0}))
        finish(store, study, complete(a=1, b=1, macs=3.0, bits=1.0))
    exec(compile(example, "store.md", "exec"), {})
