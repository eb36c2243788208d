"""docs/cluster.md says what there is: its commands parse, its keys exist, its files are there."""

from __future__ import annotations

import re
import tomllib
from typing import Any

import pytest

import rank_search
from rank_search.launch import LaunchSettings
from rank_search.study import Study
from rank_search.submit.folder import LARGEST, LEFT_OUT
from rank_search.submit.reachable import STORE_VARIABLE
from tests.cluster.commands import ROOT, check_ours, check_ray, commands, lines_of_code

PAGE = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")
OURS = commands(lines_of_code(PAGE), "rank-search")
RAYS = [words for words in commands(lines_of_code(PAGE), "ray") if words[0] != "job"]
JOBS = [words for words in commands(lines_of_code(PAGE), "ray") if words[0] == "job"]
STUDIES: list[dict[str, Any]] = [
    tomllib.loads(text) for text in re.findall(r"^```toml\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)
]


@pytest.mark.parametrize("words", OURS, ids=" ".join)
def test_our_commands_parse(words: list[str]) -> None:
    check_ours(words)


@pytest.mark.parametrize("words", [*RAYS, *JOBS], ids=" ".join)
def test_commands_of_ray_parse(words: list[str]) -> None:
    check_ray(words)


def test_the_page_shows_every_verb_that_a_cluster_needs() -> None:
    assert {words[0] for words in OURS} >= {"run", "submit", "status", "front", "check", "dashboard"}
    assert {words[0] for words in RAYS} >= {"start", "get-auth-token", "status", "up", "down"}
    assert {words[1] for words in JOBS} == {"list", "logs", "stop"}


def test_the_tables_are_valid() -> None:
    merged = {key: value for table in STUDIES for key, value in table.items()}
    assert Study.model_validate(merged).launch.on == "ray"


def test_every_key_of_launch_is_one() -> None:
    keys = {field.alias or name for name, field in LaunchSettings.model_fields.items()}
    (launch,) = (table["launch"] for table in STUDIES if "launch" in table)
    assert keys - {"threads"} == set(launch)
    assert set(re.findall(r"`\[launch\] (\w+)", PAGE)) <= keys


def test_what_is_said_about_the_package_is_so() -> None:
    assert f"under {LARGEST >> 20} MiB" in PAGE
    assert STORE_VARIABLE in PAGE
    for glob in ("*.sqlite*", "*.artifacts", "runs", ".git", ".env", ".pgpass"):
        assert glob in LEFT_OUT
        assert f"`{glob}`" in PAGE


def test_the_python_example_uses_names_that_there_are() -> None:
    for name in set(re.findall(r"\brs\.(\w+)", PAGE)):
        assert hasattr(rank_search, name), name
