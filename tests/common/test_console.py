"""Lines of several ranks stay whole, each one write, whether Python buffers or not; a lost peer is one."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest
import torch

from persianmind.common.console import run_guarded

LINE = "persianmind: error: rank 1: " + "س" * 300
PRINTS = {
    "ours": ("from persianmind.common.log import print_line as show", 1),
    "print, the control": ("show = print", 2),
}


@pytest.mark.parametrize(("define", "writes"), PRINTS.values(), ids=PRINTS)
def test_a_line_is_one_write_under_an_unbuffered_python(define: str, writes: int) -> None:
    """A packet socket as standard output keeps writes apart, so they can be counted."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        code = f"{define}; show({LINE!r})"
        subprocess.run([sys.executable, "-u", "-c", code], stdout=theirs.fileno(), check=True, timeout=60)
        theirs.close()
        packets = list(iter(lambda: ours.recv(65536), b""))
    assert b"".join(packets).decode() == LINE + "\n"
    assert len(packets) == writes


@pytest.mark.parametrize(
    "said",
    [
        "[../gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:4242",
        # torch's store, asked where groups are opened while the first rank ends.
        "Failed to recv, got 0 bytes. Connection was likely closed. Did the remote server shutdown or crash?",
    ],
)
def test_a_lost_peer_is_one_line(
    said: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("persianmind.common.console.RANK_0_SPEAKS_S", 0.0)

    def work() -> None:
        raise torch.distributed.DistNetworkError(said)

    assert run_guarded(work, rank=1) == 1
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("persianmind: rank 1: another rank ended first and has the reason (")


def test_control_another_error_of_the_network_shows_its_traceback(capfd: pytest.CaptureFixture[str]) -> None:
    def work() -> None:
        raise torch.distributed.DistNetworkError("the store has no such key")

    assert run_guarded(work) == 1 and "Traceback" in capfd.readouterr().err
