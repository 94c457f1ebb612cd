"""A head and two nodes of one CPU on this host, in a process of its own: Ray reads a token once a process.

python one_host.py PORT        a line on standard input kills the second node; its end ends all
"""

from __future__ import annotations

import sys

from ray.cluster_utils import Cluster

OBJECT_STORE_BYTES = 100_000_000


def main(port: int) -> None:
    """Says "ready" when all three are up."""
    cluster = Cluster()
    try:
        cluster.add_node(
            num_cpus=0,
            include_dashboard=True,
            dashboard_host="127.0.0.1",
            dashboard_port=port,
            object_store_memory=OBJECT_STORE_BYTES,
        )
        nodes = [cluster.add_node(num_cpus=1, object_store_memory=OBJECT_STORE_BYTES) for _ in range(2)]
        print("ready", flush=True)
        for _ in sys.stdin:
            cluster.remove_node(nodes.pop(), allow_graceful=False)
            print("lost", flush=True)
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    main(int(sys.argv[1]))
