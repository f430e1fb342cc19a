"""The Ray cluster that all tests of backends share: to start one takes ten seconds."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.execution.backends.cluster import Cluster, cluster


@pytest.fixture(scope="package")
def ray_cluster() -> Iterator[Cluster]:
    """A cluster of one node with two CPUs, which ends before another test of the group \"ray\" starts its own."""
    import ray

    with cluster(cpus=2) as started:
        yield started
        ray.shutdown()
