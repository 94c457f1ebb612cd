"""What somebody without the token gets from each listening socket of a box.

python stranger.py ADDRESS PORT:WHO ...    prints {port: answer} as JSON
"""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import sys
from collections.abc import Iterable

from tests.cluster import namespaces
from tests.cluster.listeners import Listener
from tests.support.launch import ROOT

TIMEOUT_S = 5.0
REFUSALS = {"401", "403", "UNAUTHENTICATED"}
# A call that each kind of process serves, with an empty message.
CALLS = {
    "gcs_server": ["NodeInfoGcsService/GetAllNodeInfo"],
    "raylet": ["NodeManagerService/GetNodeStats", "ObjectManagerService/Pull"],
    "dashboard agent": ["ReporterService/GetTraceback"],
    "client server": ["RayletDriver/ClusterInfo"],
    "worker": ["CoreWorkerService/GetCoreWorkerStats"],
    "training worker": ["CoreWorkerService/GetCoreWorkerStats"],
    "driver": ["CoreWorkerService/GetCoreWorkerStats"],
}


def answer_to_stranger(address: str, port: int, who: str) -> str:
    """The status of an HTTP request or the code of a gRPC call; "closed", or "connected" and no more."""
    try:
        socket.create_connection((address, port), TIMEOUT_S).close()
    except OSError:
        return "closed"
    codes = {_http(address, port), *(_grpc(address, port, call) for call in CALLS.get(who, []))}
    return min(codes & REFUSALS or codes - {""}, default="connected")


def _http(address: str, port: int) -> str:
    connection = http.client.HTTPConnection(address, port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", "/api/jobs/")
        return str(connection.getresponse().status)
    except (OSError, http.client.HTTPException):
        return ""
    finally:
        connection.close()


def _grpc(address: str, port: int, call: str) -> str:
    import grpc

    with grpc.insecure_channel(f"{address}:{port}") as channel:
        try:
            channel.unary_unary(f"/ray.rpc.{call}")(b"", timeout=TIMEOUT_S)
        except grpc.RpcError as error:
            name = str(error.code().name)
            return "" if name in ("UNIMPLEMENTED", "UNAVAILABLE", "DEADLINE_EXCEEDED") else name
    return "OK"


def answers_to(node: int, address: str, found: Iterable[Listener]) -> dict[int, str]:
    """What `found` of the box at `address` answer to a process of another box."""
    asked = sorted({f"{one.port}:{one.who}" for one in found})
    command = [*namespaces.inside(node), sys.executable, "-m", "tests.cluster.stranger", address, *asked]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return {int(port): answer for port, answer in json.loads(done.stdout).items()}


if __name__ == "__main__":
    asked_for = [word.split(":") for word in sys.argv[2:]]
    print(json.dumps({port: answer_to_stranger(sys.argv[1], int(port), who) for port, who in asked_for}))
