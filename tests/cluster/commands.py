"""Commands in prose and manifests, read by the programs that they are for, and not run."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from ray.scripts.scripts import cli as ray

from rank_search.cli.main import app

ROOT = Path(__file__).parents[2]


def lines_of_code(page: str) -> Iterator[str]:
    """The lines in fenced blocks without a language, continued ones as one, without prompts and remarks."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)
    for block in (text for language, text in blocks if not language):
        for line in block.replace("\\\n", " ").splitlines():
            yield re.sub(r"\s{2,}#.*", "", line).strip()


def commands(lines: Iterator[str], program: str) -> list[list[str]]:
    """The words of every command line of a program."""
    split = (shlex.split(re.sub(r"^(\w+=\S+ )*", "", line)) for line in lines if re.search(rf"\b{program} ", line))
    return [words[1:] for words in split if words and words[0] == program]


def check_ours(words: list[str]) -> dict[str, Any]:
    """Parse a `rank-search` command; returns its parameters."""
    return _parsed(typer.main.get_command(app), words)


def check_ray(words: list[str]) -> dict[str, Any]:
    """Parse a `ray` command; returns its parameters."""
    return _parsed(ray, words)


def _parsed(command: Any, words: list[str]) -> dict[str, Any]:
    while hasattr(command, "commands"):
        assert words[0] in command.commands, words
        command, words = command.commands[words[0]], words[1:]
    parameters: dict[str, Any] = command.make_context("command", list(words)).params
    return parameters
