"""A disk that fails, fills or loses power while a model is exported: the export is there whole, or not at all."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import rank_search as rs
from rank_search.basics import PART
from rank_search.errors import ExportError
from rank_search.export import packed, written
from rank_search.export.formats import FORMATS
from rank_search.export.tracing import Traced, trace
from tests.artifacts.disk import Disk, PowerLossError
from tests.artifacts.test_disks import faults
from tests.story.small import Small

BATCH = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def _traced_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A graph takes longer than all the rest, and is the same each time."""
    kept: dict[str, Traced] = {}

    def traced(*given: Any) -> Traced:
        if "it" not in kept:
            kept["it"] = trace(*given)
        return kept["it"]

    monkeypatch.setattr(written, "trace", traced)
    monkeypatch.setattr(packed, "trace", traced)


@cache
def outputs(store: str, number: int) -> Tensor:
    with rs.Store.open(store) as opened:
        return rs.build_model(opened, "stripes", number)(BATCH).detach()  # type: ignore[no-any-return]


@pytest.fixture
def member(small: Small) -> Iterator[tuple[rs.Store, int]]:
    with rs.Store.open(small.store) as store:
        yield store, store.front(store.study("stripes"))[-1].number


def check(path: Path, small: Small, number: int) -> None:
    """What is there is the model."""
    torch.testing.assert_close(rs.load(path)(BATCH).detach(), outputs(small.store, number))


@pytest.mark.faults
@pytest.mark.parametrize("kind", ["folder", "file"])
def test_an_export_is_there_whole_or_not_at_all(
    kind: str, member: tuple[rs.Store, int], small: Small, tmp_path: Path
) -> None:
    store, number = member
    write: Callable[..., object] = {"folder": rs.export_trial, "file": rs.pack_trial}[kind]
    for folder, fault in faults(tmp_path, lambda folder: write(store, "stripes", number, folder / "out")):
        done = False
        with Disk(folder, fault) as disk, contextlib.suppress(ExportError, PowerLossError):
            write(store, "stripes", number, folder / "out")
            done = True
        if fault.kind == "power":
            disk.lose()
        else:
            assert not [path for path in folder.iterdir() if path.name.endswith(PART)], fault
        assert (folder / "out").exists() or not done, fault
        if (folder / "out").exists():
            check(folder / "out", small, number)
        else:  # the same command does it, the second time
            write(store, "stripes", number, folder / "out")
            check(folder / "out", small, number)


@contextlib.contextmanager
def full_at(size: int) -> Iterator[None]:
    """No file can become larger than this: what fails then is the system's own write, C++'s as well."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("format", list(FORMATS))
def test_a_disk_that_is_full_leaves_nothing_of_an_export(
    format: str, member: tuple[rs.Store, int], tmp_path: Path
) -> None:
    store, number = member
    rs.export_trial(store, "stripes", number, tmp_path / "whole", format)
    sizes = sorted(path.stat().st_size for path in (tmp_path / "whole").iterdir())
    for at, size in enumerate({0, 1, *(size - 1 for size in sizes)}):
        with full_at(size), pytest.raises(ExportError, match=r"could not be written|cannot be"):
            rs.export_trial(store, "stripes", number, tmp_path / f"{at}", format)
    assert [path.name for path in tmp_path.iterdir()] == ["whole"]
