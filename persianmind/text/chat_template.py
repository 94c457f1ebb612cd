"""Dialogues as text, by a Jinja chat template: the language's own form as one, and the rendering of any.

Rendered in transformers' own sandbox, so that what is trained on is, character for character, what
`apply_chat_template` and the servers that call it write. Knows no tokenizer: special tokens are strings here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from persianmind.common.errors import DataError
from persianmind.language.profile import PromptTemplate
from persianmind.text.dialogue import Message

SHOWN_CHARACTERS = 400  # of what a template says of itself


class RefusedDialogueError(DataError):
    """A dialogue that a template refuses to write, or may not write: the sandbox or a limit stopped it. The
    message is the template's own."""


def own_template(prompt: PromptTemplate, *, bos: str, eos: str) -> str:
    r"""A language's own form of a conversation as a chat template.

    As in "{context}\\nYou: {prompt}\\nAssistant: {answer}", `eos` after every answer; a system message
    takes the place of the context. The space before an answer is the answer's: the text that generation is
    given ends in "PersianMind:", because tokenizers join a space to the word after it.

    Args:
        prompt: the language's form.
        bos: written once, before everything; "" where the tokenizer adds none to a text.
        eos: written after every answer.

    Returns:
        The Jinja source. Our strings are literals in it, so that it needs no variable but the messages.
    """
    label = prompt.assistant_turn.rstrip()
    space = prompt.assistant_turn[len(label) :]
    return (
        "{%- if messages[0]['role'] == 'system' -%}"
        f"{{{{ {_literal(bos)} + (messages[0]['content'] | trim) }}}}"
        f"{{%- else -%}}{{{{ {_literal(bos + prompt.context)} }}}}{{%- endif -%}}"
        "{%- for message in messages -%}"
        "{%- if message['role'] == 'user' -%}"
        f"{{{{ {_literal(chr(10) + prompt.user_turn)} + (message['content'] | trim) }}}}"
        "{%- elif message['role'] == 'assistant' -%}"
        f"{{{{ {_literal(chr(10) + label + space)} + (message['content'] | trim) + {_literal(eos)} }}}}"
        "{%- endif -%}{%- endfor -%}"
        f"{{%- if add_generation_prompt -%}}{{{{ {_literal(chr(10) + label)} }}}}{{%- endif -%}}"
    )


def with_bos(template: str, bos: str) -> str:
    """The same template with a begin-of-text token before everything it writes."""
    return f"{{{{ {_literal(bos)} }}}}{template}"


def render_template(
    template: str,
    messages: Sequence[Message],
    named_tokens: Mapping[str, str],
    *,
    add_generation_prompt: bool,
) -> str:
    """One dialogue as text.

    Args:
        template: Jinja source; it runs in transformers' sandbox.
        messages: the turns.
        named_tokens: strings of special tokens by the names that templates know them by ("eos_token").
        add_generation_prompt: ends where the next answer begins.

    Raises:
        RefusedDialogueError: the template is no Jinja, says that it cannot write these turns, reaches out of
            the sandbox, or goes beyond a limit of text/template_limits.py.
    """
    from persianmind.text.template_limits import render_within_limits

    turns = [{"role": message.role, "content": message.content} for message in messages]
    names = {"tools": None, "documents": None, "add_generation_prompt": add_generation_prompt}
    try:
        return render_within_limits(template, {"messages": turns, **names, **named_tokens})
    except Exception as error:  # a foreign program: what it may raise is not ours to list
        reason = " ".join(str(error).split()) or type(error).__name__
        raise RefusedDialogueError(reason[:SHOWN_CHARACTERS]) from None


def _literal(text: str) -> str:
    """A string of Jinja; JSON's escapes are a part of Jinja's."""
    return json.dumps(text, ensure_ascii=False)
