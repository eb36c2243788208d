"""A stranger's package in an environment of its own is found by name and held to the same laws."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from rank_search.errors import UnknownPluginError
from rank_search.layers import installed, load_plugin

VISIT = """
import json
from rank_search.layers import installed, load_plugin
from rank_search.testing import check_factorization

plugin = load_plugin("stranger")
results = check_factorization(plugin, equality=True)
print(json.dumps({
    "installed": sorted(installed()),
    "distribution": installed()["stranger"].dist.name,
    "version": installed()["stranger"].dist.version,
    "class": f"{plugin.__module__}:{plugin.__name__}",
    "laws": sorted({result.law for result in results}),
    "broken": [str(result) for result in results if not result.ok],
}))
"""


@pytest.fixture(scope="module")
def visit(stranger_python: Path) -> dict[str, Any]:
    done = subprocess.run([stranger_python, "-c", VISIT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_installed_plugins_list_a_strangers_beside_the_built_in_ones(visit: dict[str, Any]) -> None:
    assert visit["installed"] == sorted({*installed(), "stranger"})
    assert (visit["distribution"], visit["version"]) == ("rank-search-stranger", "1.2.3")


def test_strangers_plugin_loads_by_its_name(visit: dict[str, Any]) -> None:
    assert visit["class"] == "rank_search_stranger:InputSVD"


def test_strangers_plugin_obeys_the_laws(visit: dict[str, Any]) -> None:
    assert visit["broken"] == []
    assert visit["laws"] == ["Agreement", "Life", "Rank law", "Settling", "Skeleton", "Spectrum bound"]


def test_strangers_plugin_is_not_installed_by_default() -> None:
    with pytest.raises(UnknownPluginError, match="No factorization 'stranger' is installed"):
        load_plugin("stranger")
