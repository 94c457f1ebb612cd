"""Continued BPE against a plain reference."""

from __future__ import annotations

import itertools
import random
from functools import partial

import pytest

from persianmind.language.persian import PROFILE as PERSIAN
from persianmind.vocab import pieces as pieces_module
from persianmind.vocab.learn import Learned, Word, continue_bpe

is_valid_piece = partial(pieces_module.is_valid_piece, PERSIAN)


def reference(words: dict[Word, int], token_bytes: dict[int, bytes], first_id: int, limit: int) -> Learned:
    """Continued BPE as one would write it first: count everything again at every step."""
    state = {tuple(word): count for word, count in words.items()}
    lists = [(list(word), count) for word, count in sorted(state.items())]
    token_bytes, known = dict(token_bytes), {piece: token_id for token_id, piece in token_bytes.items()}
    pieces: list[tuple[bytes, int]] = []
    merges: list[tuple[int, int, int]] = []
    while True:
        counts: dict[bytes, int] = {}
        pairs: dict[bytes, set[tuple[int, int]]] = {}
        for word, count in lists:
            for a, b in itertools.pairwise(word):
                joined = token_bytes[a] + token_bytes[b]
                if is_valid_piece(joined):
                    counts[joined] = counts.get(joined, 0) + count
                    pairs.setdefault(joined, set()).add((a, b))
        free = sorted(joined for joined in counts if joined in known)
        if free:
            chosen, result = free[0], known[free[0]]
        else:
            best = min(counts.items(), key=lambda item: (-item[1], item[0]), default=None)
            if best is None or best[1] < 2 or len(pieces) == limit:
                return Learned(first_id, tuple(pieces), tuple(merges))
            chosen, result = best[0], first_id + len(pieces)
            pieces.append(best)
            known[chosen], token_bytes[result] = result, chosen
        merges += [(a, b, result) for a, b in sorted(pairs[chosen])]
        for word, _ in lists:
            i = 0
            while i < len(word) - 1:
                if (word[i], word[i + 1]) in pairs[chosen]:
                    word[i : i + 2] = [result]
                i += 1


@pytest.mark.parametrize("seed", range(12))
def test_equals_the_reference(seed: int) -> None:
    generator = random.Random(seed)
    alphabet = "ابپتسمه \u200c۱،x"
    token_bytes = {token_id: character.encode() for token_id, character in enumerate(alphabet)}
    token_bytes[len(token_bytes)] = "اب".encode()  # a base piece that pairs of single letters may also spell
    words: dict[Word, int] = {}
    for _ in range(generator.randint(5, 120)):
        word = tuple(generator.choices(range(len(token_bytes)), k=generator.randint(1, 9)))
        words[word] = generator.randint(1, 30)
    expected = reference(words, token_bytes, 100, 40)
    assert continue_bpe(words, token_bytes, first_id=100, limit=40, is_valid_piece=is_valid_piece) == expected
    assert expected.pieces


def test_order_of_words_does_not_matter() -> None:
    token_bytes = {token_id: c.encode() for token_id, c in enumerate("ابپتسمه")}
    words = [((0, 1, 2), 5), ((1, 2, 3), 5), ((4, 5, 6, 0), 5), ((0, 1), 5), ((5, 6), 5)]
    results = set()
    for seed in range(20):
        random.Random(seed).shuffle(words)
        results.add(
            continue_bpe(dict(words), token_bytes, first_id=7, limit=6, is_valid_piece=is_valid_piece)
        )
    assert len(results) == 1


def test_wanted_order_is_followed_as_far_as_it_can_be_reached() -> None:
    token_bytes = {token_id: c.encode() for token_id, c in enumerate("ابپت")}
    order = {"پت".encode(): 0, "اب".encode(): 1, "بپ".encode(): 2}
    learned = continue_bpe(
        {(0, 1, 2, 3): 9}, token_bytes, first_id=4, limit=3, is_valid_piece=is_valid_piece, order=order
    )
    assert [joined.decode() for joined, _ in learned.pieces] == ["پت", "اب"]  # بپ is gone by then


def test_half_a_character_is_no_piece() -> None:
    assert not is_valid_piece("سل".encode()[:-1])
