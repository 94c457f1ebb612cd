"""What can be wrong with a record or a file of text, by the name it is counted under."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that is no record: counted under `reason`.

    ends_file: the rest of its file is lost too. file_bytes: the size of that file as stored, where known.
    """

    reason: str
    detail: str
    ends_file: bool = False
    file_bytes: int | None = None


class BadRecordError(Exception):
    """A record that cannot be used; the message is the name of the reason."""


class BrokenFileError(Exception):
    """The rest of a file cannot be read. `reason` is the name it is counted under."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
