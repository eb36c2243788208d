"""What docs/no-data.md shows is valid, and says what the code says."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import get_args

from rank_search.cli.parameters import MadeUp
from rank_search.study import Study
from rank_search.study.data_settings import Source
from rank_search.tasks import AGREEMENT, LAYER_ERROR
from tests.cluster.commands import check_ours, commands, lines_of_code

PAGE = (Path(__file__).parents[2] / "docs" / "no-data.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)


def test_its_study_file_is_valid() -> None:
    (text,) = blocks("toml")
    study = Study.model_validate(tomllib.loads(text))
    assert study.data.source == "synthetic"
    assert study.search.objectives[0].name in AGREEMENT


def test_its_commands_exist() -> None:
    found = commands(lines_of_code(PAGE), "rank-search")
    assert [words[0] for words in found] == ["run", "export", "run"]
    for words in found:
        check_ours(words)


def test_all_sources_and_measures_are_named() -> None:
    assert {each.value for each in MadeUp} == set(get_args(Source)) - {"task"}
    for name in (*get_args(Source), *AGREEMENT, LAYER_ERROR):
        assert f"`{name}`" in PAGE or f'"{name}"' in PAGE or name == "task"
