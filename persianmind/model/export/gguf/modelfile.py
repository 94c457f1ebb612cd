"""The Modelfile that Ollama makes a model from: the trained prompt as a Go template, stops, penalty.

Ollama does not read the GGUF's Jinja template, so the form is read off what that template renders: the text
before, between and after the turns of a dialogue of known words.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from persianmind.model.export.gguf.generation import FolderGeneration
from persianmind.text.chat_template import RefusedDialogueError, render_template
from persianmind.text.dialogue import Message, Role

Turn = tuple[Role, str]  # who, and what
Render = Callable[[Sequence[Turn], bool], str]  # turns, answer follows -> text
_SYSTEM, _ONE, _TWO, _THREE = "Wsys", "Wone", "Wtwo", "Wthree"
_TURNS: tuple[Turn, ...] = (
    ("user", _ONE),
    ("assistant", _TWO),
    ("user", _THREE),
    ("assistant", "Wfour"),
    ("user", "Wfive"),
)


@dataclass(frozen=True)
class TurnForm:
    """The text around the turns of a dialogue.

    start: before the first user turn where there is no system turn. system_start, system_end: around that
    turn. default_system: what stands in its place where a dialogue has none. answer_start, answer_end: around
    an answer that is followed by a user turn. prompt_end: after the last user turn, where an answer follows.
    """

    start: str
    system_start: str
    system_end: str
    default_system: str | None
    answer_start: str
    answer_end: str
    prompt_end: str

    def text(self, turns: Sequence[Turn]) -> str:
        """A dialogue up to the next answer, written as Ollama will write it."""
        if self.default_system is not None and turns[0][0] != "system":
            turns = [("system", self.default_system), *turns]
        parts = []
        for index, (role, content) in enumerate(turns):
            if role == "system":
                parts.append(self.system_start + content + self.system_end)
            elif role == "user":
                parts.append(("" if index else self.start) + content)
            else:
                parts.append(self.answer_start + content + self.answer_end)
        return "".join(parts) + self.prompt_end

    def without(self, begin: str) -> TurnForm:
        """The same without the begin-of-text token in front."""
        system_start, start = self.system_start.removeprefix(begin), self.start.removeprefix(begin)
        return replace(self, system_start=system_start, start=start)

    def go_template(self) -> str:
        """The same as a Go template over `.Messages`, on one line: white space counts."""
        system = _literal(self.system_start) + "{{ .Content }}" + _literal(self.system_end)
        user = "{{ if eq $index 0 }}" + _literal(self.start) + "{{ end }}{{ .Content }}"
        assistant = _literal(self.answer_start) + "{{ .Content }}" + _literal(self.answer_end)
        return (
            "{{ range $index, $message := .Messages }}"
            '{{ if eq .Role "system" }}'
            + system
            + '{{ else if eq .Role "user" }}'
            + user
            + "{{ else }}"
            + assistant
            + "{{ end }}{{ end }}"
            + _literal(self.prompt_end)
        )


def _literal(text: str) -> str:
    """A Go action that prints the text; JSON's escapes are among Go's."""
    return "{{ " + json.dumps(text, ensure_ascii=False) + " }}" if text else ""


def read_turn_form(render: Render) -> TurnForm | None:
    """The form of a template, or None for one that is no plain sequence of turns (it drops, joins or rewrites
    some): both are tried on dialogues that were not read from."""
    system: Turn = ("system", _SYSTEM)
    one, two, three, four, five = _TURNS
    try:
        whole = _between(render([system, one, two, three], True), (_SYSTEM, _ONE, _TWO, _THREE))
        start = _between(render([one], True), (_ONE,))[0]
        plain = _form_of(whole, start)
        tried = ([one], [system, one], [one, two, three, four, five], [system, one, two, three, four, five])
        return plain if all(plain.text(turns) == render(turns, True) for turns in tried) else None
    except (ValueError, RefusedDialogueError):
        return None


def _form_of(whole: Sequence[str], start: str) -> TurnForm:
    system_start, system_end, answer_start, answer_end, prompt_end = whole
    default = None
    if start.startswith(system_start) and start.endswith(system_end) and system_end:
        default = start[len(system_start) : len(start) - len(system_end)]
    return TurnForm(start, system_start, system_end, default, answer_start, answer_end, prompt_end)


def _between(text: str, words: Sequence[str]) -> list[str]:
    parts = []
    for word in words:
        before, found, text = text.partition(word)
        if not found:
            raise ValueError(f"{word} is not in the rendered dialogue")
        parts.append(before)
    return [*parts, text]


def modelfile(generation: FolderGeneration, gguf_name: str) -> str:
    """The Modelfile of an exported folder, for `ollama create NAME -f FILE` beside the GGUF."""
    lines = [f"FROM ./{gguf_name}"]
    form = read_turn_form(_renderer(generation))
    if form is not None:
        form = form.without(_begin(generation))
    if form is None or '"""' in form.go_template() + (form.default_system or ""):
        lines.append(
            "# The chat template cannot be put as a Go template; llama-server reads it from the GGUF."
        )
    else:
        lines.append(f'TEMPLATE """{form.go_template()}"""')
        lines += [f'SYSTEM """{form.default_system}"""'] if form.default_system else []
    for token_id in generation.ends:
        token = generation.tokenizer.decode([token_id])
        lines.append(f"PARAMETER stop {json.dumps(token, ensure_ascii=False)}")
    penalty = 1.0 if generation.repetition_penalty is None else generation.repetition_penalty
    return "\n".join([*lines, f"PARAMETER repeat_penalty {penalty}", "PARAMETER repeat_last_n -1"]) + "\n"


def _begin(generation: FolderGeneration) -> str:
    """The begin-of-text token where Ollama, as llama.cpp, puts it before every prompt."""
    begin = generation.tokenizer.bos_id
    return "" if begin is None else generation.tokenizer.decode([begin])


def _renderer(generation: FolderGeneration) -> Render:
    def render(turns: Sequence[Turn], answer_follows: bool) -> str:
        messages = [Message(role, content) for role, content in turns]
        names = generation.tokenizer.named_tokens
        return render_template(generation.template, messages, names, add_generation_prompt=answer_follows)

    return render
