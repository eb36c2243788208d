from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from tests.artifacts.servers import s3_server
from tests.shapes import check_shapes

if TYPE_CHECKING:
    from rank_search.launch import Cluster

pytest_plugins = ["tests.report.browser", "tests.small_space", "tests.stripes_task"]
__all__ = ["s3_server"]

check_shapes()

# How long an example of a property takes says how busy the machine is.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

# A shell that runs the tests in the background has Ctrl-C ignored, and what they start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def cloud(s3_server: str) -> Mapping[str, str]:
    """What the environment of every machine says about an S3 server."""
    return {
        "AWS_ENDPOINT_URL": s3_server,
        "AWS_ACCESS_KEY_ID": "someone",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


@pytest.fixture(scope="session")
def cluster(cloud: Mapping[str, str]) -> Iterator[Cluster]:
    """A Ray cluster of one node with three CPUs, whose workers know the S3 server, for as long as the tests run."""
    import ray

    from rank_search.launch import Cluster

    before = dict(os.environ)
    os.environ |= {**cloud, "RAY_AUTH_MODE": "disabled"}
    try:
        ray.init("local", num_cpus=3, include_dashboard=False, log_to_driver=False, logging_level="error")
    finally:
        for name in cloud:
            os.environ.pop(name)
        os.environ |= {name: value for name, value in before.items() if name in cloud}
    with Cluster() as connected:
        yield connected
    ray.shutdown()
