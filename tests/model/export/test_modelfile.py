"""The Modelfile: the Go template writes what the Jinja template renders."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from persianmind.language.persian import PROFILE as PERSIAN
from persianmind.model.bases import resolve_base
from persianmind.model.export.gguf.modelfile import Render, Turn, read_turn_form
from persianmind.model.export.gguf.write import export_gguf
from persianmind.text.chat_template import own_template, render_template
from persianmind.text.dialogue import Message
from tests.model.export.exported import CHATML, dialogues, make_export

# Llama 2: the system turn stands inside the first user turn.
LLAMA_2 = (
    "{% if messages[0].role == 'system' %}{% set system = '<<SYS>>' + messages[0].content + '<</SYS>>' %}"
    "{% set turns = messages[1:] %}{% else %}{% set system = '' %}{% set turns = messages %}{% endif %}"
    "{% for m in turns %}{% if m.role == 'user' %}{{ '<s>[INST] ' + (system if loop.first else '') "
    "+ m.content + ' [/INST]' }}{% else %}{{ ' ' + m.content + ' </s>' }}{% endif %}{% endfor %}"
)
DEFAULT_SYSTEM = (
    "{% if messages[0].role != 'system' %}{{ '<|im_start|>system\\nBe \"kind\".<|im_end|>\\n' }}{% endif %}"
)
REFUSING = "{% if messages[0].role == 'system' %}{{ raise_exception('no system turn') }}{% endif %}" + CHATML
NUMBERED = "{% for m in messages %}{{ loop.index }}{{ m.content }}{% endfor %}"
DROPPED = "{{ messages[-1].content }}"


def persianmind_form(bos: str = "") -> str:
    return own_template(PERSIAN.prompt, bos=bos, eos="</s>")


def renderer(source: str) -> Render:
    def render(turns: Sequence[Turn], answer_follows: bool) -> str:
        messages = [Message(role, content) for role, content in turns]
        return render_template(source, messages, {}, add_generation_prompt=answer_follows)

    return render


def go(template: str, turns: Sequence[Turn]) -> str:
    """The few actions of Go's templates that are used, carried out: an imitation of Ollama."""
    whole = r"{{ range \$index, \$message := \.Messages }}(.*){{ end }}(.*)"
    body, rest = re.fullmatch(whole, template).groups()  # type: ignore[union-attr]
    cases = re.fullmatch(
        r'{{ if eq \.Role "system" }}(.*){{ else if eq \.Role "user" }}(.*){{ else }}(.*){{ end }}', body
    )
    assert cases is not None
    of_role = dict(zip(("system", "user", "assistant"), cases.groups(), strict=True))
    text = ""
    for index, (role, content) in enumerate(turns):
        part = re.sub(
            r"{{ if eq \$index 0 }}(.*?){{ end }}",
            lambda m, index=index: m[1] if index == 0 else "",
            of_role[role],
        )
        text += literals(part).replace("{{ .Content }}", content)
    return text + literals(rest)


def literals(part: str) -> str:
    return re.sub(r'{{ ("(?:[^"\\]|\\.)*") }}', lambda m: str(json.loads(m[1])), part)


@pytest.mark.parametrize(
    "source",
    [
        persianmind_form(),
        persianmind_form("<s>"),
        CHATML,
        DEFAULT_SYSTEM + CHATML,
        LLAMA_2,
    ],
    ids=["persianmind", "persianmind with BOS", "ChatML", "ChatML with a system turn of its own", "Llama 2"],
)
def test_the_go_template_writes_what_the_jinja_template_renders(source: str) -> None:
    render = renderer(source)
    form = read_turn_form(render)
    assert form is not None
    template = form.go_template()
    for messages in dialogues(60):
        turns = [
            (message["role"], message["content"].strip()) for message in messages
        ]  # Ollama does not trim
        same = list(turns)
        if form.default_system is not None and turns[0][0] != "system":  # Ollama puts SYSTEM there
            turns = [("system", form.default_system), *turns]
        assert go(template, turns) == render(turns, True)
        assert render(turns, True) == render(same, True)


@pytest.mark.parametrize(
    "source", [NUMBERED, DROPPED, REFUSING], ids=["numbers", "last turn", "no system turn"]
)
def test_a_template_that_is_no_sequence_of_turns_is_left_out(source: str) -> None:
    assert read_turn_form(renderer(source)) is None


def test_the_file_beside_the_gguf(tmp_path: Path, sentencepiece: Path) -> None:
    exported = make_export(
        tmp_path / "export",
        sentencepiece,
        num_hidden_layers=1,
        generation={"repetition_penalty": 1.1, "eos_token_id": [2, 32000]},
    )
    export_gguf(exported, tmp_path / "m-q8_0.gguf", dtype="q8_0")
    lines = (tmp_path / "m-q8_0.Modelfile").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "FROM ./m-q8_0.gguf"
    assert lines[1].startswith('TEMPLATE """{{ range') and "<s>" not in lines[1]  # Ollama puts BOS itself
    assert lines[2] == f'SYSTEM """{PERSIAN.prompt.context}"""'
    assert lines[3] == 'PARAMETER stop "</s>"' and lines[4].startswith("PARAMETER stop ")
    assert lines[5:] == ["PARAMETER repeat_penalty 1.1", "PARAMETER repeat_last_n -1"]


def test_a_template_that_cannot_be_put_so_is_said(tmp_path: Path) -> None:
    exported = make_export(tmp_path / "export", resolve_base("random://llama"), template=NUMBERED)
    export_gguf(exported, tmp_path / "m.gguf", pre_tokenizer="gpt-2")
    text = (tmp_path / "m.Modelfile").read_text(encoding="utf-8")
    assert "TEMPLATE" not in text and "# The chat template cannot be put as a Go template" in text
