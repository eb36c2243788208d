"""Artifacts on a server: a real S3 server on this machine, and whatever else fsspec knows."""

from __future__ import annotations

import logging
import pickle
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from textwrap import dedent

import fsspec
import pytest

from rank_search.artifacts import ArtifactStore
from rank_search.errors import ArtifactError
from rank_search.point import Artifact


def test_a_bucket_is_written_read_listed_and_cleaned(s3: str) -> None:
    store = ArtifactStore("s3://bucket/some/prefix/")
    assert store.names() == []
    written = [store.write("model", f"point {number}", ".bin", bytes([number]) * 1000) for number in range(3)]
    ArtifactStore("s3://bucket/some/prefix/below").write("model", "x", ".bin", b"")
    assert [store.read(artifact) for artifact in written] == [bytes([number]) * 1000 for number in range(3)]
    assert store.names() == sorted(artifact.location for artifact in written)
    store.delete(written[0].location)
    store.delete(written[0].location)
    assert store.names() == sorted(artifact.location for artifact in written[1:])


def test_another_process_sees_a_new_artifact_at_once(s3: str) -> None:
    code = """
    import sys
    from rank_search.artifacts import ArtifactStore
    print(ArtifactStore(sys.argv[1]).write("model", "from elsewhere", ".bin", b"content").location)
    """
    store = ArtifactStore("s3://bucket/prefix")
    before = store.write("model", "from here", ".bin", b"content").location
    assert store.names() == [before]
    command = [sys.executable, "-c", dedent(code), store.location]
    written = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    assert store.names() == sorted([before, written])


def test_a_server_store_is_pickled_and_shared_by_threads(s3: str) -> None:
    store: ArtifactStore = pickle.loads(pickle.dumps(ArtifactStore("s3://bucket/prefix")))
    with ThreadPoolExecutor(4) as threads:
        written = list(threads.map(lambda number: store.write("model", "same", ".bin", bytes([number % 3])), range(12)))
    assert len(store.names()) == 3
    assert {store.read(artifact) for artifact in written} == {b"\0", b"\1", b"\2"}


def test_changed_or_removed_artifacts_are_noticed(s3: str) -> None:
    store = ArtifactStore("s3://bucket/prefix")
    artifact = store.write("model", "point", ".bin", b"content")
    files = fsspec.filesystem("s3")
    files.pipe_file(f"bucket/prefix/{artifact.location}", b"conten")
    with pytest.raises(ArtifactError, match="has 6 bytes and another SHA-256"):
        store.read(artifact)
    files.rm_file(f"bucket/prefix/{artifact.location}")
    with pytest.raises(ArtifactError, match=r"could not be read: .*Restore it"):
        store.read(artifact)


def test_a_bucket_that_is_not_there_is_not_made(s3: str) -> None:
    store = ArtifactStore("s3://elsewhere/prefix")
    with pytest.raises(ArtifactError, match=r"In s3://elsewhere/prefix, .* could not be written: .*bucket"):
        store.write("model", "point", ".bin", b"content")
    assert fsspec.filesystem("s3").ls("") == ["bucket"]


def test_a_server_that_is_away_is_an_error_of_ours(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        away = f"http://127.0.0.1:{free.getsockname()[1]}"
        monkeypatch.setenv("AWS_ENDPOINT_URL", away)
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
        fsspec.get_filesystem_class("s3").clear_instance_cache()
        store = ArtifactStore("s3://bucket/prefix")
        with pytest.raises(ArtifactError, match=r"could not be written: .*connect.*No half of it is left"):
            store.write("model", "point", ".bin", b"content")
        with pytest.raises(ArtifactError, match=r"list of files could not be read: .*connect.*Check the address"):
            store.names()


def test_credentials_in_a_url_are_used_and_never_shown(
    s3: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    store = ArtifactStore("s3://THEKEY:the/Secret+@bucket/pre@fix")
    assert (store.location, repr(store)) == ("s3://bucket/pre@fix", "ArtifactStore('s3://bucket/pre@fix')")
    with caplog.at_level(logging.INFO):
        assert store.read(store.write("model", "point", ".bin", b"content")) == b"content"
        with pytest.raises(ArtifactError) as missing:
            ArtifactStore("s3://THEKEY:the/Secret+@nowhere/prefix").write("model", "point", ".bin", b"content")
        with pytest.raises(ArtifactError) as unknown:
            ArtifactStore("nowhere://THEKEY:the/Secret+@host").names()
    for shown in (caplog.text, str(missing.value), str(unknown.value)):
        assert "THEKEY" not in shown
        assert "Secret" not in shown
    assert missing.value.__cause__ is None


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("s3://KEY:SECRET@bucket/prefix", "s3://bucket/prefix"),
        ("s3://KEY:SEC/RET@bucket/prefix", "s3://bucket/prefix"),
        ("s3://KEY:SEC@RET@bucket/pre@fix", "s3://bucket/pre@fix"),
        ("simplecache::s3://KEY:SECRET@bucket", "simplecache::s3://bucket"),
        ("sftp://someone@host/folder", "sftp://someone@host/folder"),
        ("webdav://host:8080/a@b", "webdav://host:8080/a@b"),
        ("s3://bucket/a@b", "s3://bucket/a@b"),
        ("gs://bucket/a:b@c", "gs://bucket/a:b@c"),
        ("some/a:b@c", "some/a:b@c"),
    ],
)
def test_the_location_of_an_address_has_no_credentials(given: str, shown: str) -> None:
    assert ArtifactStore(given).location == shown


def test_a_driver_that_is_not_installed_is_named() -> None:
    code = """
    import sys
    sys.modules["s3fs"] = None
    from rank_search.artifacts import ArtifactStore
    ArtifactStore("s3://KEY:SECRET@bucket").names()
    """
    said = subprocess.run([sys.executable, "-c", dedent(code)], capture_output=True, text=True, check=False).stderr
    assert "PlaceError: The package that artifacts at s3://bucket need is not installed" in said
    assert said.splitlines()[-1].endswith("Run, in the folder of rank-search: pip install '.[s3]'.")
    assert "SECRET" not in said.replace(dedent(code), "")


def test_a_place_that_nobody_knows_is_named() -> None:
    with pytest.raises(ArtifactError, match=r"In nowhere://host, .*Protocol not known: nowhere"):
        ArtifactStore("nowhere://host").names()


@pytest.mark.parametrize("location", ["../outside.bin", "..", "", "below/a.bin"])
def test_a_location_leads_nowhere_else(location: str) -> None:
    files = fsspec.filesystem("memory")
    files.pipe_file("/paths/outside.bin", b"content")
    with pytest.raises(ArtifactError, match="a file in its study's folder"):
        ArtifactStore("memory://paths/inside").read(Artifact("model", location, "", 7))
