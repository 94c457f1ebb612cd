"""Duplicates: found within the memory, forgotten past it, and never invented."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from persianmind.recipe import Quality
from persianmind.text.dedup import DuplicateRule, FingerprintSet, text_fingerprint, wanted_signature
from persianmind.text.near import NearDuplicates, near_signature


@given(st.lists(st.integers(0, 60), max_size=300))
def test_exact_set_is_a_set_while_it_has_room(numbers: list[int]) -> None:
    held: set[int] = set()
    bounded = FingerprintSet()
    for number in numbers:
        fingerprint = text_fingerprint(str(number))
        assert bounded.add(fingerprint) == (fingerprint not in held)
        held.add(fingerprint)


def test_exact_set_is_bounded_and_never_calls_a_new_text_old() -> None:
    bounded = FingerprintSet(max_entries=1024)
    assert all(bounded.add(text_fingerprint(str(i))) for i in range(50_000))
    assert len(bounded.table()) == 1024
    assert not bounded.add(text_fingerprint("49999")), "what was just added is held"


def test_exact_set_grows_without_forgetting() -> None:
    bounded = FingerprintSet()
    for i in range(30_000):
        bounded.add(text_fingerprint(str(i)))
    again = sum(bounded.add(text_fingerprint(str(i))) for i in range(30_000))
    assert again == 0


@given(cut=st.integers(0, 400))
@settings(max_examples=20, deadline=None)
def test_exact_set_goes_on_from_its_table(cut: int) -> None:
    numbers = [random.Random(1).randrange(300) for _ in range(400)]
    whole = FingerprintSet(max_entries=128)
    answers = [whole.add(text_fingerprint(str(n))) for n in numbers]
    first = FingerprintSet(max_entries=128)
    head = [first.add(text_fingerprint(str(n))) for n in numbers[:cut]]
    second = FingerprintSet(max_entries=128, table=first.table())
    assert head + [second.add(text_fingerprint(str(n))) for n in numbers[cut:]] == answers


def test_parts_are_told_apart() -> None:
    assert text_fingerprint("ab", "c") != text_fingerprint("a", "bc")


def _text(seed: int, words: int = 200) -> list[str]:
    chance = random.Random(seed)
    return [f"واژه{chance.randrange(5000)}" for _ in range(words)]


def test_near_duplicates_are_found_and_others_are_kept() -> None:
    near = NearDuplicates(0.85)
    found = kept = 0
    for seed in range(200):
        words = _text(seed)
        assert near.add(near_signature(" ".join(words)))
        edited = [*words[:199], "دیگر"]  # one of 196 shingles differs
        found += not near.add(near_signature(" ".join(edited)))
        rewritten = words[:100] + _text(seed + 10_000, 100)  # Jaccard about 1/3
        kept += near.add(near_signature(" ".join(rewritten)))
    assert found >= 199 and kept == 200


def test_near_duplicates_without_comparison_would_drop_too_much() -> None:
    """The control of the comparison in full: at threshold 0 every meeting in a band counts."""
    loose = NearDuplicates(0.0)
    dropped = 0
    for seed in range(100):
        words = _text(seed)
        loose.add(near_signature(" ".join(words)))
        half = words[:180] + _text(seed + 10_000, 20)  # Jaccard about 0.8
        dropped += not loose.add(near_signature(" ".join(half)))
    strict = NearDuplicates(0.95)
    kept = 0
    for seed in range(100):
        words = _text(seed)
        strict.add(near_signature(" ".join(words)))
        kept += strict.add(near_signature(" ".join(words[:180] + _text(seed + 10_000, 20))))
    assert dropped > 80 and kept > 90


def test_near_memory_is_bounded() -> None:
    near = NearDuplicates(0.9, max_signatures=64)
    signatures = [near_signature(" ".join(_text(seed))) for seed in range(200)]
    assert all(near.add(signature) for signature in signatures)
    held, added = near.state()
    assert held.shape == (64, 128) and added == 200
    assert not near.add(signatures[199]), "the newest is held"
    assert near.add(signatures[0]), "the oldest is forgotten"


@pytest.mark.parametrize("cut", [0, 1, 50, 63, 64, 65, 100, 149])
def test_near_goes_on_from_its_state(cut: int) -> None:
    chance = random.Random(3)
    signatures = [near_signature(" ".join(_text(chance.randrange(90), 40))) for _ in range(150)]
    whole = NearDuplicates(0.9, max_signatures=64)
    answers = [whole.add(signature) for signature in signatures]
    first = NearDuplicates(0.9, max_signatures=64)
    head = [first.add(signature) for signature in signatures[:cut]]
    second = NearDuplicates(0.9, max_signatures=64)
    second.restore(*first.state())
    assert head + [second.add(signature) for signature in signatures[cut:]] == answers
    assert np.array_equal(whole._bands, second._bands)


NEAR = Quality(near_duplicates=True, near_duplicate_threshold=0.85)


def _reason(rule: DuplicateRule, text: str, quality: Quality = NEAR) -> str | None:
    return rule.reason(text_fingerprint(text), wanted_signature((text,), quality))


def test_one_rule_names_what_drops_a_document() -> None:
    held, text = "متن کنارگذاشته", " ".join(_text(1))
    rule = DuplicateRule(NEAR, frozenset({text_fingerprint(held)}))
    assert _reason(rule, text) is None
    assert _reason(rule, text) == "exact_duplicate"
    assert _reason(rule, f"{text} دیگر") == "near_duplicate"
    assert _reason(rule, held) == "held_out_text"


def test_filters_that_are_off_drop_nothing_but_held_out_text_is_never_trained_on() -> None:
    held, text = "متن کنارگذاشته", " ".join(_text(1))
    for quality in (Quality(enabled=False, near_duplicates=True), Quality(exact_duplicates=False)):
        rule = DuplicateRule(quality, frozenset({text_fingerprint(held)}))
        assert [_reason(rule, one, quality) for one in (text, text, f"{text} دیگر")] == [None] * 3
        assert _reason(rule, held, quality) == "held_out_text"


@pytest.mark.parametrize("cut", [0, 7, 30])
def test_the_rule_goes_on_from_its_state(cut: int) -> None:
    chance = random.Random(5)
    texts = [" ".join(_text(chance.randrange(20), 40)) for _ in range(40)]
    whole = DuplicateRule(NEAR, frozenset())
    answers = [_reason(whole, text) for text in texts]
    assert "exact_duplicate" in answers and None in answers
    first, second = DuplicateRule(NEAR, frozenset()), DuplicateRule(NEAR, frozenset())
    head = [_reason(first, text) for text in texts[:cut]]
    second.restore(*first.state())
    assert head + [_reason(second, text) for text in texts[cut:]] == answers
