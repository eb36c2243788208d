"""Every operation on a disk goes wrong once; afterwards everything opens, and nothing that was finished is lost."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from rank_search.artifacts import ArtifactStore, Tenant
from rank_search.basics import PART
from rank_search.coding import encode
from rank_search.errors import ArtifactError, ExportError
from rank_search.export.packed_file import Packed, read_packed, write_packed
from rank_search.export.whole import made_whole
from rank_search.point import Artifact
from rank_search.priors import SpectraCache
from tests.artifacts.disk import KINDS, Disk, Fault, Kind, PowerLossError

TENANT = Tenant("sqlite:1", "/a.sqlite")


def faults(tmp_path: Path, act: Callable[[Path], object]) -> Iterator[tuple[Path, Fault]]:
    """A folder of its own for each operation that the act consists of, and each way in which it can go wrong."""
    (tmp_path / "counted").mkdir()
    with Disk(tmp_path / "counted") as disk:
        act(tmp_path / "counted")
    assert disk.count
    for kind in KINDS:
        for at in range(1, disk.count + 1):
            folder = tmp_path / f"{kind} {at}"
            folder.mkdir()
            yield folder, Fault(kind, at)


def write_some(folder: Path) -> list[Artifact]:
    store = ArtifactStore(folder / "files" / "study", TENANT)
    store.move_in()
    return [store.write("model", f"{number}", ".bin", bytes([number]) * 999) for number in range(3)]


def test_written_artifacts_survive_any_fault_of_the_disk(tmp_path: Path) -> None:
    for folder, fault in faults(tmp_path, write_some):
        store, written = ArtifactStore(folder / "files" / "study", TENANT), list[Artifact]()
        with Disk(folder, fault) as disk, contextlib.suppress(ArtifactError, PowerLossError):
            store.move_in()
            for number in range(3):
                written.append(store.write("model", f"{number}", ".bin", bytes([number]) * 999))
        if fault.kind == "power":
            disk.lose()
        assert [store.read(each) for each in written] == [bytes([n]) * 999 for n in range(len(written))], fault
        left = set(store.names()) - {each.location for each in written}
        if fault.kind != "power":  # at most the one that was renamed, and the folder not synced
            assert not [name for name in left if name.endswith(PART)], fault
            assert {(Path(store.location) / name).stat().st_size for name in left} <= {999}, fault
        again = write_some(folder)
        assert [store.read(each) for each in again] == [bytes([n]) * 999 for n in range(3)]
        assert store.move_in() == []


def test_the_cache_is_right_or_made_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    weight = torch.rand(6, 4, generator=torch.Generator().manual_seed(0))
    expected = SpectraCache().bases("layer", weight)(_rows).values

    def decompose(folder: Path) -> torch.Tensor:
        return SpectraCache(folder / "cache").bases("layer", weight)(_rows).values

    for folder, fault in faults(tmp_path, decompose):
        with Disk(folder, fault) as disk, contextlib.suppress(PowerLossError):
            assert torch.equal(decompose(folder), expected), fault
        if fault.kind == "power":
            disk.lose()
        for _ in range(2):
            assert torch.equal(decompose(folder), expected), fault
        assert list((folder / "cache").glob("basis*")), fault


def _rows(weight: torch.Tensor) -> torch.Tensor:
    return weight


def test_a_packed_file_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    packed = Packed({"graph": {"nodes": []}}, encode({"a": torch.arange(30.0)}))

    def pack(folder: Path) -> None:
        with made_whole(folder / "model.rsz") as temporary:
            write_packed(packed, temporary / "model.rsz")
            (temporary / "model.rsz").rename(folder / "model.rsz")

    for folder, fault in faults(tmp_path, pack):
        with Disk(folder, fault) as disk, contextlib.suppress(ExportError, PowerLossError):
            pack(folder)
        _assert_whole_or_gone(folder / "model.rsz", packed, fault.kind)
        if fault.kind == "power":
            disk.lose()
        else:
            assert not [path for path in folder.iterdir() if path.name.endswith(PART)], fault


def _assert_whole_or_gone(path: Path, packed: Packed, kind: Kind) -> None:
    if path.exists():
        assert read_packed(path).payload == packed.payload, kind
