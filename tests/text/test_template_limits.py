"""Chat templates are foreign programs: what they write is what transformers writes, within limits."""

from __future__ import annotations

import time

import pytest

from persianmind.common.errors import DataError, PersianMindError
from persianmind.text import template_limits
from persianmind.text.chat_template import RefusedDialogueError, render_template
from persianmind.text.dialogue import Message
from persianmind.text.template_limits import check_chat_template

DIALOGUE = [Message("system", "s"), Message("user", "سلام"), Message("assistant", "b"), Message("user", "c")]
NAMES = {"bos_token": "<s>", "eos_token": "</s>"}
# As bases of different families write them: whitespace control, macros, namespaces, break, generation.
HONEST = {
    "chatml": "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
    "llama": "{% set loop_messages = messages %}{%- for message in loop_messages %}\n  {%- set content = "
    "'<|h|>' + message['role'] + '<|e|>\n\n' + message['content'] | trim + '<|eot|>' %}\n"
    "  {%- if loop.index0 == 0 %}"
    "{% set content = bos_token + content %}{% endif %}\n{{- content }}\n{% endfor %}tail\n",
    "macros": "{%- macro turn(m) -%}\n[{{ m.role }}]\n  {{ m.content }}\n{%- endmacro %}\n"
    "{% for m in messages %}\n    {{ turn(m) }}{% if loop.last %}{% break %}{% endif %}\n"
    "{% else %}none{% endfor %}\n",
    "namespace": "{% set ns = namespace(n=0) %}{% for m in messages %}{% for c in m.content %}"
    "{% set ns.n = ns.n + 1 %}{% endfor %}{% if m.role == 'user' %}{% continue %}{% endif %}{{ m | tojson }}"
    "{% endfor %}{{ ns.n }}",
    "generation": "{% for m in messages %}{% generation %}{{ m.content }}{{ eos_token }}{% endgeneration %}"
    "{% endfor %}",
    "call": "{% macro box() %}<{{ caller() }}>{% endmacro %}{% for m in messages %}{% call box() %}\n "
    "{{ m.content }}{% endcall %}{% endfor %}{% for a in [1, 2] recursive %}{{ a }}{% endfor %}",
}
LOOPS = "{% for a in range(200) %}{% for b in range(100) %}{% set x = 1 %}{% endfor %}{% endfor %}"
ENDLESS = {
    "loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% set x = 1 %}{% endfor %}{% endfor %}",
    "macros": "{% macro m(d) %}{% if d %}{{ m(d - 1) }}{{ m(d - 1) }}{% endif %}{% endmacro %}{{ m(60) }}",
    "writes": "{% for a in range(99999) %}{{ 'x' * 9999 }}{% endfor %}",
    "a constant": "{{ 'x' * 20000000000 }}",
    "a power": "{{ 10 ** (10 ** 9) }}",
    "doubling": "{% set x = 'aaaaaaaaaa' %}" + "{% set x = x ~ x %}" * 40,
    "a method": "{{ messages[0].content.center(20000000000) }}",
    "a filter": "{{ messages[0].content | indent(20000000000, true) }}",
    "long": "{# " + "x" * 300_000 + " #}",
}
REFUSED = {
    "attributes": ("{{ messages.__class__.__mro__ }}", "unsafe"),
    "subclasses": ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "unsafe"),
    "itself": ("{{ raise_exception('no\n system turn') }}", "no system turn"),
    "no Jinja": ("{% for %}", "Expected an expression"),
    "deep": ("{{ " + "(" * 20_000 + "1" + ")" * 20_000 + " }}", "recursion"),
    "recursion": ("{% macro m(x) %}{{ m(x) }}{% endmacro %}{{ m(1) }}", "recursion"),
    "division": ("{{ 1 / 0 }}", "division"),
    "counting": ("{{ count_round() }}", "undefined"),
}


@pytest.mark.parametrize("name", HONEST)
@pytest.mark.parametrize("asked", [False, True])
def test_text_is_that_of_transformers(name: str, asked: bool) -> None:
    from transformers.utils.chat_template_utils import render_jinja_template

    plain = [{"role": one.role, "content": one.content} for one in DIALOGUE]
    (theirs,), _ = render_jinja_template(
        [plain], chat_template=HONEST[name], add_generation_prompt=asked, **NAMES
    )
    assert render_template(HONEST[name], DIALOGUE, NAMES, add_generation_prompt=asked) == theirs
    check_chat_template(HONEST[name], "a folder")


@pytest.mark.parametrize("name", ENDLESS)
def test_a_template_without_end_is_refused_in_seconds(name: str) -> None:
    began_s = time.monotonic()
    with pytest.raises(DataError, match=r"the chat template of a folder (goes beyond|has more)"):
        check_chat_template(ENDLESS[name], "a folder")
    assert time.monotonic() - began_s < template_limits.TRIAL_S


@pytest.mark.parametrize("name", REFUSED)
def test_what_the_sandbox_or_the_template_refuses_is_a_named_error(name: str) -> None:
    template, reason = REFUSED[name]
    with pytest.raises(RefusedDialogueError, match=reason) as caught:
        render_template(template, DIALOGUE, NAMES, add_generation_prompt=False)
    assert isinstance(caught.value, PersianMindError) and "\n" not in str(caught.value)


def test_rounds_are_counted_where_a_template_waits_for_a_dialogue(monkeypatch: pytest.MonkeyPatch) -> None:
    """The trial cannot see what they wait for; the control is a limit that they keep."""
    waits = "{% if messages[0].content == 's' %}" + LOOPS + "{% endif %}"
    check_chat_template(waits, "a folder")
    assert render_template(waits, DIALOGUE, NAMES, add_generation_prompt=False) == ""
    monkeypatch.setattr(template_limits, "MAX_ROUNDS", 20_000)
    with pytest.raises(RefusedDialogueError, match="20,000 rounds"):
        render_template(waits, DIALOGUE, NAMES, add_generation_prompt=False)


def test_each_dialogue_has_all_rounds_and_what_is_written_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template_limits, "MAX_ROUNDS", 5)
    for _ in range(3):
        assert render_template(HONEST["chatml"], DIALOGUE, NAMES, add_generation_prompt=False)
    monkeypatch.setattr(template_limits, "MAX_WRITTEN_CHARACTERS", 10)
    with pytest.raises(RefusedDialogueError, match="writes more than 10 characters"):
        render_template(HONEST["chatml"], DIALOGUE, NAMES, add_generation_prompt=False)


def test_without_the_trial_one_operation_would_fill_the_memory() -> None:
    """The control of the child process: no count stops it."""
    text = render_template("{{ 'x' * 50000000 }}", DIALOGUE, NAMES, add_generation_prompt=False)
    assert len(text) == 50_000_000
