"""Counting at bounded memory, and a sample that no order can change."""

from __future__ import annotations

import random
from pathlib import Path

from persianmind.language.persian import PROFILE as PERSIAN
from persianmind.vocab.count import ChunkCounter, DocumentSample, count_chunks
from tests.vocab.helpers import package_texts

SCRIPT = PERSIAN.script


def test_spilling_changes_nothing(tmp_path: Path) -> None:
    documents = package_texts()[:80]
    whole, spilled = ChunkCounter(tmp_path, SCRIPT), ChunkCounter(tmp_path, SCRIPT, max_in_memory=200)
    for document in documents:
        whole.add(document)
        spilled.add(document)
    runs = list(tmp_path.glob("run-*"))
    assert len(runs) > 5
    expected = whole.most_common(10**9)
    assert spilled.most_common(10**9) == expected
    assert expected[" و"] == sum(document.count(" و ") + document.count(" و\n") for document in documents)


def test_the_most_frequent_are_kept_and_ties_are_settled() -> None:
    text = "الف الف الف ب ب پ پ ت ث"
    orders = [text, " ".join(reversed(text.split()))]
    # the first word of a text has no space before it: two more kinds of chunk
    results = [count_chunks([order], DocumentSample(), SCRIPT, limit=3)[0] for order in orders]
    assert results[0] == {" الف": 2, " ب": 2, " پ": 2}
    assert list(results[1]) == [" الف", " ب", " پ"]


def test_chunks_without_persian_or_without_end_are_left_out() -> None:
    chunks, words = count_chunks(["abc def 12 " + "ا" * 5_000 + " سلام"], DocumentSample(), SCRIPT, limit=9)
    assert chunks == {" سلام": 1}
    assert words == 5


def test_sample_depends_on_the_text_alone() -> None:
    documents = [f"سند شمارهٔ {i}" for i in range(500)]
    samples = []
    for seed in range(4):
        random.Random(seed).shuffle(documents)
        sample = DocumentSample(documents=20, max_characters=12)
        for document in [*documents, *documents[:100]]:
            sample.add(document)
        samples.append(sample.texts())
    assert samples[0] == samples[1] == samples[2] == samples[3]
    assert len(samples[0]) == 20
    assert max(map(len, samples[0])) == 12


def test_the_sample_knows_which_document_of_the_text_each_is() -> None:
    texts = [f"متن {i}" for i in range(50)]
    sample = DocumentSample(documents=10)
    for text in [texts[0], *texts]:
        sample.add(text)
    chosen = dict(zip(sample.texts(), sample.records(), strict=True))
    assert len(chosen) == 10
    for text, record in chosen.items():
        assert [texts[0], *texts][record - 1] == text
