"""A packed sequence as people read it: its documents decoded, what is learnt marked."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from persianmind.data.read.dataset import TokenDataset
from persianmind.tokenizer import FolderTokenizer

# Around what is learnt; neither character occurs in ordinary text.
OPEN, CLOSE = "⟦", "⟧"


@dataclass(frozen=True, slots=True)
class ShownDocument:
    """One document of a sequence.

    text: decoded, special tokens written out. spans: characters [from, to) of it that are loss targets.
    tokens, targets: how many.
    """

    text: str
    spans: tuple[tuple[int, int], ...]
    tokens: int
    targets: int

    @property
    def marked(self) -> str:
        """The text with its targets in brackets."""
        parts, at = [], 0
        for begin, end in self.spans:
            parts += [self.text[at:begin], OPEN, self.text[begin:end], CLOSE]
            at = end
        return "".join([*parts, self.text[at:]])


def shown_documents(dataset: TokenDataset, index: int, tokenizer: FolderTokenizer) -> list[ShownDocument]:
    """The documents of sequence `index`, from the labels that the model is given."""
    sequence = dataset.sequence(index)
    # labels are shifted: labels[t] >= 0 says that token t + 1 is learnt.
    is_target_L = np.append([False], sequence.labels[:-1] >= 0)
    documents, start = [], 0
    for length in dataset.doc_lengths(index).tolist():
        ids = sequence.input_ids[start : start + length].tolist()
        documents.append(shown_document(ids, is_target_L[start : start + length].tolist(), tokenizer))
        start += length
    return documents


def shown_document(ids: list[int], is_target: list[bool], tokenizer: FolderTokenizer) -> ShownDocument:
    """The document of these tokens.

    Borders are found by decoding prefixes: tokens decoded one by one lose spaces and split
    characters.
    """
    edges = np.flatnonzero(np.diff([False, *is_target, False])).tolist()
    text = tokenizer.decode(ids)
    places = [len(text) if edge == len(ids) else len(tokenizer.decode(ids[:edge])) for edge in edges]
    spans = tuple(zip(places[::2], places[1::2], strict=True))
    return ShownDocument(text, spans, len(ids), sum(is_target))
