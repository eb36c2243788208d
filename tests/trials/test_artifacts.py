from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

import pytest
import torch

from rank_search.errors import TrialError
from rank_search.trials import from_safetensors, read_artifact, to_safetensors, write_artifact


def test_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    folder = tmp_path / "made" / "on the way"
    artifact = write_artifact(folder, "model", "a.bin", b"content")
    assert (artifact.kind, artifact.location, artifact.bytes) == ("model", "a.bin", 7)
    assert artifact.sha256 == hashlib.sha256(b"content").hexdigest()
    assert read_artifact(folder, artifact) == b"content"
    assert [path.name for path in folder.iterdir()] == ["a.bin"]


@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_a_full_disk_leaves_nothing_and_keeps_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    before = write_artifact(tmp_path, "model", "a.bin", b"old")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, broken, full)
    with pytest.raises(TrialError, match=r"a\.bin \(3 bytes\) could not be written: No space left on device"):
        write_artifact(tmp_path, "model", "a.bin", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["a.bin"]
    assert read_artifact(tmp_path, before) == b"old"


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TrialError, match="artifact folder"):
        write_artifact(tmp_path / "file", "model", "a.bin", b"")


def test_changed_and_missing_files_are_noticed(tmp_path: Path) -> None:
    artifact = write_artifact(tmp_path, "model", "a.bin", b"content")
    (tmp_path / "a.bin").write_bytes(b"Content")
    with pytest.raises(TrialError, match="another SHA-256"):
        read_artifact(tmp_path, artifact)
    (tmp_path / "a.bin").unlink()
    with pytest.raises(TrialError, match="No such file"):
        read_artifact(tmp_path, artifact)


def test_any_state_dict_goes_through_safetensors() -> None:
    shared = torch.randn(4, 4)
    state = {"a": shared, "b": shared, "t": shared.T, "n": torch.tensor(3), "e": torch.zeros(0, 2)}
    back = from_safetensors(to_safetensors(state))
    assert set(back) == set(state)
    assert all(torch.equal(back[name], state[name]) and back[name].dtype == state[name].dtype for name in state)


def test_other_bytes_are_no_safetensors() -> None:
    with pytest.raises(TrialError, match="safetensors format"):
        from_safetensors(b"something else")
