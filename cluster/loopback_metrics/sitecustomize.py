"""Keeps the metrics servers of Ray's own processes on loopback.

They serve anybody on every interface, and Ray has no switch for it. cluster/environment.sh puts this folder
on the path of what `ray start` starts; Python imports a module of this name before anything else.
"""

import sys

RAYS_OWN = (
    "ray/dashboard/agent.py",
    "ray/dashboard/dashboard.py",
    "ray/autoscaler/_private/monitor.py",
    "ray/autoscaler/v2/monitor.py",
)

if any(word.endswith(RAYS_OWN) for word in sys.orig_argv):
    from wsgiref.simple_server import WSGIServer  # the class of all of them

    rays_bind = WSGIServer.server_bind

    def bind_on_loopback(server: WSGIServer) -> None:
        """The port asked for, on 127.0.0.1 alone."""
        server.server_address = ("127.0.0.1", server.server_address[1])
        rays_bind(server)

    WSGIServer.server_bind = bind_on_loopback
