"""Dialogues over real expanded tokenizers: what is trained on is what every server makes of the template."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from persianmind.data.build.dialogues import InstructionEncoder, Targets
from persianmind.data.chat_form import ChatForm, PromptForm
from persianmind.language.persian import PROFILE as PERSIAN
from persianmind.text.dialogue import Message
from persianmind.tokenizer import FolderTokenizer, Tokens
from tests.support.dialogues import LLAMA_2, ZEPHYR, as_turns, make_dialogues, with_template

# Base, form, template of the base: its own where None.
CASES: list[tuple[str, PromptForm, str | None]] = [
    ("smollm2", "persianmind", None),
    ("smollm2", "chat_template", None),
    ("llama-3-like", "persianmind", None),
    ("qwen-like", "chat_template", None),
    ("mistral", "persianmind", None),
    ("mistral", "chat_template", LLAMA_2),
    ("mistral", "chat_template", ZEPHYR),
]


def _trained(form: ChatForm, dialogues: list[list[Message]]) -> list[tuple[Tokens, Targets]]:
    encoded = InstructionEncoder(form).encode(dialogues)
    assert not [one for one in encoded if isinstance(one, str)], "a dialogue was skipped"
    return [one for one in encoded if not isinstance(one, str)]


@pytest.mark.parametrize(("base", "kind", "template"), CASES)
def test_trained_ids_are_those_of_the_rendered_template(
    built: dict[str, Path], tmp_path: Path, base: str, kind: PromptForm, template: str | None
) -> None:
    from transformers import AutoTokenizer

    folder = built[base] if template is None else with_template(built[base], tmp_path / "base", template)
    tokenizer = FolderTokenizer(folder)
    form = ChatForm.of(tokenizer, kind, PERSIAN.prompt)
    dialogues = make_dialogues(500)
    trained = _trained(form, dialogues)
    served = AutoTokenizer.from_pretrained(with_template(folder, tmp_path / "served", form.template))
    conversations = [as_turns(messages) for messages in dialogues]
    all_ids = [tokens.tolist() for tokens, _ in trained]
    assert served.apply_chat_template(conversations, tokenize=True, return_dict=False) == all_ids
    rendered = served.apply_chat_template(conversations, tokenize=False)
    assert served(rendered, add_special_tokens=False)["input_ids"] == all_ids
    for messages, ids, (_, targets) in zip(dialogues, all_ids, trained, strict=True):
        if tokenizer.bos_id is not None:
            begins = sum(m.role == "user" for m in messages) if template == LLAMA_2 else 1
            assert ids[0] == tokenizer.bos_id and ids.count(tokenizer.bos_id) == begins
        _check_answers(form, messages, ids, targets)


def _check_answers(form: ChatForm, messages: list[Message], ids: list[int], targets: Targets) -> None:
    """Each run of targets begins where generation would, holds the answer, and ends with its end of turn."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], targets, [False]]).astype(np.int8)))
    runs = edges.reshape(-1, 2).tolist()
    answers = [i for i, message in enumerate(messages) if message.role == "assistant"]
    assert len(runs) == len(answers)
    for i, (first, end) in zip(answers, runs, strict=True):
        assert form.prompt_ids(messages[:i]) == ids[:first]
        assert ids[end - 1] in form.end_of_turn_ids
        assert not set(ids[first : end - 1]) & set(form.end_of_turn_ids)
        text = form.tokenizer.decode(ids[first : end - 1]).strip()
        assert text == form.tokenizer.decode(form.tokenizer.encode([messages[i].content])[0]).strip()


def test_sentencepiece_itself_gives_the_same_ids(built: dict[str, Path]) -> None:
    """As llama.cpp does: control tokens cut the text, and what is between them is SentencePiece's."""
    from sentencepiece import SentencePieceProcessor

    reference = SentencePieceProcessor(model_file=str(built["mistral"] / "tokenizer.model"))
    form = ChatForm.of(FolderTokenizer(built["mistral"]), "persianmind", PERSIAN.prompt)
    dialogues = make_dialogues(500)
    for messages, (tokens, _) in zip(dialogues, _trained(form, dialogues), strict=True):
        ids: list[int] = []
        for part in re.split(r"(<s>|</s>)", form.render(messages)):
            control = part in ("<s>", "</s>")
            ids += [reference.piece_to_id(part)] if control else reference.encode(part) if part else []
        assert ids == tokens.tolist()


@pytest.mark.parametrize("base", ["smollm2", "mistral"])
def test_segments_encoded_apart_are_other_ids(built: dict[str, Path], base: str) -> None:
    """The control: prompt up to "PersianMind: " and answer one by one, as training once did."""
    tokenizer = FolderTokenizer(built[base])
    form = ChatForm.of(tokenizer, "persianmind", PERSIAN.prompt)
    dialogues = make_dialogues(100)
    differing = 0
    for messages, (tokens, _) in zip(dialogues, _trained(form, dialogues), strict=True):
        whole, spans = form.render_answers(messages)
        cuts = [0, *(place for begin, end in spans for place in (begin + 1, end)), len(whole)]
        parts = [whole[a:b] for a, b in pairwise(cuts)]
        apart = [i for ids in tokenizer.encode(parts, parse_special=True) for i in ids]
        differing += apart != tokens.tolist()
    assert differing > 90
