"""Lines of several ranks stay whole: each is one write, also where Python does not buffer."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest

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
