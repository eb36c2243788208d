"""Public names are what is declared, and what is declared is documented."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import tomllib
from collections import Counter
from pathlib import Path

import pytest
import typer

import rank_search
from rank_search.cli.main import app
from rank_search.cli.verb_reference import reference as verb_reference
from rank_search.errors import RankSearchError
from rank_search.layers import installed
from rank_search.study.reference import reference

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
VERBS = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
ROOMS = sorted(path.parent.name for path in (ROOT / "rank_search").glob("*/__init__.py"))


def test_every_public_name_loads() -> None:
    for name in rank_search.__all__:
        assert getattr(rank_search, name) is not None
    assert rank_search.__all__ == sorted(rank_search.__all__)
    with pytest.raises(AttributeError):
        rank_search.nothing  # noqa: B018


def test_a_public_name_that_is_a_room_can_be_called_whatever_was_imported_before() -> None:
    """Importing a room puts it in the place of any function of its name: so the room itself is the function."""
    modules = {path.stem for path in (ROOT / "rank_search").iterdir()}
    called = (modules & set(rank_search.__all__)) - {"representations"}  # shown whole, and no function's name
    assert called == {"layers", "options"}
    for name in called:
        room = importlib.import_module(f"rank_search.{name}")
        assert getattr(rank_search, name) is room
        assert inspect.signature(room) == inspect.signature(getattr(room, name))


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_declares_what_it_exports(room: str) -> None:
    module = importlib.import_module(f"rank_search.{room}")
    imported = {
        alias.asname or alias.name
        for node in ast.walk(ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith(f"rank_search.{room}.")
        for alias in node.names
    }
    assert set(module.__all__) == imported


def test_no_two_modules_have_one_name() -> None:
    modules = [path.stem for path in (ROOT / "rank_search").rglob("*.py") if "migrations" not in path.parts]
    names = Counter([*modules, *ROOMS])
    assert [name for name, count in names.items() if count > 1 and name not in ("__init__", "settings")] == []


def test_no_two_public_classes_have_one_name() -> None:
    classes = Counter(
        node.name
        for path in (ROOT / "rank_search").rglob("*.py")
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    assert [name for name, count in classes.items() if count > 1] == []


def test_every_class_of_the_glossary_is_there_and_every_word_is_explained_once() -> None:
    classes = {
        node.name
        for path in (ROOT / "rank_search").rglob("*.py")
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef)
    }
    page = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (.+?) \| .+ \|(?: `(\w+)`)? \|$", page, flags=re.MULTILINE)
    assert len(rows) == page.count("\n| ") - 2  # the head and the rule below it
    assert {name for _, name in rows if name} - classes == set()
    words = Counter(word for names, _ in rows for word in names.split(", "))
    assert [word for word, count in words.items() if count > 1] == []


def test_every_room_has_a_docstring() -> None:
    for path in sorted((ROOT / "rank_search").rglob("*.py")):
        assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), path


def test_the_error_tree_is_drawn_as_it_is() -> None:
    module = importlib.import_module("rank_search.errors")
    defined = {
        name for name, each in vars(module).items() if isinstance(each, type) and issubclass(each, RankSearchError)
    }
    drawn = set(re.findall(r"\b[A-Z]\w+Error\b", module.__doc__ or "")) - {
        "ValueError",
        "TypeError",
        "LookupError",
        "ImportError",
        "RuntimeError",
    }
    assert drawn == defined


def verbs() -> dict[str, str]:
    group = typer.main.get_command(app)
    return {name: command.help or "" for name, command in group.commands.items()}  # type: ignore[attr-defined]


@pytest.mark.parametrize("verb", sorted(verbs()))
def test_each_verb_is_documented_with_an_example(verb: str) -> None:
    assert f"\n## {verb}\n" in VERBS
    assert f"\nrank-search {verb} " in VERBS
    assert f"Example: rank-search {verb}" in verbs()[verb]


def test_each_built_in_plugin_is_documented() -> None:
    ours = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    names = ours["project"]["entry-points"]["rank_search.factorizations"]
    assert set(names) <= set(installed())
    for name in names:
        assert f"`{name}`" in README, name


def test_the_study_file_reference_is_the_generated_one() -> None:
    page = (ROOT / "docs" / "study-file.md").read_text(encoding="utf-8")
    assert page == reference(), "run `make docs`"


def test_the_page_of_the_verbs_is_the_generated_one() -> None:
    assert verb_reference() == VERBS, "run `make docs`"


def test_every_option_of_a_verb_says_what_it_means() -> None:
    rows = re.findall(r"^\| `(-[^|]*)\|[^|]*\|([^|]*)\|$", verb_reference().replace("\\|", "/"), flags=re.MULTILINE)
    assert len(rows) > 60
    assert [option for option, meaning in rows if not meaning.strip()] == []


def test_no_key_of_a_study_file_is_without_a_description() -> None:
    rows = re.findall(r"^\| `(\w+)` \|.*\| (.*) \|$", reference(), flags=re.MULTILINE)
    assert rows
    undescribed = [key for key, meaning in rows if not meaning.strip()]
    assert not [key for key in undescribed if key not in ("study", "task")]


def test_nobody_is_told_to_install_what_is_on_no_index() -> None:
    texts = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "rank_search").rglob("*.py")]
    texts += [path for path in (ROOT / "studies").rglob("*") if path.suffix in ("", ".py", ".yaml") and path.is_file()]
    assert len(texts) > 50
    for path in texts:
        found = re.findall(r"pip install[^\n]*rank-search(?![/\w]).*", path.read_text(encoding="utf-8"))
        assert not [line for line in found if "/rank-search &&" not in line], path


def test_every_link_between_pages_leads_somewhere() -> None:
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
