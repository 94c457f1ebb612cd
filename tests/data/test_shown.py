"""Sequences as people read them, with a tokenizer of one token per byte: what is decoded is known by hand."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import numpy.typing as npt

from persianmind.common.log import printable
from persianmind.data.read.dataset import TokenDataset
from persianmind.data.read.sequence import TokenSequence, build_sequence
from persianmind.data.shown import shown_documents
from persianmind.tokenizer import FolderTokenizer

END = 0


class ByteTokenizer:
    def decode(self, ids: list[int], *, skip_special: bool = False) -> str:
        return b"".join(b"<end>" if one == END else bytes([one]) for one in ids).decode("utf-8", "replace")


class OneSequence:
    def __init__(self, texts: list[bytes], targets: npt.NDArray[np.bool_] | None, padding: int) -> None:
        tokens = np.frombuffer(b"".join(texts) + bytes(padding), dtype=np.uint8).astype(np.int64)
        self._lengths = np.array([len(one) for one in texts], dtype=np.int32)
        self._sequence = build_sequence(tokens, self._lengths, targets)

    def sequence(self, index: int) -> TokenSequence:
        return self._sequence

    def doc_lengths(self, index: int) -> npt.NDArray[np.int32]:
        return self._lengths


def shown(texts: list[bytes], targets: npt.NDArray[np.bool_] | None = None, padding: int = 0) -> list[Any]:
    dataset = cast(TokenDataset, OneSequence(texts, targets, padding))
    return shown_documents(dataset, 0, cast(FolderTokenizer, ByteTokenizer()))


def test_every_token_of_a_document_but_its_first_is_learnt() -> None:
    first, second = shown([b"abc\0", "سلام\0".encode()], padding=3)
    assert (first.text, first.marked, first.tokens, first.targets) == ("abc<end>", "a⟦bc<end>⟧", 4, 3)
    # The first token is half a letter: the bracket stands after what that decodes to.
    assert (second.text, second.targets) == ("سلام<end>", 8)


def test_answers_alone_are_marked() -> None:
    text = b"You: hi\nBot: yes\0You: why\nBot: so\0"
    targets = np.zeros(len(text) + 2, dtype=np.bool_)
    for answer in (b" yes\0", b" so\0"):
        begin = text.index(answer)
        targets[begin : begin + len(answer)] = True
    (found,) = shown([text], targets, padding=2)
    assert found.marked == "You: hi\nBot:⟦ yes<end>⟧You: why\nBot:⟦ so<end>⟧"
    assert (found.tokens, found.targets) == (len(text), 9)
    (moved,) = shown([text], np.roll(targets, 1), padding=2)  # negative control: labels one place late
    assert moved.marked != found.marked


def test_a_document_without_targets_has_no_brackets() -> None:
    (found,) = shown([b"abc"], np.zeros(3, dtype=np.bool_))
    assert (found.marked, found.targets) == ("abc", 0)


def test_text_cannot_move_a_terminals_cursor() -> None:
    assert printable("a\x1b[2Jb\r\nc\u200cd\x9b") == "a\\u001b[2Jb\\r\nc\u200cd\\u009b"
