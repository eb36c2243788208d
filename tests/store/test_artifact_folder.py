from __future__ import annotations

from pathlib import Path

import pytest

from rank_search.store import artifact_folder


@pytest.mark.parametrize(
    ("store", "study", "expected"),
    [
        ("runs/digits.sqlite", "digits", "runs/digits.artifacts/digits"),
        ("sqlite:///runs/digits.sqlite", "digits", "runs/digits.artifacts/digits"),
        ("postgresql://u:s3cret@host/digits?sslmode=require", "a/b", "digits.artifacts/a%2Fb"),
        ("postgresql://?service=digits", "..", "rank-search.artifacts/%2E%2E"),
    ],
)
def test_the_default_place_is_beside_a_file_and_in_the_current_folder_for_a_server(
    store: str, study: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert artifact_folder(store, study) == tmp_path / expected
    beside = tmp_path if expected.startswith("runs") else tmp_path / "of the study"
    assert artifact_folder(store, study, tmp_path / "of the study") == beside / expected
