"""Artifacts in a local folder: whole or not at all, whatever happens while they are written."""

from __future__ import annotations

import errno
import hashlib
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rank_search.artifacts import ArtifactStore, artifacts_at
from rank_search.basics import PART
from rank_search.errors import ArtifactError
from rank_search.point import Artifact

KEY = "0123456789abcdef" * 4


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "made" / "on the way")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_an_artifact_is_read_as_it_was_written(store: ArtifactStore) -> None:
    assert store.names() == []
    artifact = store.write("model", KEY, ".bin", b"content")
    digest = hashlib.sha256(b"content").hexdigest()
    assert artifact == Artifact("model", f"0123456789abcdef-{digest[:16]}.bin", digest, 7)
    assert store.read(artifact) == b"content"
    assert store.names() == names(Path(store.location)) == [artifact.location]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(contents=st.lists(st.tuples(st.binary(max_size=300), st.sampled_from([".a", ".b"])), max_size=5))
@pytest.mark.parametrize("where", ["folder", "server"])
def test_any_content_comes_back_under_a_name_of_its_own(
    tmp_path: Path, where: str, contents: list[tuple[bytes, str]]
) -> None:
    store = ArtifactStore(tmp_path if where == "folder" else "memory://round/trip")
    written = [store.write("model", KEY, suffix, data) for data, suffix in contents]
    assert [store.read(artifact) for artifact in written] == [data for data, _ in contents]
    assert store.names() == sorted({artifact.location for artifact in written})
    assert len(store.names()) == len(set(contents))
    for name in store.names():
        store.delete(name)
    assert store.names() == []


def test_deleting_a_missing_artifact_is_fine(store: ArtifactStore) -> None:
    store.delete("nothing.bin")
    artifact = store.write("model", KEY, ".bin", b"content")
    store.delete(artifact.location)
    store.delete(artifact.location)
    with pytest.raises(ArtifactError, match=r"could not be read: No such file.*Restore it"):
        store.read(artifact)


def test_an_artifact_store_can_be_sent_to_a_worker(
    store: ArtifactStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    artifact = ArtifactStore("beside").write("model", KEY, ".bin", b"content")
    sent = pickle.dumps(ArtifactStore("beside"))
    monkeypatch.chdir(tmp_path / "elsewhere")
    received = pickle.loads(sent)
    assert received.read(artifact) == b"content"
    assert (received.location, repr(received)) == ("beside", "ArtifactStore('beside')")


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_a_local_url_is_a_folder(tmp_path: Path, scheme: str) -> None:
    store = ArtifactStore(f"{scheme}{tmp_path}/50% of it")
    artifact = store.write("model", KEY, ".bin", b"content")
    assert names(tmp_path / "50% of it") == [artifact.location]


def test_the_recorded_place_comes_before_the_default(tmp_path: Path) -> None:
    assert artifacts_at("", tmp_path).location == str(tmp_path)
    assert artifacts_at("memory://elsewhere", tmp_path).location == "memory://elsewhere"
    assert artifacts_at("/else/where", tmp_path / "new").location == "/else/where"
    assert artifacts_at("old name", tmp_path / "new name").location == str(tmp_path / "old name")


def test_files_are_cleared_away_and_an_empty_folder_too(tmp_path: Path) -> None:
    outside = tmp_path / "outside.bin"
    outside.touch()
    store = ArtifactStore(tmp_path / "files")
    first, second = (store.write("model", KEY, ".bin", content) for content in (b"first", b"second"))
    store.clear([first.location, str(outside), "gone.bin"])
    assert names(tmp_path / "files") == [second.location]
    assert outside.exists()
    store.clear([second.location])
    assert not (tmp_path / "files").exists()


def test_old_names_and_absolute_paths_are_still_read(tmp_path: Path) -> None:
    folder, digest = tmp_path / "artifacts", hashlib.sha256(b"content").hexdigest()
    folder.mkdir()
    for path in (folder / f"{KEY}.safetensors", tmp_path / "outside.bin"):
        path.write_bytes(b"content")
    store = ArtifactStore(folder)
    assert store.read(Artifact("model", f"{KEY}.safetensors", digest, 7)) == b"content"
    assert store.read(Artifact("model", str(tmp_path / "outside.bin"), digest, 7)) == b"content"
    assert ArtifactStore("memory://x").read(Artifact("model", str(tmp_path / "outside.bin"), digest, 7)) == b"content"


@pytest.mark.parametrize("location", ["../outside.bin", "..", "", "a/b", "a\\b", ".", "a\0b"])
def test_a_location_leads_nowhere_else(tmp_path: Path, location: str) -> None:
    (tmp_path / "outside.bin").write_bytes(b"content")
    store = ArtifactStore(tmp_path / "artifacts")
    with pytest.raises(ArtifactError, match="a file in its study's folder"):
        store.read(Artifact("model", location, hashlib.sha256(b"content").hexdigest(), 7))
    with pytest.raises(ArtifactError, match="a file in its study's folder"):
        store.delete(location)
    with pytest.raises(ArtifactError, match="a file in its study's folder"):
        store.write("model", "../../x", "/y", b"")
    assert names(tmp_path) == ["outside.bin"]


@pytest.mark.parametrize("changed", [b"Content", b"conten", b"content ", b""])
def test_changed_files_are_noticed(store: ArtifactStore, changed: bytes) -> None:
    artifact = store.write("model", KEY, ".bin", b"content")
    (Path(store.location) / artifact.location).write_bytes(changed)
    with pytest.raises(ArtifactError, match=f"has {len(changed)} bytes and another SHA-256 than recorded"):
        store.read(artifact)


# ---- faults ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("broken", ["fsync", "write", "replace"])
def test_a_full_disk_leaves_nothing_and_keeps_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    store = ArtifactStore(tmp_path)
    before = store.write("model", KEY, ".bin", b"old")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if broken == "write":
        device = open("/dev/full", "wb", buffering=0)  # noqa: SIM115 - the store closes it
        monkeypatch.setattr(Path, "open", lambda *_: device)
    else:
        monkeypatch.setattr(os if broken == "fsync" else Path, broken, full)
    with pytest.raises(
        ArtifactError, match=r"\.bin \(3 bytes\) could not be written: No space left on device\. No half"
    ):
        store.write("model", KEY, ".bin", b"new")
    monkeypatch.undo()
    assert names(tmp_path) == [before.location]
    assert store.read(before) == b"old"


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtifactError, match=r"In .*file, .* could not be written: File exists"):
        ArtifactStore(tmp_path / "file").write("model", KEY, ".bin", b"")


def test_a_file_system_that_cannot_sync_folders_will_do(store: ArtifactStore, monkeypatch: pytest.MonkeyPatch) -> None:
    sync = os.fsync

    def files_only(handle: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{handle}"):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        sync(handle)

    monkeypatch.setattr(os, "fsync", files_only)
    assert store.read(store.write("model", KEY, ".bin", b"content")) == b"content"


def run_python(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", dedent(code), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_a_quota_that_is_used_up_leaves_nothing(tmp_path: Path) -> None:
    code = """
    import resource, signal, sys
    from rank_search.artifacts import ArtifactStore
    from rank_search.errors import ArtifactError
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    store = ArtifactStore(sys.argv[1])
    store.write("model", "small", ".bin", bytes(100_000))
    try:
        store.write("model", "large", ".bin", bytes(1_000_000))
    except ArtifactError as error:
        print(error)
    """
    done = run_python(code, tmp_path)
    assert "large-" in done.stdout, done.stderr
    assert "(1000000 bytes) could not be written: File too large. No half of it is left" in done.stdout
    (only,) = names(tmp_path)
    assert only.startswith("small-")


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """A folder that every user can reach: those of pytest are private."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def test_a_folder_that_is_read_only_is_named(public_folder: Path) -> None:
    code = """
    import os, sys
    from rank_search.artifacts import ArtifactStore
    from rank_search.errors import ArtifactError
    from rank_search.point import Artifact
    if os.getuid() == 0:
        os.setgid(65534), os.setuid(65534)
    store = ArtifactStore(sys.argv[1])
    for attempt in (
        lambda: store.write("model", "some", ".bin", b"content"),
        lambda: store.delete("there.bin"),
        lambda: store.read(Artifact("model", "there.bin", "", 0)),
        lambda: ArtifactStore(sys.argv[1] + "/below").write("model", "some", ".bin", b"content"),
    ):
        try:
            attempt()
        except ArtifactError as error:
            print(error)
    """
    (public_folder / "there.bin").write_bytes(b"content")
    (public_folder / "there.bin").chmod(0o600)
    public_folder.chmod(0o555)
    if os.getuid():
        (public_folder / "there.bin").chmod(0)
    done = run_python(code, public_folder)
    assert [line.count("Permission denied") for line in done.stdout.splitlines()] == [1] * 4, done.stderr
    public_folder.chmod(0o755)
    assert names(public_folder) == ["there.bin"]


def test_a_writer_killed_in_the_middle_leaves_no_half_file_under_a_final_name(tmp_path: Path) -> None:
    code = """
    import itertools, sys
    from rank_search.artifacts import ArtifactStore
    store = ArtifactStore(sys.argv[1])
    print("begun", flush=True)
    for number in itertools.count():
        store.write("model", f"{number:04}", ".bin", bytes([number % 256]) * 3_000_000)
    """
    parts, kills = 0, 0
    while kills < 5 or not parts:
        kills += 1
        process = subprocess.Popen([sys.executable, "-c", dedent(code), tmp_path], stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.02 + 0.013 * (kills % 8))
        process.kill()
        assert process.wait() == -signal.SIGKILL
        process.stdout.close()
        for path in tmp_path.iterdir():
            if path.suffix == PART:
                parts += 1
            else:
                data = path.read_bytes()
                assert len(data) == 3_000_000
                assert path.name[5:21] == hashlib.sha256(data).hexdigest()[:16]
    store = ArtifactStore(tmp_path)
    assert parts
    assert any(name.endswith(PART) for name in store.names()), "unfinished files are listed, to be removed"
    for name in store.names():
        store.delete(name)
    assert names(tmp_path) == []


def test_many_writers_of_the_same_content_agree(tmp_path: Path) -> None:
    code = """
    import sys
    from rank_search.artifacts import ArtifactStore
    sys.stdin.readline()
    for number in range(30):
        store = ArtifactStore(sys.argv[1])
        artifact = store.write("model", "same", ".bin", bytes([number]) * 200_000)
        store.read(artifact)
    """
    command = [sys.executable, "-c", dedent(code), str(tmp_path)]
    writers = [subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    assert [writer.communicate("go\n")[1] for writer in writers] == [""] * 3
    assert len(names(tmp_path)) == 30
    assert not [name for name in names(tmp_path) if name.endswith(PART)]


def imported(code: str) -> list[str]:
    return run_python(f"{code}; import sys; print(*sys.modules)").stdout.split()


def test_a_local_folder_imports_no_driver(tmp_path: Path) -> None:
    modules = imported(
        f"from rank_search.artifacts import ArtifactStore as S; S({str(tmp_path)!r}).write('a','b','.c',b'')"
    )
    assert "rank_search.artifacts.artifact_store" in modules
    assert not {"fsspec", "s3fs", "torch", "sqlalchemy"} & set(modules)


def test_files_can_be_read_by_others_as_the_umask_says(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        artifact = ArtifactStore(tmp_path).write("model", KEY, ".bin", b"content")
    finally:
        os.umask(before)
    assert (tmp_path / artifact.location).stat().st_mode & 0o777 == 0o640
