"""Text, translation, similarity and health: scores by hand and against sacrebleu's own."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from persianmind.common.errors import RecipeError
from persianmind.evaluate.families import FAMILIES, NotPossibleError, Numbered, TaskContext
from persianmind.evaluate.families.health import HealthOptions, repetition
from persianmind.evaluate.families.similarity import SimilarityOptions
from persianmind.evaluate.families.text import TextOptions
from persianmind.evaluate.families.translation import TranslationOptions
from persianmind.evaluate.generate import generation_mode
from persianmind.evaluate.items import PairItem, TextItem, TranslationItem
from persianmind.evaluate.measured import Measured
from persianmind.evaluate.vectors import sentence_vectors
from persianmind.language import profile_for
from persianmind.language.script import script_ratio
from tests.evaluate.small_model import plain_log_likelihood, small_model


def by_metric(measured: list[Measured]) -> dict[str, Measured]:
    return {one.metric: one for one in measured}


def test_text_is_the_sum_over_the_document() -> None:
    model = small_model()
    texts = ["the import statement", "x = 1\n", "سلام"]
    context = TaskContext(model, "en", TextOptions())
    with generation_mode(model.causal_lm):
        records = sorted(
            FAMILIES["text"].score(context, Numbered({i: TextItem(t) for i, t in enumerate(texts)})),
            key=lambda record: record["item"],
        )
        lead = (model.tokenizer.bos_or_eos_id,)
        nats = [
            -plain_log_likelihood(model.causal_lm, lead, tuple(ids)) for ids in model.tokenizer.encode(texts)
        ]
    assert [record["nats"] for record in records] == pytest.approx(nats, rel=1e-5)
    found = by_metric(FAMILIES["text"].measure(context, records))
    bits = sum(nats) / math.log(2)
    assert found["bits_per_byte"].value == pytest.approx(bits / sum(len(t.encode()) for t in texts), rel=1e-5)
    assert found["bits_per_character"].value == pytest.approx(bits / sum(map(len, texts)), rel=1e-5)
    assert found["bits_per_word"].value == pytest.approx(bits / 7, rel=1e-5)
    assert found["token_perplexity"].settings["tokenizer"] == model.tokenizer.fingerprint()


def _translated(records: list[tuple[str, str, str]], **options: Any) -> dict[str, Measured]:
    context = TaskContext(small_model(), "fa", TranslationOptions(**options))
    return by_metric(
        FAMILIES["translation"].measure(
            context,
            [
                {"item": i, "source": source, "hypothesis": hypothesis, "reference": reference}
                for i, (source, hypothesis, reference) in enumerate(records)
            ],
        )
    )


PERSIAN = "این یک کتاب بسیار خوب است که می‌خواهم بخوانم"


def test_spelling_alone_costs_nothing_once_both_are_normalised() -> None:
    """The same sentence on an Arabic keyboard: far from itself as it stands, itself with one spelling."""
    typed = PERSIAN.replace("ی", "ي").replace("ک", "ك")
    found = _translated([("a", typed, PERSIAN)] * 3)
    assert found["bleu"].value == pytest.approx(100) and found["chrf++"].value == pytest.approx(100)
    assert found["bleu_raw"].value is not None and found["bleu_raw"].value < 40
    assert "version" in found["bleu"].settings["signature"]


def test_corpus_scores_are_sacrebleu_s_own() -> None:
    from sacrebleu import corpus_bleu, corpus_chrf

    rows = [("a", "the cat sat on a mat", "the cat sat on the mat"), ("b", "a dog barks", "the dog barked")]
    found = _translated(rows, source="fa", target="en")
    hypotheses, references = [row[1] for row in rows], [row[2] for row in rows]
    assert found["bleu_raw"].value == pytest.approx(corpus_bleu(hypotheses, [references]).score)
    expected = corpus_chrf(hypotheses, [references], word_order=2).score
    assert found["chrf++_raw"].value == pytest.approx(expected)
    low, high = found["chrf++_raw"].interval.low, found["chrf++_raw"].interval.high
    assert low is not None and high is not None and low <= expected <= high


def test_outputs_that_are_no_translation_are_counted() -> None:
    found = _translated([("hello", "", "سلام"), ("hello", "hello", "سلام"), ("hello", "bonjour", "سلام"),
                         ("hello", "سلام", "سلام")])  # fmt: skip
    assert found["empty_ratio"].value == 0.25 and found["copied_ratio"].value == 0.25
    assert found["wrong_script_ratio"].value == 0.5


def test_two_systems_are_compared_on_the_same_resamples() -> None:
    rows = [(f"s{i}", f"word{i} " * 5 + "tail", f"word{i} " * 5 + "tail") for i in range(40)]
    worse = [(s, "other " * 6 if i % 2 else h, r) for i, (s, h, r) in enumerate(rows)]
    family = FAMILIES["translation"]
    first, second = (list(_translated(one, target="en").values()) for one in (rows, worse))
    better = dict(zip([one.metric for one in first], family.compare(first, second, "m"), strict=True))
    assert better["chrf++"] is not None and better["chrf++"].test == "paired bootstrap"
    assert better["chrf++"].difference > 20 and better["chrf++"].p_value < 0.01  # type: ignore[operator]
    same = family.compare(first, first, "m")[0]
    assert same is not None and same.difference == 0 and same.p_value == 1.0


def test_spbleu_by_a_model_on_disk(tmp_path: Path) -> None:
    import sentencepiece

    (tmp_path / "text").write_text("\n".join(f"{PERSIAN} {i}" for i in range(200)), encoding="utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(tmp_path / "text"), model_prefix=str(tmp_path / "m"), vocab_size=45, minloglevel=2
    )
    found = _translated([("a", PERSIAN, PERSIAN)], spm=str(tmp_path / "m.model"))
    assert found["spbleu"].value == pytest.approx(100)
    from persianmind.common.errors import DataError

    with pytest.raises(DataError, match="no SentencePiece model"):
        _translated([("a", PERSIAN, PERSIAN)], spm=str(tmp_path / "none.model"))


def test_translation_needs_a_prompt_or_examples() -> None:
    context = TaskContext(small_model(form=False), "fa", TranslationOptions())
    with pytest.raises(NotPossibleError, match="no chat template"):
        FAMILIES["translation"].check(context)
    model = small_model(form=False)
    shown = TaskContext(model, "fa", TranslationOptions(max_new_tokens=4), [TranslationItem("one", "یک")])
    FAMILIES["translation"].check(shown)
    with generation_mode(model.causal_lm):
        (record,) = FAMILIES["translation"].score(shown, Numbered({0: TranslationItem("two", "دو")}))
    assert record["source"] == "two" and "\n" not in record["hypothesis"]


def test_backward_swaps_the_sides() -> None:
    model = small_model()
    context = TaskContext(model, "fa", TranslationOptions(direction="backward", max_new_tokens=2))
    with generation_mode(model.causal_lm):
        (record,) = FAMILIES["translation"].score(context, Numbered({0: TranslationItem("two", "دو")}))
    assert (record["source"], record["reference"]) == ("دو", "two")


def test_vectors_are_means_over_a_sentence_s_own_tokens() -> None:
    """Against transformers sentence by sentence, without padding."""
    model = small_model(max_batch_tokens=64)
    texts = ["the import statement binds names", "x", "سلام دنیا"]
    with generation_mode(model.causal_lm):
        found = sentence_vectors(model, texts)
        for text, vectors_HD in zip(texts, found, strict=True):
            ids = model.tokenizer.encode([text])[0]
            lead = [] if model.tokenizer.bos_id is None else [model.tokenizer.bos_id]
            with torch.no_grad():
                states = model.causal_lm(
                    input_ids=torch.tensor([[*lead, *ids]]), output_hidden_states=True, use_cache=False
                ).hidden_states
            for vector_D, state in zip(vectors_HD, states, strict=True):
                mean_D = state[0, len(lead) :].mean(dim=0)
                expected = (mean_D / mean_D.norm()).numpy()
                assert vector_D == pytest.approx(expected, abs=1e-5)


def test_similarity_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two layers: in the second, translations lie together, and cosines follow the scores."""
    places = {"a": 0.0, "b": 1.0, "c": 2.0, "d": 2.6, "A": 0.05, "B": 1.1, "C": 2.05, "D": 2.5}

    def vectors(_: Any, texts: list[str]) -> np.ndarray:
        angles = np.array([places[text] for text in texts])
        second = np.stack([np.cos(angles), np.sin(angles)], axis=1)
        first = np.tile([1.0, 0.0], (len(texts), 1))
        return np.stack([first, second], axis=1).astype(np.float32)

    monkeypatch.setattr("persianmind.evaluate.families.similarity.sentence_vectors", vectors)
    items = {i: PairItem(one, one.upper()) for i, one in enumerate("abcd")}
    context = TaskContext(small_model(), "fa", SimilarityOptions())
    records = list(FAMILIES["similarity"].score(context, Numbered(items)))
    found = by_metric(FAMILIES["similarity"].measure(context, records))
    assert found["retrieval_forward"].value == found["retrieval_backward"].value == 1.0
    assert found["retrieval_forward"].settings["layer"] == 1 and found["retrieval_forward"].n == 2
    pairs = [("a", "A", 5.0), ("a", "B", 3.0), ("a", "C", 1.0), ("b", "C", 3.5), ("a", "D", 0.0)]
    scored = {i: PairItem(*pair) for i, pair in enumerate(pairs)}
    dev = TaskContext(small_model(), "fa", SimilarityOptions(), dev=list(scored.values()))
    records = list(FAMILIES["similarity"].score(dev, Numbered(scored)))
    found = by_metric(FAMILIES["similarity"].measure(dev, records))
    assert found["spearman"].value == pytest.approx(1.0) and found["pearson"].value is not None
    assert found["pearson"].settings["layer_chosen_on"] == "5 dev pairs"


def test_repetition_script_and_language_of_texts() -> None:
    assert repetition("یک دو سه چهار " * 5) > 0.7 and repetition("یک دو سه چهار پنج شش") == 0.0
    assert script_ratio("سلام hello", profile_for("fa").script) == pytest.approx(4 / 9)
    assert (
        script_ratio("123 …", profile_for("fa").script) is None
        and script_ratio("hello", profile_for("en").script) == 1.0
    )


def test_words_of_another_script_among_an_answer_are_no_one_language() -> None:
    context = TaskContext(small_model(), "fa", HealthOptions())
    texts = ["هوا خوب است", "هوا today خیلی nice است", "هوا خوب است ۱۲۳ !", "the weather is good"]
    records = [{"item": i, "text": one, "tokens": 5, "stopped": True} for i, one in enumerate(texts)]
    found = by_metric(FAMILIES["health"].measure(context, records))["one_language"]
    assert found.scores is not None and found.scores.values == {0: 1.0, 1: 0.0, 2: 1.0, 3: 1.0}


def test_the_layer_of_the_embeddings_can_be_asked_for() -> None:
    assert SimilarityOptions(layer=0).layer == 0
    FAMILIES["similarity"].check(TaskContext(small_model(), "fa", SimilarityOptions(layer=2)))
    with pytest.raises(RecipeError, match=r"options\.layer=3: small has 0 to 2"):
        FAMILIES["similarity"].check(TaskContext(small_model(), "fa", SimilarityOptions(layer=3)))


def test_health_by_hand() -> None:
    context = TaskContext(small_model(), "fa", HealthOptions(max_new_tokens=8))
    records = [
        {"item": 0, "prompt": "p", "text": "هوا امروز بسیار خوب است", "tokens": 7, "stopped": True},
        {"item": 1, "prompt": "p", "text": "the weather is good", "tokens": 8, "stopped": False},
        {"item": 2, "prompt": "p", "text": "یک دو سه چهار " * 3, "tokens": 8, "stopped": False},
        {"item": 3, "prompt": "p", "text": "", "tokens": 0, "stopped": True},
    ]  # fmt: skip
    found = by_metric(FAMILIES["health"].measure(context, records))
    assert found["right_script"].value == 0.5 and found["stops"].value == 0.5
    assert found["not_empty"].value == 0.75 and found["not_repetitive"].value == 0.75
    assert found["length_tokens"].value == pytest.approx(23 / 4)


def test_health_of_a_real_model_says_what_it_wrote() -> None:
    model = small_model()
    context = TaskContext(model, "fa", HealthOptions(max_new_tokens=6))
    with generation_mode(model.causal_lm):
        records = list(FAMILIES["health"].score(context, Numbered({0: TextItem("سلام"), 1: TextItem("hi")})))
    assert [record["item"] for record in records] == [0, 1]
    assert all(0 <= record["tokens"] <= 6 for record in records)
    assert all(record["stopped"] == (record["tokens"] < 6) for record in records)
    with pytest.raises(NotPossibleError):
        FAMILIES["health"].check(TaskContext(small_model(form=False), "fa", HealthOptions()))
