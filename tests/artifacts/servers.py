"""A local S3 server, and its clients' credentials in the environment."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The address of an S3 server that runs in this process."""
    server = pytest.importorskip("moto.server", reason="needs moto: pip install 'moto[s3,server]'")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        running.start()
    host, port = running.get_host_and_port()
    yield f"http://{host}:{port}"
    running.stop()


@pytest.fixture
def s3(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An empty bucket `bucket`, and everything that a client needs in its environment."""
    s3fs = pytest.importorskip("s3fs", reason="needs s3fs: pip install '.[s3]'")
    for name, value in {
        "AWS_ENDPOINT_URL": s3_server,
        "AWS_ACCESS_KEY_ID": "someone",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    files = s3fs.S3FileSystem()
    files.mkdir("bucket")
    yield s3_server
    files.invalidate_cache()
    files.rm("bucket", recursive=True)
    s3fs.S3FileSystem.clear_instance_cache()
