"""What `rank-search submit` refuses before anything leaves this machine, and what it ships."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from zipfile import ZipFile

import pytest

from rank_search.study import load_study
from rank_search.submit.folder import IGNORE_FILE, LARGEST, files_to_ship, pack
from rank_search.submit.job import entrypoint
from tests.story.small import Command, Small, write_study

NOBODY = "http://127.0.0.1:9"  # a port that nothing listens on
SERVER = "postgresql://searcher@db.example.org/search"


@pytest.fixture
def study(tmp_path: Path) -> Small:
    """A study whose places are good on a cluster."""
    return write_study(tmp_path / "study")


def shipped(study: Small) -> list[str]:
    return [str(path.relative_to(study.folder)) for path in files_to_ship(load_study(study.file), "stripes.toml")]


# ---- refused ----------------------------------------------------------------------------------------------


def test_an_address_where_nobody_answers(command: Command, study: Small) -> None:
    said = command.refused("submit", study.file, "--address", NOBODY)
    assert NOBODY in said
    assert "Connection refused" in said
    assert "--dashboard-host" in said


@pytest.mark.parametrize(
    "address", ["head:8265", "ray://head:10001", "http://", "auto", "http://me:hidden@head:8265", "http://head:port"]
)
def test_an_address_that_is_none(command: Command, study: Small, address: str) -> None:
    said = command.refused("submit", study.file, "--address", address)
    assert "http://HEAD:8265" in said
    assert "hidden" not in said


def test_an_address_where_something_else_answers(command: Command, study: Small) -> None:
    with another_server() as address:
        said = command.refused("submit", study.file, "--address", address)
    assert "Ray's dashboard" in said
    assert address in said


@contextmanager
def another_server() -> Iterator[str]:
    class Hello(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"hello")

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Hello) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_study_file_that_is_not_there_or_wrong(command: Command, tmp_path: Path) -> None:
    assert "No such file" in command.refused("submit", tmp_path / "none.toml", "--address", NOBODY)
    wrong = write_study(tmp_path, launch={"wrokers": 2})
    assert "did you mean 'workers'" in command.refused("submit", wrong.file, "--address", NOBODY)


@pytest.mark.parametrize("given", ["option", "file"])
def test_a_password_in_the_store(command: Command, tmp_path: Path, given: str) -> None:
    url = "postgresql://searcher:hidden@db/search"
    study = write_study(tmp_path, study={"store": url} if given == "file" else {})
    said = command.refused("submit", study.file, "--address", NOBODY, *(["--store", url] if given == "option" else []))
    assert "hidden" not in said
    assert "PGPASSFILE" in said
    assert ("--store" if given == "option" else "[study] store") in said


def test_a_password_in_the_study_file_is_shipped_with_it_even_if_another_store_is_given(
    command: Command, tmp_path: Path
) -> None:
    study = write_study(tmp_path, study={"store": "postgresql://searcher:hidden@db/search"})
    assert "[study] store" in command.refused("submit", study.file, "--address", NOBODY, "--store", "/data/s.sqlite")


def test_credentials_in_the_artifacts(command: Command, tmp_path: Path) -> None:
    study = write_study(tmp_path, study={"store": SERVER, "artifacts": "s3://key:hidden@bucket/search"})
    said = command.refused("submit", study.file, "--address", NOBODY)
    assert "hidden" not in said
    assert "AWS_" in said


@pytest.mark.parametrize("store", ["here.sqlite", "sqlite:///here.sqlite", "runs/here.sqlite"])
def test_a_store_in_the_folder_of_the_job(command: Command, study: Small, store: str) -> None:
    said = command.refused("submit", study.file, "--address", NOBODY, "--store", store)
    assert "absolute path" in said
    assert store in said


@pytest.mark.parametrize("artifacts", ["", "files", "../files"])
@pytest.mark.parametrize("store", [SERVER, ""])
def test_files_in_the_folder_of_the_job(command: Command, tmp_path: Path, store: str, artifacts: str) -> None:
    study = write_study(tmp_path, study={"store": store, "artifacts": artifacts})
    said = command.refused("submit", study.file, "--address", NOBODY)
    assert "[study] artifacts" in said
    assert "s3://" in said


@pytest.mark.parametrize("place", [{"store": SERVER, "artifacts": "s3://bucket/search"}, {"store": "/data/s.sqlite"}])
def test_places_that_are_good(command: Command, tmp_path: Path, place: dict[str, str]) -> None:
    study = write_study(tmp_path, study=place)
    assert "does not answer" in command.refused("submit", study.file, "--address", NOBODY)


@pytest.mark.parametrize(
    "change", [{"task": {"factory": "../task.py:task"}}, {"layers": {"factorizations": ["p.py:P"]}}]
)
def test_code_outside_the_folder(command: Command, tmp_path: Path, change: dict[str, dict[str, object]]) -> None:
    (tmp_path / "task.py").touch()
    study = write_study(tmp_path / "study", **change)
    said = command.refused("submit", study.file, "--address", NOBODY)
    assert "not among the files" in said
    assert ".py:" in said


def test_too_much(command: Command, study: Small) -> None:
    (study.folder / "data").mkdir()
    for name, share in (("small.npz", 0.2), ("large.npz", 1.1)):
        with (study.folder / "data" / name).open("wb") as file:
            file.truncate(int(share * LARGEST))  # a hole: takes no room on the disk
    said = command.refused("submit", study.file, "--address", NOBODY)
    assert "650 MiB" in said
    assert said.index("550 MiB  data/large.npz") < said.index("100 MiB  data/small.npz")
    assert IGNORE_FILE in said
    (study.folder / IGNORE_FILE).write_text("# too large\n/data/large*\n")
    assert "does not answer" in command.refused("submit", study.file, "--address", NOBODY)


# ---- shipped ----------------------------------------------------------------------------------------------


def test_the_folder_without_what_is_no_part_of_the_study(study: Small) -> None:
    theirs = ["weights/net.safetensors", "data.csv", "deep/er/code.py", ".hidden"]
    not_theirs = ["s.sqlite", "s.sqlite-wal", "s.artifacts/stripes/a.safetensors", "runs/1/log", ".venv/x", ".git/HEAD"]
    not_theirs += ["__pycache__/a.pyc", "deep/__pycache__/b.pyc", ".mypy_cache/a", ".env", "spectra/a.safetensors"]
    for name in theirs + not_theirs:
        path = study.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert shipped(study) == sorted([*theirs, "faulty.py", "stripes.py", "stripes.toml"])


def test_what_the_ignore_file_names_stays(study: Small, command: Command) -> None:
    for name in ("big/a.bin", "big/b.txt", "other/big.csv", "notes.md"):
        (study.folder / name).parent.mkdir(exist_ok=True)
        (study.folder / name).touch()
    (study.folder / IGNORE_FILE).write_text("# mine\n\nbig/\n*.md\n")
    assert shipped(study) == [IGNORE_FILE, "faulty.py", "other/big.csv", "stripes.py", "stripes.toml"]
    (study.folder / IGNORE_FILE).write_text("stripes.*\n")
    assert "'stripes.toml' is not among the files" in command.refused("submit", study.file, "--address", NOBODY)
    (study.folder / IGNORE_FILE).write_text("*\n!stripes.py\n")
    assert "cannot keep" in command.refused("submit", study.file, "--address", NOBODY)


def test_links_are_followed_and_never_in_circles(study: Small, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train.csv").touch()
    (study.folder / "data").symlink_to(tmp_path / "data")
    (study.folder / "self").symlink_to(study.folder)
    (study.folder / "nowhere").symlink_to(tmp_path / "nothing")
    os.mkfifo(study.folder / "pipe")
    assert shipped(study) == ["data/train.csv", "faulty.py", "stripes.py", "stripes.toml"]


def test_the_same_folder_is_the_same_package(study: Small, tmp_path: Path) -> None:
    files = files_to_ship(load_study(study.file), "stripes.toml")
    first = pack(study.folder, files, tmp_path / "first.zip").read_bytes()
    for path in files:
        os.utime(path, (1e9, 1e9))
    again = pack(study.folder, files, tmp_path / "again.zip")
    assert again.read_bytes() == first
    with ZipFile(again) as archive:
        assert archive.read("faulty.py") == (study.folder / "faulty.py").read_bytes()


# ---- what the cluster is told -----------------------------------------------------------------------------


def test_the_command_has_what_was_given_and_nothing_else(study: Small) -> None:
    loaded = load_study(study.file)
    plain = "rank-search run stripes.toml --on ray --address auto"
    assert entrypoint(loaded, "stripes.toml", None, None, None) == plain
    assert (
        entrypoint(loaded, "stripes.toml", "/a b.sqlite", 7, 3)
        == f"{plain} --store '/a b.sqlite' --trials 7 --workers 3"
    )


@pytest.mark.parametrize(("environment", "code"), [({}, 2), ({"RANK_SEARCH_STORE": "postgresql://a@b/c"}, 0)])
def test_without_a_store_the_head_has_to_name_one(tmp_path: Path, environment: dict[str, str], code: int) -> None:
    loaded = load_study(write_study(tmp_path, study={"store": ""}).file)
    guarded = entrypoint(loaded, "stripes.toml", None, None, None).replace("rank-search", "true rank-search")
    ran = subprocess.run(guarded, shell=True, env={"PATH": os.defpath, **environment}, capture_output=True, text=True)
    assert ran.returncode == code
    assert ("is not set where ray start ran" in ran.stderr) == bool(code)
