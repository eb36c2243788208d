import errno
import logging
import os
import random
import threading
from pathlib import Path

import pytest
import torch

from rank_search.priors import TensorFiles, digest

TENSORS = {"left": torch.arange(6.0).view(2, 3), "sizes": torch.tensor([2, 3])}


def same(found: dict[str, torch.Tensor] | None) -> bool:
    return found is not None and digest(found) == digest(TENSORS)


def test_tensor_files_load_what_was_saved(tmp_path: Path) -> None:
    files = TensorFiles(tmp_path / "made" / "on demand")
    assert files.load("basis") is None
    files.save("basis", TENSORS)
    assert same(files.load("basis"))
    assert [path.name for path in (tmp_path / "made" / "on demand").iterdir()] == ["basis.safetensors"]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_tensor_files_keep_dtypes_and_empty_tensors(tmp_path: Path, dtype: torch.dtype) -> None:
    tensors = {"a": torch.ones(2, 2, dtype=dtype), "b": torch.zeros(0, dtype=dtype)}
    TensorFiles(tmp_path).save("x", tensors)
    found = TensorFiles(tmp_path).load("x")
    assert found is not None
    assert digest(found) == digest(tensors)


def test_tensor_files_notice_a_half_written_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    files = TensorFiles(tmp_path)
    files.save("basis", TENSORS)
    path = tmp_path / "basis.safetensors"
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert files.load("basis") is None
    assert "made anew" in caplog.text
    files.save("basis", TENSORS)
    assert same(files.load("basis"))


def test_tensor_files_notice_altered_bytes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    files = TensorFiles(tmp_path)
    files.save("basis", TENSORS)
    path = tmp_path / "basis.safetensors"
    whole = path.read_bytes()
    generator = random.Random(0)
    for position in range(len(whole)):
        altered = bytearray(whole)
        altered[position] ^= generator.randrange(1, 256)
        path.write_bytes(altered)
        found = files.load("basis")
        assert found is None or same(found)  # some bytes of the header are mere spaces


def test_tensor_files_notice_a_valid_file_without_a_digest(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file(TENSORS, tmp_path / "basis.safetensors")
    assert TensorFiles(tmp_path).load("basis") is None


def test_tensor_files_survive_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    files = TensorFiles(tmp_path)
    monkeypatch.setattr(os, "replace", full)
    files.save("one", TENSORS)
    files.save("two", TENSORS)
    assert list(tmp_path.iterdir()) == []
    assert caplog.text.count("No space left") == 1


def test_tensor_files_give_up_an_impossible_folder_after_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    files = TensorFiles(tmp_path / "file" / "cache")
    files.save("one", TENSORS)
    files.save("two", TENSORS)
    assert caplog.text.count("cannot be written to") == 1
    assert files.load("one") is None


def test_readers_never_see_a_half_written_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def write() -> None:
        files = TensorFiles(tmp_path)
        for _ in range(40):
            files.save("basis", TENSORS)

    TensorFiles(tmp_path).save("basis", TENSORS)
    writers = [threading.Thread(target=write) for _ in range(4)]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        assert same(TensorFiles(tmp_path).load("basis"))
    assert caplog.text == ""
    assert len(list(tmp_path.iterdir())) == 1


def test_digests_tell_contents_shapes_dtypes_and_names_apart() -> None:
    tensor = torch.arange(6.0)
    others = [{"b": tensor}, {"a": tensor.view(2, 3)}, {"a": tensor.double()}, {"a": tensor + 1}, {"a": -tensor}]
    assert len({digest({"a": tensor}), *map(digest, others)}) == 6


def test_digests_do_not_see_memory_formats_or_gradients() -> None:
    weight = torch.randn(4, 3, 2, 2)
    last = weight.to(memory_format=torch.channels_last).requires_grad_()
    assert digest({"a": weight}) == digest({"a": last})
