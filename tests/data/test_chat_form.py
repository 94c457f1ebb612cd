"""The form of dialogues: the paper's text, one template, and what cannot be trained on refused at once."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from persianmind.common.errors import DataError
from persianmind.data.chat_form import ChatForm
from persianmind.language.persian import PROFILE as PERSIAN
from persianmind.text.dialogue import Message
from persianmind.tokenizer import FolderTokenizer
from tests.data.helpers import build, make_bpe, make_recipe, write_jsonl
from tests.support.dialogues import CHATML, LLAMA_2, ZEPHYR
from tests.vocab.helpers import mistral_model

DIALOGUE = [
    Message("user", "سلام"),
    Message("assistant", "درود بر شما"),
    Message("user", "خوبی؟"),
    Message("assistant", "بله، سپاس"),
]
CONTEXT = PERSIAN.prompt.context


def test_the_form_is_the_papers(bpe_dir: Path, metaspace_dir: Path) -> None:
    form = ChatForm.of(FolderTokenizer(bpe_dir), "persianmind", PERSIAN.prompt)
    assert form.render(DIALOGUE) == (
        f"{CONTEXT}\nYou: سلام\nPersianMind: درود بر شما<|endoftext|>"
        "\nYou: خوبی؟\nPersianMind: بله، سپاس<|endoftext|>"
    )
    prompt = form.render(DIALOGUE[:1], add_generation_prompt=True)
    assert prompt == f"{CONTEXT}\nYou: سلام\nPersianMind:"
    assert form.render(DIALOGUE[:1]) == f"{CONTEXT}\nYou: سلام"
    stated = form.render([Message("system", "تو شاعری."), *DIALOGUE[:1]], add_generation_prompt=True)
    assert stated == "تو شاعری.\nYou: سلام\nPersianMind:"
    begun = ChatForm.of(FolderTokenizer(metaspace_dir), "persianmind", PERSIAN.prompt)
    assert begun.render(DIALOGUE[:2]) == f"<s>{CONTEXT}\nYou: سلام\nPersianMind: درود بر شما</s>"


def test_white_space_around_a_turn_changes_no_prompt(bpe_dir: Path) -> None:
    """Training strips turns; what a chat client sends may be padded."""
    form = ChatForm.of(FolderTokenizer(bpe_dir), "persianmind", PERSIAN.prompt)
    assert form.prompt_ids([Message("user", " سلام \n")]) == form.prompt_ids(DIALOGUE[:1])


def test_strings_of_the_profile_are_text_in_the_template(bpe_dir: Path) -> None:
    hostile = replace(PERSIAN.prompt, context="{{ 1 }} \"'\\\n{% raw %}", user_turn="{# پرسش #} ")
    rendered = ChatForm.of(FolderTokenizer(bpe_dir), "persianmind", hostile).render(DIALOGUE[:1])
    assert rendered == "{{ 1 }} \"'\\\n{% raw %}\n{# پرسش #} سلام"


def test_where_generation_stops(tmp_path: Path, bpe_dir: Path) -> None:
    tokenizer = FolderTokenizer(bpe_dir)
    assert ChatForm.of(tokenizer, "persianmind", PERSIAN.prompt).end_of_turn_ids == (tokenizer.eos_id,)
    chatml = FolderTokenizer(make_bpe(tmp_path / "t", chat_template=CHATML))
    end = chatml.encode(["<|im_end|>"], parse_special=True)[0][0]
    assert ChatForm.of(chatml, "chat_template", PERSIAN.prompt).end_of_turn_ids == (end, chatml.eos_id)


def test_begin_of_text_is_written_once_whether_the_template_does_or_not(metaspace_dir: Path) -> None:
    for template in (LLAMA_2, ZEPHYR):
        folder = FolderTokenizer(metaspace_dir)
        folder.chat_template = lambda template=template: template  # type: ignore[method-assign, misc]
        ids = ChatForm.of(folder, "chat_template", PERSIAN.prompt).prompt_ids(DIALOGUE[:1])
        assert ids[0] == folder.bos_id and ids.count(ids[0]) == 1


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        (None, "has no chat template"),
        ("{{ strftime_now('%d') }}" + CHATML, "date of the day"),
        (CHATML.replace("<|im_end|>", ""), "no end-of-turn token"),
        ("{{ messages | length }}" + CHATML, "rewrites earlier turns"),
        ("{{ raise_exception('nothing') }}", "writes no dialogue: nothing"),
        ("{% if %}", "writes no dialogue: Expected an expression"),
    ],
)
def test_template_that_cannot_be_trained_on_is_refused(
    tmp_path: Path, template: str | None, reason: str
) -> None:
    folder = make_bpe(tmp_path / "t", **({} if template is None else {"chat_template": template}))
    with pytest.raises(DataError, match=reason) as caught:
        ChatForm.of(FolderTokenizer(folder), "chat_template", PERSIAN.prompt)
    assert "data.prompt=persianmind" in str(caught.value) and "\n" not in str(caught.value)


def test_template_of_text_sources_is_not_looked_at(tmp_path: Path, bpe_dir: Path) -> None:
    path = write_jsonl(tmp_path / "t.jsonl", [{"text": "کتاب خانه مردم ایران"}])
    recipe = make_recipe({"t": {"uri": str(path)}}, data={"prompt": "chat_template"})
    assert build(recipe, "t", bpe_dir, tmp_path / "out").documents == 1


def test_sentencepiece_alone_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    folder = tmp_path / "t"
    folder.mkdir()
    (folder / "tokenizer.model").write_bytes(mistral_model().read_bytes())
    path = write_jsonl(tmp_path / "i.jsonl", [{"instruction": "پرسش", "output": "پاسخ"}])
    recipe = make_recipe({"i": {"uri": str(path), "kind": "instruction"}})
    with pytest.raises(DataError, match="persianmind vocab build"):
        build(recipe, "i", folder, tmp_path / "out")
    assert (
        not list((tmp_path / "out").glob("*.safetensors")) and not (tmp_path / "out/manifest.json").exists()
    )


def test_end_of_text_that_no_string_names_is_refused(tmp_path: Path) -> None:
    """An ordinary piece as end-of-text: a server that reads the rendered text would never see it."""
    folder = make_bpe(tmp_path / "t")
    path = folder / "tokenizer.json"
    tree = json.loads(path.read_text(encoding="utf-8"))
    tree["added_tokens"] = [one for one in tree["added_tokens"] if one["content"] != "<|endoftext|>"]
    path.write_text(json.dumps(tree), encoding="utf-8")
    with pytest.raises(DataError, match=r"does not read its token 0 \('<\|endoftext\|>'\) in text"):
        ChatForm.of(FolderTokenizer(folder), "persianmind", PERSIAN.prompt)
