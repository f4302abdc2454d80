"""A Ray cluster of two nodes on this machine, for the whole session; and objects of which some misbehave."""

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

LOOPBACK = "127.0.0.2"
"""Not 127.0.0.1, which Ray replaces by the address of a network card, and then does not reach where that is shut."""
STORE_BYTES = 80 * 2**20  # the least that Ray takes is 75 MB; nothing of ours goes through it


def node_settings(**more: Any) -> dict[str, Any]:
    return {
        "num_cpus": 1,
        "node_ip_address": LOOPBACK,
        "include_dashboard": False,
        "object_store_memory": STORE_BYTES,
    } | more


@pytest.fixture(scope="session")
def cluster() -> Iterator[Any]:
    """The cluster; this process is its driver."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray = pytest.importorskip("ray", reason="the extra `cluster` is not installed")
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args=node_settings())
    try:
        made.add_node(**node_settings())
        ray.init(address=made.address, log_to_driver=False, logging_level="warning", _node_ip_address=LOOPBACK)
        yield made
    finally:
        ray.shutdown()
        made.shutdown()


@pytest.fixture
def add_node(cluster: Any) -> Iterator[Callable[..., Any]]:
    """Add a node for this test."""
    added = []

    def add(**settings: Any) -> Any:
        added.append(cluster.add_node(**node_settings(**settings)))
        return added[-1]

    yield add
    for node in added:
        if node in cluster.worker_nodes:
            cluster.remove_node(node)
