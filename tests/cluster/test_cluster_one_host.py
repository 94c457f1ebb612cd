"""Where namespaces are not to be had: Ray's own Cluster on one host, and one of its nodes is lost."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import namespaces
import pytest
from cluster_helpers import environment, start
from node_loss import lose_a_node

from tests.launching import free_port

# With namespaces the same is tested on nodes with addresses of their own (test_cluster_nodes.py).
pytestmark = [pytest.mark.slow] if namespaces.unavailable() else [pytest.mark.long]


@pytest.fixture
def environ(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    env = environment(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(16))
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    return dict(os.environ)


@pytest.fixture
def nodes(environ: dict[str, str]) -> Iterator[tuple[Any, list[Any], int]]:
    """(the cluster, its two nodes of one CPU, the port of the dashboard)."""
    from ray.cluster_utils import Cluster

    cluster, port = Cluster(), free_port()
    small = 100_000_000
    try:
        cluster.add_node(
            num_cpus=0,
            include_dashboard=True,
            dashboard_host="127.0.0.1",
            dashboard_port=port,
            object_store_memory=small,
        )
        yield cluster, [cluster.add_node(num_cpus=1, object_store_memory=small) for _ in range(2)], port
    finally:
        cluster.shutdown()


def test_a_node_is_lost_and_the_job_ends_on_the_other(
    nodes: tuple[Any, list[Any], int], environ: dict[str, str], tmp_path: Path
) -> None:
    cluster, (_, second), port = nodes

    def submit(*flags: str, log: Path) -> Any:
        return start("--address", f"http://127.0.0.1:{port}", *flags, env=environ, log=log)

    lose_a_node(
        submit, lambda: cluster.remove_node(second, allow_graceful=False), tmp_path / "run", tmp_path / "log"
    )
