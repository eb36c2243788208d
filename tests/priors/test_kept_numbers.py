"""Numbers kept between runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from rank_search.priors import KeptNumbers, TensorFiles


def refuse() -> float:
    raise AssertionError("computed again")


@pytest.mark.parametrize("key", [(), (3.0,), (1.5, 7.0)])
def test_kept_numbers_are_computed_once(tmp_path: Path, key: tuple[float, ...]) -> None:
    kept = KeptNumbers(TensorFiles(tmp_path), "some")
    assert kept.get(key, lambda: 0.1) == 0.1
    assert kept.get(key, refuse) == 0.1
    kept.save()
    assert KeptNumbers(TensorFiles(tmp_path), "some").get(key, refuse) == 0.1
    assert KeptNumbers(TensorFiles(tmp_path), "others").get(key, lambda: 0.2) == 0.2


def test_kept_numbers_add_to_those_on_disk(tmp_path: Path) -> None:
    for key in ((1.0,), (2.0,)):
        kept = KeptNumbers(TensorFiles(tmp_path), "some")
        kept.get(key, lambda key=key: 10 * key[0])  # type: ignore[misc]
        kept.save()
    last = KeptNumbers(TensorFiles(tmp_path), "some")
    assert [last.get((float(each),), refuse) for each in (1, 2)] == [10, 20]


def test_kept_numbers_rebuild_a_damaged_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    kept = KeptNumbers(TensorFiles(tmp_path), "some")
    kept.get((1.0,), lambda: 0.1)
    kept.save()
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-1])
    assert KeptNumbers(TensorFiles(tmp_path), "some").get((1.0,), lambda: 0.3) == 0.3
    assert "made anew" in caplog.text


def test_kept_numbers_without_files_stay_in_memory() -> None:
    kept = KeptNumbers()
    assert kept.get((1.0,), lambda: 0.1) == 0.1
    kept.save()
    assert kept.get((1.0,), refuse) == 0.1
