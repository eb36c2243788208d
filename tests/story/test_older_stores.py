"""A study that was written before there were some keys goes on as long as they keep their defaults."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from typing import Any

from rank_search.store import Store
from tests.story.small import Command, Small, write_study

# The keys of [training] in the first version; later ones have defaults that change nothing.
FIRST_KEYS = {
    *("epochs", "optimizer", "learning_rate", "schedule", "momentum", "weight_decay", "gradient_clip"),
    *("orthogonality_penalty", "entropy_start_bits", "entropy_learning_rate", "entropy_warmup"),
}


def make_older(small: Small) -> set[str]:
    """Take later keys out of the stored study, and a later table; say which keys of [training] there were."""
    with closing(sqlite3.connect(small.store)) as connection, connection:
        fingerprint, space = map(json.loads, connection.execute("SELECT fingerprint, space FROM rs_study").fetchone())
        later = {key for key in space["study"]["training"] if key not in FIRST_KEYS}
        for key in later:
            del space["study"]["training"][key]
            del fingerprint[f"training.{key}"]
        for key in space["study"].pop("coding"):
            del fingerprint[f"coding.{key}"]
        texts = [json.dumps(each) for each in (fingerprint, space)]
        connection.execute("UPDATE rs_study SET fingerprint = ?, space = ?", texts)
    return later


def fingerprint(small: Small) -> dict[str, Any]:
    with closing(sqlite3.connect(small.store)) as connection:
        found: dict[str, Any] = json.loads(connection.execute("SELECT fingerprint FROM rs_study").fetchone()[0])
        return found


def test_it_goes_on_while_later_keys_have_their_defaults(copied: Small, command: Command) -> None:
    assert {"distillation", "warmup", "average"} <= make_older(copied)
    before = fingerprint(copied)
    command.fine("run", copied.file, "--trials", 10)
    assert fingerprint(copied) == before
    with Store.open(copied.store) as store:
        assert len(store.trials(store.study("stripes"))) == 10


def test_a_later_key_with_another_value_is_refused(copied: Small, command: Command) -> None:
    make_older(copied)
    write_study(copied.folder, training={"distillation": 0.5})
    complaint = command.refused("run", copied.file, "--trials", 10)
    assert "training.distillation is nothing in the store, 0.5 now" in complaint
    assert "warmup" not in complaint


def test_a_later_table_with_another_value_is_refused(copied: Small, command: Command) -> None:
    make_older(copied)
    write_study(copied.folder, coding={"steps": "channel"})
    assert "coding.steps is nothing in the store, channel now" in command.refused("run", copied.file, "--trials", 10)


def test_an_earlier_key_is_still_compared(copied: Small, command: Command) -> None:
    make_older(copied)
    write_study(copied.folder, training={"momentum": 0.8})
    assert "training.momentum is 0.9 in the store, 0.8 now" in command.refused("run", copied.file, "--trials", 10)


def test_importances_may_be_left_out_where_there_was_no_such_key(copied: Small, command: Command) -> None:
    make_older(copied)
    with closing(sqlite3.connect(copied.store)) as connection, connection:
        kept, space = map(json.loads, connection.execute("SELECT fingerprint, space FROM rs_study").fetchone())
        del kept["priors.importances"], space["study"]["priors"]["importances"]
        connection.execute("UPDATE rs_study SET fingerprint = ?, space = ?", [json.dumps(kept), json.dumps(space)])
    write_study(copied.folder, priors={"importances": 0})
    command.fine("run", copied.file, "--trials", 10)
    write_study(copied.folder, priors={"importances": 2})
    complaint = command.refused("run", copied.file, "--trials", 11)
    assert "priors.importances is nothing in the store, 2 now" in complaint
