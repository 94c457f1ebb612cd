"""What the run and its meter say to each other, through pipes that cut and fill."""

from __future__ import annotations

import os

from persianmind.energy.meter.pipes import MAX_MESSAGE_CHARACTERS, Mark, Marks, sender
from persianmind.run.records import Phase


def test_marks_come_whole_whatever_the_pipe_cuts() -> None:
    read_end, write_end = os.pipe()
    marks = Marks(read_end)
    assert marks.wait(0) == []
    mark = Mark(Phase.EVALUATE, "آموزش", 1, 2.5, 7)
    os.write(write_end, mark.dump() + mark.dump()[:7])
    assert marks.wait(1) == [mark]
    os.write(write_end, mark.dump()[7:])
    assert marks.wait(1) == [mark]
    os.close(write_end)
    assert marks.wait(1) == [] and not marks.open and marks.stopped_s is None
    os.close(read_end)


def test_a_parent_that_does_not_read_blocks_nothing() -> None:
    read_end, write_end = os.pipe()
    send = sender(write_end)
    for _ in range(1000):  # far more than a pipe holds
        send({"message": "x" * 2 * MAX_MESSAGE_CHARACTERS})
    first = os.read(read_end, 1 << 16).split(b"\n")[0]
    assert first == b'{"message": "' + b"x" * MAX_MESSAGE_CHARACTERS + b'"}'
    os.close(read_end)
    send({"joules": 1.0})  # and one that is gone raises nothing
    os.close(write_end)
