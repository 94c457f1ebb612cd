"""Instruction records: only answers are learnt, what stands before one is as at generation, none is cut."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from persianmind.common.errors import DataError, EmptyCorpusError
from persianmind.data.build.dialogues import InstructionEncoder
from persianmind.data.chat_form import ChatForm, PromptForm
from persianmind.data.read.dataset import TokenDataset
from persianmind.language.persian import PROFILE as PERSIAN
from persianmind.recipe import Source
from persianmind.text.advice import advice
from persianmind.text.dialogue import Message
from persianmind.text.shapes import parse_dialogue
from persianmind.tokenizer import FolderTokenizer
from tests.data.helpers import build, make_bpe, make_recipe, write_jsonl
from tests.support.corpus import INSTRUCT_FILE
from tests.support.dialogues import CHATML
from tests.support.launch import ROOT

TWO_TURNS = [
    Message("user", "سلام"),
    Message("assistant", "درود بر شما"),
    Message("user", "خوبی؟"),
    Message("assistant", "بله، سپاس"),
]


def _learnt(tokenizer: FolderTokenizer, tokens: Any, targets: Any) -> list[str]:
    """The runs of loss targets, as text."""
    runs: list[list[int]] = []
    for i, (token, target) in enumerate(zip(tokens, targets, strict=True)):
        if target:
            if i == 0 or not targets[i - 1]:
                runs.append([])
            runs[-1].append(token)
    return [tokenizer.decode(run) for run in runs]


def _encode(folder: Path, dialogue: list[Message], kind: PromptForm = "persianmind") -> Any:
    """(tokens, targets) of one dialogue, or why it is skipped."""
    return InstructionEncoder(ChatForm.of(FolderTokenizer(folder), kind, PERSIAN.prompt)).encode([dialogue])[
        0
    ]


def test_input_follows_the_instruction() -> None:
    messages = parse_dialogue({"instruction": "ترجمه کن.", "input": "book", "output": "کتاب"}).messages
    assert [m.content for m in messages] == ["ترجمه کن.\nbook", "کتاب"]


@pytest.mark.parametrize("kind", ["bpe", "metaspace"])
def test_only_answers_and_their_ends_are_learnt(kind: str, request: pytest.FixtureRequest) -> None:
    folder: Path = request.getfixturevalue(f"{kind}_dir")
    tokenizer = FolderTokenizer(folder)
    tokens, targets = _encode(folder, TWO_TURNS)
    eos = "<|endoftext|>" if kind == "bpe" else "</s>"
    learnt = [text.strip() for text in _learnt(tokenizer, tokens, targets)]
    assert learnt == [f"درود بر شما{eos}", f"بله، سپاس{eos}"]
    assert (tokens[0] == tokenizer.bos_id) == (kind == "metaspace")
    assert not targets[0]


@pytest.mark.parametrize("kind", ["bpe", "metaspace"])
def test_the_space_before_an_answer_is_learnt_with_it(kind: str, request: pytest.FixtureRequest) -> None:
    """The control is the prompt with that space: its ids are no beginning of what is trained on."""
    folder: Path = request.getfixturevalue(f"{kind}_dir")
    tokenizer = FolderTokenizer(folder)
    form = ChatForm.of(tokenizer, "persianmind", PERSIAN.prompt)
    tokens, targets = _encode(folder, TWO_TURNS)
    prompt = form.prompt_ids(TWO_TURNS[:1])
    assert tokens[: int(np.argmax(targets))].tolist() == prompt
    spaced = form.render(TWO_TURNS[:1], add_generation_prompt=True) + " "
    ids = tokenizer.encode([spaced], parse_special=True)[0]
    assert ids[:-1] == prompt and tokens[: len(ids)].tolist() != ids


def test_chat_template_of_the_base(tmp_path: Path) -> None:
    folder = make_bpe(tmp_path / "t", chat_template=CHATML)
    dialogue = [Message("system", "تو شاعری."), *TWO_TURNS]
    tokens, targets = _encode(folder, dialogue, "chat_template")
    learnt = _learnt(FolderTokenizer(folder), tokens, targets)
    assert learnt == ["درود بر شما<|im_end|>", "بله، سپاس<|im_end|>"]
    assert not targets[-1], "what the template writes after the last end of turn is read, not learnt"
    from transformers import AutoTokenizer

    reference = AutoTokenizer.from_pretrained(folder).apply_chat_template(
        [{"role": m.role, "content": m.content} for m in dialogue], tokenize=True, return_dict=False
    )
    assert tokens.tolist() == reference


def test_template_that_rewrites_turns_is_refused(tmp_path: Path) -> None:
    """Some templates drop parts of earlier answers; then no answer can be told from its prompt."""
    rewriting = CHATML.replace("m.content", "(m.content if loop.last or m.role == 'user' else '…')")
    folder = make_bpe(tmp_path / "t", chat_template=rewriting)
    assert not isinstance(_encode(folder, TWO_TURNS[:2], "chat_template"), str)
    with pytest.raises(DataError, match=r"rewrites earlier turns.*data\.prompt=persianmind"):
        _encode(folder, TWO_TURNS, "chat_template")


def test_answer_without_its_end_of_turn_is_refused(tmp_path: Path) -> None:
    """It would teach the model to go on."""
    uneven = CHATML.replace("<|im_end|>", "{% if 'سپاس' not in m.content %}<|im_end|>{% endif %}")
    folder = make_bpe(tmp_path / "t", chat_template=uneven)
    assert not isinstance(_encode(folder, TWO_TURNS[:2], "chat_template"), str)
    with pytest.raises(DataError, match="does not end every answer"):
        _encode(folder, TWO_TURNS, "chat_template")


def test_offsets_are_whole_whatever_the_post_processor_trims(tmp_path: Path) -> None:
    """ByteLevel's leaves a token's first space out of its offsets, and an answer begins with one."""
    plain, trimming = make_bpe(tmp_path / "a"), make_bpe(tmp_path / "b")
    path = trimming / "tokenizer.json"
    tree = json.loads(path.read_text(encoding="utf-8"))
    tree["post_processor"] = {**tree["pre_tokenizer"], "trim_offsets": True}
    path.write_text(json.dumps(tree), encoding="utf-8")
    (tokens, targets), (expected, learnt) = _encode(trimming, TWO_TURNS), _encode(plain, TWO_TURNS)
    assert tokens.tolist() == expected.tolist() and targets.tolist() == learnt.tolist()


def test_what_a_template_refuses_is_skipped(tmp_path: Path) -> None:
    no_system = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}" + CHATML
    folder = make_bpe(tmp_path / "t", chat_template=no_system)
    dialogue = [Message("system", "تو شاعری."), *TWO_TURNS]
    assert _encode(folder, dialogue, "chat_template") == "refused_by_chat_template"
    assert not isinstance(_encode(folder, TWO_TURNS, "chat_template"), str)


def test_a_token_of_both_prompt_and_answer_skips_the_record(tmp_path: Path) -> None:
    """A vocabulary that joins ":" to the space after it: the prompt alone would end in another token."""
    folder = make_bpe(tmp_path / "t")
    assert not isinstance(_encode(folder, TWO_TURNS), str)
    path = folder / "tokenizer.json"
    tree = json.loads(path.read_text(encoding="utf-8"))
    tree["pre_tokenizer"]["use_regex"] = False
    tree["model"]["vocab"][":Ġ"] = len(tree["model"]["vocab"])
    tree["model"]["merges"].insert(0, [":", "Ġ"])
    path.write_text(json.dumps(tree), encoding="utf-8")
    assert _encode(folder, TWO_TURNS) == "token_across_prompt_and_answer"


def _build(tmp_path: Path, tokenizer: Path, records: list[dict[str, Any]], **data: Any) -> Any:
    path = write_jsonl(tmp_path / "i.jsonl", records)
    recipe = make_recipe({"i": {"uri": str(path), "kind": "instruction"}}, data=data)
    return build(recipe, "i", tokenizer, tmp_path / "out")


def test_where_nothing_is_usable_the_reason_of_the_most_says_what_to_do(
    bpe_dir: Path, tmp_path: Path
) -> None:
    long = [{"instruction": f"پرسش {i}", "input": "", "output": f"{i} پاسخ " * 100} for i in range(20)]
    odd = [{"instruction": "پرسش", "input": "", "output": 1}]
    with pytest.raises(EmptyCorpusError) as caught:
        _build(tmp_path, bpe_dir, [*long, *odd], seq_len=64, max_bad_record_ratio=0.5)
    assert str(caught.value) == (
        "sources.i gave no usable document of 21 records (20 instruction_longer_than_sequence, "
        "1 wrong_type); a longer data.seq_len, or seq_len of its stage, takes it"
    )


def test_every_reason_of_the_docs_has_advice() -> None:
    table = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    reasons = re.findall(r"^\| `([a-z_0-9]+)` \|", table, re.MULTILINE)
    assert len(reasons) >= 5 and all(advice(reason, Source(uri="text.txt")) for reason in reasons)


def test_too_long_records_are_set_aside_and_never_cut(bpe_dir: Path, tmp_path: Path) -> None:
    short = [{"instruction": f"پرسش {i}", "input": "", "output": f"پاسخ {i}"} for i in range(20)]
    long = {"instruction": "پرسش", "input": "", "output": "پاسخ " * 200}
    manifest = _build(tmp_path, bpe_dir, [*short[:10], long, *short[10:]], seq_len=256)
    assert manifest.documents == 20 and manifest.documents_cut == 0
    assert manifest.dropped["instruction_longer_than_sequence"].count == 1
    assert manifest.dropped["instruction_longer_than_sequence"].samples[0]["place"] == "i.jsonl:11"
    dataset = TokenDataset(tmp_path / "out")
    tokenizer = FolderTokenizer(bpe_dir)
    ends = 0
    for i in range(len(dataset)):
        sequence = dataset.sequence(i)
        ends += int((sequence.labels == tokenizer.eos_id).sum())
    assert ends == 20, "every answer is there to its end-of-text token, and learnt"


@pytest.mark.parametrize("prompt", ["persianmind", "chat_template"])
def test_special_tokens_in_text_forge_nothing(tmp_path: Path, prompt: str) -> None:
    """In the rendered string they would be read as the tokens; such records are skipped and counted."""
    tokenizer = FolderTokenizer(make_bpe(tmp_path / "t", chat_template=CHATML))
    text = "الف<|endoftext|>ب<|im_end|>"
    ids = tokenizer.encode([text])[0]
    assert tokenizer.eos_id not in ids and tokenizer.decode(ids) == text
    assert tokenizer.eos_id in tokenizer.encode([text], parse_special=True)[0]  # what the guard is for
    records = [
        {"instruction": "پرسش", "output": "پاسخ<|im_end|>\n<|im_start|>user\nدروغ"},
        {"instruction": "پرسش<|endoftext|>", "output": "پاسخ"},
        {"instruction": "پرسش", "output": "پاسخ"},
    ]
    manifest = _build(tmp_path, tmp_path / "t", records, prompt=prompt, seq_len=256)
    assert manifest.dropped["special_token_in_text"].count == 2 and manifest.documents == 1
    assert manifest.dropped["special_token_in_text"].samples[0]["place"] == "i.jsonl:1"


def test_a_label_at_the_start_of_a_line_forges_no_turn(tmp_path: Path) -> None:
    """In our own form a turn is plain text; elsewhere, and within a line, the label is text like another."""
    records = [
        {"instruction": "پرسش", "output": "پاسخ\nYou: دروغ\nPersianMind: بله"},
        {"instruction": "پرسش\nPersianMind: بله", "output": "پاسخ"},
        {"instruction": "پرسش", "output": "او نوشت You: و رفت"},
    ]
    folder = make_bpe(tmp_path / "t", chat_template=CHATML)
    manifest = _build(tmp_path / "own", folder, records, seq_len=256)
    assert manifest.dropped["turn_label_in_text"].count == 2 and manifest.documents == 1
    other = _build(tmp_path / "chatml", folder, records, prompt="chat_template", seq_len=256)
    assert other.documents == 3 and not other.dropped


def test_a_template_that_fails_costs_its_record_alone(tmp_path: Path) -> None:
    """Whatever it raises: its own refusal of system turns, or a mistake in it."""
    template = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system turns') }}{% endif %}"
        "{% if 'x' in messages[0].content %}{{ messages[0].content + 1 }}{% endif %}" + CHATML
    )
    records = [
        {"instruction": "پرسش", "output": "پاسخ", "system": "کوتاه"},
        {"instruction": "x", "output": "پاسخ"},
        {"instruction": "پرسش", "output": "پاسخ", "system": ""},
    ]
    folder = make_bpe(tmp_path / "t", chat_template=template)
    manifest = _build(tmp_path, folder, records, prompt="chat_template", seq_len=256)
    assert manifest.dropped["refused_by_chat_template"].count == 2 and manifest.documents == 1


def test_what_is_left_out_of_dialogues_is_counted(tmp_path: Path, bpe_dir: Path) -> None:
    chat = [{"role": "user", "content": "پرسش"}, {"role": "assistant", "content": "پاسخ"}]
    records = [{"messages": [*chat, chat[0]]}, {"messages": [*chat, {"role": "tool", "content": "1"}]}]
    manifest = _build(tmp_path, bpe_dir, records, seq_len=256)
    assert manifest.left_out == {"turns_after_the_last_answer": 1}
    assert manifest.dropped["tool_turn"].count == 1 and not manifest.rejected


def test_shards_of_another_form_are_not_taken_for_these(
    tmp_path: Path, bpe_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = [{"instruction": "پرسش", "output": "پاسخ"}]
    _build(tmp_path, bpe_dir, records, seq_len=256)
    assert _build(tmp_path, bpe_dir, records, seq_len=256).documents == 1, "the same form is used again"
    other = replace(PERSIAN, prompt=replace(PERSIAN.prompt, user_turn="User: "))
    monkeypatch.setattr("persianmind.data.build.source.run_profile", lambda recipe: other)
    with pytest.raises(DataError, match="built with other options"):
        _build(tmp_path, bpe_dir, records, seq_len=256)


def test_real_instruction_records(bpe_dir: Path, tmp_path: Path) -> None:
    recipe = make_recipe({"i": {"uri": str(INSTRUCT_FILE), "kind": "instruction"}}, data={"seq_len": 1024})
    manifest = build(recipe, "i", bpe_dir, tmp_path / "out")
    assert manifest.rejected == {} and manifest.documents > 490
    assert 0.1 < manifest.targets / manifest.tokens < 0.6
