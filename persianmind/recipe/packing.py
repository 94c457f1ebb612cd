"""One source's token shards at one sequence length: what stages read, and what is built."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Packing:
    """A source packed at one length. Stages of two lengths read it from two folders.

    source: its name in the recipe; seq_len: tokens of a sequence; name: of its folder, and its key wherever
    shards are told apart: the source's alone at data.seq_len, else with the length behind an @, which no name
    of a source has.
    """

    source: str
    seq_len: int
    name: str
