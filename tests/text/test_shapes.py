"""Instruction records as published sets have them, read turn by turn; what cannot be trained is named."""

from __future__ import annotations

from typing import Any

import pytest

from persianmind.recipe import Normalise, Quality, Source
from persianmind.text.clean import Dialogue, clean_record
from persianmind.text.decode import decode_record
from persianmind.text.dialogue import BadDialogueError, UntrainableDialogueError
from persianmind.text.filters import is_mojibake, symbol_ratio
from persianmind.text.record import Dropped, Position, RawRecord, Record
from persianmind.text.shapes import known_fields, parse_dialogue
from persianmind.text.spec import SourceSpec

ASK, SAY = ("user", "پرسش"), ("assistant", "پاسخ")
BE = ("system", "کوتاه پاسخ بده.")


def turn(role: str, content: Any) -> dict[str, Any]:
    return {"role": role, "content": content}


def said(name: str, value: str) -> dict[str, str]:
    return {"from": name, "value": value}


CHAT = [turn("user", "پرسش"), turn("assistant", "پاسخ")]
CALL = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f"}}]}
# name of the published layout, a record in its fields, its turns
LAYOUTS: list[tuple[str, dict[str, Any], list[tuple[str, str]]]] = [
    ("alpaca", {"instruction": "پرسش", "input": "", "output": "پاسخ"}, [ASK, SAY]),
    ("alpaca, input", {"instruction": "یک", "input": "دو", "output": "پاسخ"}, [("user", "یک\nدو"), SAY]),
    ("alpaca, null input", {"instruction": "پرسش", "input": None, "output": "پاسخ", "text": "x"}, [ASK, SAY]),
    (
        "llama-factory",
        {"instruction": "پرسش", "output": "پاسخ", "system": BE[1], "history": [["یک", "دو"]]},
        [BE, ("user", "یک"), ("assistant", "دو"), ASK, SAY],
    ),
    ("empty system", {"instruction": "پرسش", "output": "پاسخ", "system": " ", "history": []}, [ASK, SAY]),
    ("dolly", {"instruction": "یک", "context": "دو", "response": "پاسخ", "category": "qa"},
     [("user", "یک\nدو"), SAY]),
    ("sharegpt", {"conversations": [said("human", "پرسش"), said("gpt", "پاسخ")]}, [ASK, SAY]),
    ("sharegpt, system", {"system": BE[1], "conversations": [said("human", "پرسش"), said("gpt", "پاسخ")]},
     [BE, ASK, SAY]),
    ("sharegpt, system turn",
     {"conversations": [said("system", BE[1]), said("human", "پرسش"), said("gpt", "پاسخ")]}, [BE, ASK, SAY]),
    ("openai", {"messages": [turn("system", BE[1]), *CHAT]}, [BE, ASK, SAY]),
    ("openai, developer", {"messages": [turn("developer", BE[1]), *CHAT]}, [BE, ASK, SAY]),
    ("openai, parts",
     {"messages": [turn("user", [{"type": "text", "text": "پر"}, {"type": "text", "text": "سش"}]), CHAT[1]]},
     [ASK, SAY]),
    ("ultrachat", {"prompt": "پرسش", "prompt_id": "1", "messages": CHAT}, [ASK, SAY]),
    ("empty system turn", {"messages": [turn("system", ""), *CHAT]}, [ASK, SAY]),
    ("wildchat", {"conversation": [{**one, "language": "Persian"} for one in CHAT]}, [ASK, SAY]),
    ("gemma", {"messages": [CHAT[0], turn("model", "پاسخ")]}, [ASK, SAY]),
    ("prompt and completion", {"prompt": "پرسش", "completion": " پاسخ"}, [ASK, SAY]),
    ("trl, conversational", {"prompt": [turn("system", BE[1]), CHAT[0]], "completion": [CHAT[1]]},
     [BE, ASK, SAY]),
    ("prompt and response", {"prompt": "پرسش", "response": "پاسخ"}, [ASK, SAY]),
    ("question and answer", {"question": "پرسش", "answer": "پاسخ", "id": 1}, [ASK, SAY]),
    ("openorca", {"id": "x", "system_prompt": BE[1], "question": "پرسش", "response": "پاسخ"}, [BE, ASK, SAY]),
    ("reading", {"context": "متن", "question": "پرسش", "answer": "پاسخ"}, [("user", "متن\nپرسش"), SAY]),
    ("aya", {"inputs": "پرسش", "targets": "پاسخ", "language": "Iranian Persian"}, [ASK, SAY]),
    ("parquet nulls", {"messages": [{**one, "tool_calls": None, "name": None} for one in CHAT]}, [ASK, SAY]),
    ("an answer of signs", {"instruction": "پرسش", "output": "="}, [ASK, ("assistant", "=")]),
    ("an emoji", {"messages": [CHAT[0], turn("assistant", "🙂")]}, [ASK, ("assistant", "🙂")]),
]  # fmt: skip
# name, record, the name it is refused or left out by
REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("nothing known", {"text": "a"}, "missing_field"),
    ("text for history", {"instruction": "a", "output": "b", "history": "x"}, "wrong_type"),
    ("torn history", {"instruction": "a", "output": "b", "history": [["x"]]}, "wrong_type"),
    ("unknown role", {"messages": [turn("narrator", "a"), *CHAT]}, "unknown_role"),
    ("system later", {"messages": [*CHAT, turn("system", "x"), *CHAT]}, "roles_out_of_turn"),
    ("system twice", {"system": "a", "messages": [turn("system", "x"), *CHAT]}, "roles_out_of_turn"),
    ("no answer", {"conversations": [said("human", "a")]}, "no_answer"),
    ("null answer", {"question": "a", "answer": None}, "wrong_type"),
    ("answers as a list", {"question": "a", "answer": ["b"]}, "wrong_type"),
    ("part of no type", {"messages": [turn("user", [{"text": "a"}]), CHAT[1]]}, "wrong_type"),
]
LEFT_OUT: list[tuple[str, dict[str, Any], str]] = [
    ("tool result", {"messages": [CHAT[0], turn("tool", "{}"), CHAT[1]]}, "tool_turn"),
    ("sharegpt tools", {"conversations": [said("human", "a"), said("observation", "b")]}, "tool_turn"),
    ("tool call", {"messages": [CHAT[0], CALL, turn("tool", "1"), CHAT[1]]}, "tool_call"),
    ("image", {"messages": [turn("user", [{"type": "image_url"}]), CHAT[1]]}, "content_that_is_no_text"),
]


@pytest.mark.parametrize(("layout", "record", "turns"), LAYOUTS, ids=[one[0] for one in LAYOUTS])
def test_published_layouts(layout: str, record: dict[str, Any], turns: list[tuple[str, str]]) -> None:
    parsed = parse_dialogue(record)
    assert [(one.role, one.content) for one in parsed.messages] == turns and not parsed.left_out
    dialogue = cleaned(record)
    assert isinstance(dialogue, Dialogue) and [(m.role, m.content) for m in dialogue.messages] == turns


@pytest.mark.parametrize(("case", "record", "reason"), REFUSED, ids=[one[0] for one in REFUSED])
def test_what_is_no_dialogue_is_refused_by_name(case: str, record: dict[str, Any], reason: str) -> None:
    with pytest.raises(BadDialogueError, match=f"^{reason}$"):
        parse_dialogue(record)


@pytest.mark.parametrize(("case", "record", "name"), LEFT_OUT, ids=[one[0] for one in LEFT_OUT])
def test_what_is_not_trained_on_is_dropped_and_no_damage(
    case: str, record: dict[str, Any], name: str
) -> None:
    with pytest.raises(UntrainableDialogueError, match=f"^{name}$"):
        parse_dialogue(record)
    dropped = cleaned(record)
    assert isinstance(dropped, Dropped) and dropped.reason == name


def test_turns_after_the_last_answer_go_and_are_counted() -> None:
    parsed = parse_dialogue({"messages": [*CHAT, CHAT[0]], "tools": [{"name": "f"}]})
    assert len(parsed.messages) == 2
    assert parsed.left_out == ("tool_definitions", "turns_after_the_last_answer")


def test_columns_name_any_other_field() -> None:
    record = {"سوال": "پرسش", "جواب": "پاسخ", "answer": "not this"}
    dialogue = cleaned(record, columns={"question": "سوال", "answer": "جواب"})
    assert isinstance(dialogue, Dialogue) and [(m.role, m.content) for m in dialogue.messages] == [ASK, SAY]
    assert "question and answer" in known_fields()


def test_a_column_that_is_not_there_is_a_missing_field() -> None:
    with pytest.raises(BadDialogueError, match=r"^missing_field$"):
        parse_dialogue({"سوال": "پرسش"}, {"question": "سوال", "answer": "جواب"})


def test_the_word_for_photo_is_no_mojibake() -> None:
    profile_texts = ["عکس", "عکس ها", "چند عکس", "عکس‌ها"]
    assert not any(is_mojibake(text, fa()) for text in profile_texts)
    assert is_mojibake("سلام بر شما".encode().decode("cp1252", "replace"), fa())
    assert is_mojibake("سلام دنیا".encode().decode("cp1256", "replace"), fa())


@pytest.mark.parametrize("text", ["नमस्ते दुनिया, यह एक परीक्षण है", "မြန်မာဘာသာစကားသည် မြန်မာနိုင်ငံ၏ ရုံးသုံး"])
def test_combining_marks_are_no_symbols(text: str) -> None:
    assert symbol_ratio(text, fa()) < 0.1
    assert symbol_ratio("+-*/=<>!?()[]{}«»%$#", fa()) == 1.0


def fa() -> Any:
    from persianmind.language import profile_for

    return profile_for("fa")


def cleaned(record: dict[str, Any], **source: Any) -> Any:
    """The record as a build decodes and cleans it."""
    one = Source(uri="x.jsonl", kind="instruction", **source)
    spec = SourceSpec(
        name="s", source=one, normalise=Normalise(), quality=Quality(), held_out_ratio=0.0, seed=0
    )
    decoded = decode_record("s", one, RawRecord("x.jsonl", "", 1, Position(0, 1), record))
    assert isinstance(decoded, Record)
    return clean_record(decoded, spec)
