"""Multiple choice: scores by hand, models that know one thing only, and what a written answer names."""

from __future__ import annotations

from typing import Any

import pytest

from persianmind.evaluate.families.base import Numbered, TaskContext
from persianmind.evaluate.families.choice import ChoiceOptions, MultipleChoice
from persianmind.evaluate.families.choice_metrics import choice_metrics
from persianmind.evaluate.families.choice_prompt import letter_prompt, read_answer, text_prompt
from persianmind.evaluate.generate import generation_mode
from persianmind.evaluate.items import ChoiceItem
from persianmind.evaluate.measured import Measured
from persianmind.language import profile_for
from tests.evaluate.small_model import plain_log_likelihood, small_model

ITEM = ChoiceItem("چه شد؟", ("باران", "برف", "باد", "هیچ"), 2, "هوا سرد بود.", "nature")
OPTION_LETTERS = profile_for("fa").phrases.option_letters
PLAIN = ChoiceItem("2 + 2 =", ("3", "4", "5", "6"), 1)


def test_prompts_are_those_of_the_published_papers() -> None:
    assert letter_prompt(ITEM, 0, "Answer:") == (
        "P: هوا سرد بود.\nQ: چه شد؟\nA: باران\nB: برف\nC: باد\nD: هیچ\nAnswer:"
    )
    assert letter_prompt(PLAIN, 1, "Answer:") == "2 + 2 =\nA. 4\nB. 5\nC. 6\nD. 3\nAnswer:"
    assert text_prompt(PLAIN, "Answer:") == "2 + 2 =\nAnswer:"


@pytest.mark.parametrize(
    ("answer", "place"),
    [
        ("B", 1), ("b) 4", 1), ("The answer is C.", 2), ("گزینهٔ ۲", None), ("ب) ۴", 1), ("الف", 0),
        ("(D)", 3), ("A or B", None), ("", None), ("it is 4", 1), ("E", None),
    ],
)  # fmt: skip
def test_what_a_written_answer_names(answer: str, place: int | None) -> None:
    assert read_answer(answer, PLAIN.candidates, OPTION_LETTERS) == place


def test_an_answer_by_its_text() -> None:
    assert read_answer("فکر می‌کنم باد بود", ITEM.candidates) == 2
    assert read_answer("باد و برف", ITEM.candidates) is None
    assert read_answer("گزینهٔ ۲", ITEM.candidates) == 1  # none of its candidates is a number


def _record(number: int, answer: int, letters: list[list[float]], **other: Any) -> dict[str, Any]:
    return {"item": number, "answer": answer, "twins": [answer], "bytes": [2, 4, 6, 8], "category": "",
            "subsets": [], "flags": [], "letters": letters, **other}  # fmt: skip


def _by_name(measured: list[Measured]) -> dict[str, Measured]:
    return {one.metric: one for one in measured if not one.settings}


def test_scores_by_hand() -> None:
    text = [[-8.0, 4], [-12.0, 3], [-15.0, 2], [-16.0, 8]]  # per byte: 4, 3, 2.5, 2; per token: 2, 4, 7.5, 2
    records = [
        _record(0, 0, [[0.0, -1, -2, -3]], text=text),
        _record(1, 3, [[0.0, -1, -2, -3]], text=text),
        _record(2, 1, [[-5.0, -1, -2, -3]], text=text),
    ]
    found = _by_name(list(choice_metrics(records)))
    assert found["accuracy_letter"].value == pytest.approx(2 / 3)
    assert found["accuracy_text"].value == pytest.approx(1 / 3)  # always the first
    assert found["accuracy_text_per_byte"].value == pytest.approx(1 / 3)  # always the last
    assert found["accuracy_text_per_token"].value == pytest.approx(1 / 3)  # always the first: a tie
    assert found["accuracy_letter"].chance == 0.25
    assert found["accuracy_letter"].interval.low == pytest.approx(0.2077, abs=1e-4)


def test_a_model_that_knows_places_alone_is_at_chance_exactly() -> None:
    """It always prefers C: right in one of the four orders of each item, whatever the answer."""
    records = [_record(i, i % 4, [[-2.0, -2, -1, -2]] * 4) for i in range(12)]
    found = _by_name(list(choice_metrics(records)))
    assert found["accuracy_letter_orders"].value == 0.25 == found["accuracy_letter_orders"].chance
    interval = found["accuracy_letter_orders"].interval
    assert interval.low == interval.high == 0.25
    assert found["order_consistency"].value == 0.0


def test_a_model_that_knows_the_answer_is_right_in_every_order() -> None:
    def scores(answer: int) -> list[list[float]]:
        return [[-1.0 if (place + order) % 4 == answer else -2.0 for place in range(4)] for order in range(4)]

    records = [_record(i, i % 4, scores(i % 4)) for i in range(12)]
    found = _by_name(list(choice_metrics(records)))
    assert found["accuracy_letter_orders"].value == found["order_consistency"].value == 1.0


def test_doubtful_items_are_scored_both_ways_and_categories_apart() -> None:
    records = [_record(i, 0, [[0.0, -1, -2, -3]], category="a" if i < 12 else "b") for i in range(24)]
    records[0] |= {"flags": ["equal_candidates"], "twins": [0, 1], "letters": [[-1.0, 0, -2, -3]]}
    records[1] |= {"flags": ["empty_candidate"], "letters": [[-1.0, 0, -2, -3]]}
    found = list(choice_metrics(records))
    whole = next(one for one in found if one.metric == "accuracy_letter")
    assert whole.value == pytest.approx(23 / 24)  # the twin of the right answer is right
    assert whole.chance == pytest.approx((23 * 0.25 + 0.5) / 24)
    sound = next(one for one in found if one.settings.get("without"))
    assert (sound.value, sound.n) == (1.0, 22)
    categories = {one.settings["category"]: one.value for one in found if "category" in one.settings}
    assert categories == {"a": pytest.approx(11 / 12), "b": 1.0}


def test_a_real_model_s_likelihoods_are_those_of_its_prompts() -> None:
    model = small_model()
    context = TaskContext(model, "fa", ChoiceOptions())
    with generation_mode(model.causal_lm):
        records = list(MultipleChoice().score(context, Numbered({7: ITEM, 9: PLAIN})))
        by_item = {record["item"]: record for record in records}
        for number, item in ((7, ITEM), (9, PLAIN)):
            record = by_item[number]
            for order in range(4):
                prompt = letter_prompt(item, order, "Answer:")
                for place, letter in enumerate("ABCD"):
                    request = model.request(prompt, f" {letter}")
                    expected = plain_log_likelihood(model.causal_lm, request.context, request.continuation)
                    assert record["letters"][order][place] == pytest.approx(expected, rel=1e-4)
            request = model.request(text_prompt(item, "Answer:"), f" {item.candidates[0]}")
            expected = plain_log_likelihood(model.causal_lm, request.context, request.continuation)
            assert record["text"][0] == [pytest.approx(expected, rel=1e-4), len(request.continuation)]
            assert record["bytes"][0] == len(f" {item.candidates[0]}".encode())


def test_examples_stand_before_the_question_with_their_answers() -> None:
    model = small_model()
    example = ChoiceItem("1 + 1 =", ("1", "2"), 1)
    asked: list[Any] = []
    context = TaskContext(model, "en", ChoiceOptions(methods=["letters"], orders=False), [example])

    class Remembered:
        def score(self, requests: list[Any]) -> list[Any]:
            asked.extend(requests)
            return [type("S", (), {"log_likelihood": 0.0, "tokens": 1})() for _ in requests]

    remembered = type(
        "Model", (), {"request": model.request, "likelihood": lambda self: Remembered(), "form": None}
    )()
    list(
        MultipleChoice().score(
            TaskContext(remembered, "en", context.options, [example]), Numbered({0: PLAIN})
        )
    )  # type: ignore[arg-type]
    text = model.tokenizer.decode(asked[0].context)
    assert "1 + 1 =\nA. 1\nB. 2\nAnswer: B\n\n2 + 2 =" in text


def test_generated_answers_are_read() -> None:
    model = small_model()
    context = TaskContext(model, "en", ChoiceOptions(methods=["generation"], max_new_tokens=4))
    with generation_mode(model.causal_lm):
        (record,) = MultipleChoice().score(context, Numbered({0: PLAIN}))
    assert "letters" not in record and isinstance(record["generated"], str)
    assert record["chosen"] == read_answer(record["generated"], PLAIN.candidates)
