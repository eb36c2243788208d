"""A file is replaced whole or not at all, on disks that fail at any operation."""

from __future__ import annotations

import contextlib
import stat
from pathlib import Path

import pytest

from rank_search.basics import PART, replace_whole
from tests.artifacts.disk import Disk, PowerLossError
from tests.artifacts.test_disks import faults

OLD, NEW = b"old" * 400, b"new" * 500


def prepared(folder: Path, before: bytes | None) -> Path:
    if before is not None:
        (folder / "file").write_bytes(before)
    return folder / "file"


@pytest.mark.parametrize("before", [None, OLD], ids=["new", "replaced"])
def test_replace_whole_leaves_the_old_content_or_the_new(tmp_path: Path, before: bytes | None) -> None:
    for folder, fault in faults(tmp_path, lambda folder: replace_whole(prepared(folder, before), NEW)):
        path, done = prepared(folder, before), False
        with Disk(folder, fault) as disk, contextlib.suppress(OSError, PowerLossError):
            replace_whole(path, NEW)
            done = True
        if fault.kind == "power":
            disk.lose()
        else:
            assert not [each for each in folder.iterdir() if each.name.endswith(PART)], fault
        found = path.read_bytes() if path.exists() else None
        assert found == NEW if done else found in (before, NEW), fault


def test_replace_whole_keeps_the_mode_of_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(OLD)
    (tmp_path / "file").chmod(0o600)
    replace_whole(tmp_path / "file", NEW)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o600


def test_replace_whole_writes_where_a_link_leads(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "file")
    replace_whole(tmp_path / "link", NEW)
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_bytes() == NEW


def test_replace_whole_in_no_folder_raises(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        replace_whole(tmp_path / "none" / "file", NEW)
