"""Which words after a verb are which."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rank_search.cli.verb import split
from rank_search.cli.words import Shape, complete
from rank_search.errors import QueryError

FRONT = Shape(name=True, after=0, many=False)
SHOW = Shape(name=True, after=1, many=False)
STUDIES = Shape(name=False, after=0, many=False)
CONFIRM = Shape(name=True, after=0, many=True)
COMPARE = Shape(name=False, after=0, many=True)
DELETE = Shape(name=False, after=1, many=False)
SERVER = "postgresql://me@host/db"


def one(store: str) -> list[str]:
    return ["only"]


def several(store: str) -> list[str]:
    return ["first", "30"]


@pytest.mark.parametrize(
    ("shape", "words", "default", "found"),
    [
        (FRONT, "a.sqlite digits", None, "a.sqlite digits"),
        (FRONT, "a.sqlite digits", SERVER, "a.sqlite digits"),
        (FRONT, "digits a.sqlite", SERVER, "digits a.sqlite"),
        (FRONT, "a.sqlite", None, "a.sqlite only"),
        (FRONT, "nothing", None, "nothing only"),
        (FRONT, "", SERVER, f"{SERVER} only"),
        (FRONT, "digits", SERVER, f"{SERVER} digits"),
        (FRONT, "a.sqlite", SERVER, "a.sqlite only"),
        (FRONT, "a.db", SERVER, "a.db only"),
        (FRONT, "postgresql://other/db", SERVER, "postgresql://other/db only"),
        (SHOW, "a.sqlite digits 12", SERVER, "a.sqlite digits 12"),
        (SHOW, "a.sqlite 12", None, "a.sqlite only 12"),
        (SHOW, "12", SERVER, f"{SERVER} only 12"),
        (SHOW, "digits 12", SERVER, f"{SERVER} digits 12"),
        (SHOW, "digits 12", None, "digits only 12"),
        (STUDIES, "here", SERVER, "here"),
        (STUDIES, "", SERVER, SERVER),
        (CONFIRM, "a.sqlite", None, "a.sqlite only"),
        (CONFIRM, "a.sqlite 3 4", None, "a.sqlite only 3 4"),
        (CONFIRM, "a.sqlite digits 3 4", None, "a.sqlite digits 3 4"),
        (CONFIRM, "3 4", SERVER, f"{SERVER} only 3 4"),
        (CONFIRM, "digits", SERVER, f"{SERVER} digits"),
        (COMPARE, "one two", SERVER, f"{SERVER} one two"),
        (COMPARE, "a.sqlite one", SERVER, "a.sqlite one"),
        (DELETE, "a.sqlite", None, "a.sqlite"),
        (DELETE, "digits", SERVER, f"{SERVER} digits"),
    ],
)
def test_a_store_or_name_left_out_is_filled_in(shape: Shape, words: str, default: str | None, found: str) -> None:
    assert complete(words.split(), shape, default, one) == found.split()


def test_a_file_that_is_there_is_the_store(tmp_path: Path) -> None:
    file, folder = tmp_path / "results", tmp_path / "digits"
    file.touch()
    folder.mkdir()
    assert complete([str(file)], FRONT, SERVER, one) == [str(file), "only"]
    assert complete([str(folder)], FRONT, SERVER, one) == [SERVER, str(folder)]
    assert complete(["x" * 5000], FRONT, SERVER, one) == [SERVER, "x" * 5000]
    assert complete(["\0"], FRONT, SERVER, one) == [SERVER, "\0"]


def test_a_study_may_be_named_as_a_number() -> None:
    assert complete(["a.db", "30", "4"], CONFIRM, None, several) == ["a.db", "30", "4"]
    with pytest.raises(QueryError, match=r"a\.db has 2 studies: first, 30"):
        complete(["a.db", "31", "4"], CONFIRM, None, several)


def test_no_store_and_no_study() -> None:
    with pytest.raises(QueryError, match="set RANK_SEARCH_STORE"):
        complete([], FRONT, None, one)
    with pytest.raises(QueryError, match="has no studies yet"):
        complete(["a.db"], FRONT, None, lambda store: [])


def test_a_password_is_not_shown() -> None:
    with pytest.raises(QueryError) as caught:
        complete(["postgresql://me:secret@host/db"], FRONT, None, several)
    assert "secret" not in str(caught.value)


class _Option:
    def __init__(self, *opts: str, flag: bool = False, no: str = "") -> None:
        self.opts, self.secondary_opts, self.is_flag = list(opts), [no] if no else [], flag


PARAMS = [
    _Option("--where"),
    _Option("--output", "-o"),
    _Option("--knee", flag=True),
    _Option("--a", flag=True, no="--b"),
]


@pytest.mark.parametrize(
    ("line", "options", "words"),
    [
        ("a --where x<1 b", "--where x<1", "a b"),
        ("--where=x a", "--where=x", "a"),
        ("-o file a -ofile", "-o file -ofile", "a"),
        ("--knee a --b b", "--knee --b", "a b"),
        ("a -- --where b", "", "a --where b"),
        ("a - --where", "--where", "a -"),
        ("--bogus a", "--bogus", "a"),
        ("--where --knee a", "--where --knee", "a"),
        ("-h a", "-h", "a"),
    ],
)
def test_options_and_words(line: str, options: str, words: str) -> None:
    assert split(line.split(), PARAMS) == (options.split(), words.split())


def test_the_environment_of_these_tests_names_no_store() -> None:
    assert "RANK_SEARCH_STORE" not in os.environ
