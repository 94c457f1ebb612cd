"""Chat templates are programs of whoever made the base: limits of how long they run and how much they write.

Each loop and each macro of a template counts its rounds, and what it writes is counted as it comes. What no
count can stop, one operation on a text of gigabytes or a constant that is worked out while the template is
compiled, is looked for once per template: a child process with little memory and little time tries it first.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from persianmind.common.child import die_with_parent, start_child
from persianmind.common.errors import DataError
from persianmind.common.log import print_line

if TYPE_CHECKING:
    from jinja2 import Environment, Template

MAX_TEMPLATE_CHARACTERS = 256 << 10  # the longest of well-known bases has 20 thousand
MAX_ROUNDS = 1_000_000  # of all loops and macros of one dialogue
MAX_WRITTEN_CHARACTERS = 64 << 20
TRIAL_MEMORY_BYTES = 1 << 30  # beyond what Python and the sandbox take
TRIAL_CPU_S = 5
TRIAL_S = 300  # by the clock, of a machine that is busy
MODULE = "persianmind.text.template_limits"
DONE = "done"
_TURN = "a text of some length. " * 40
_PROBE = [{"role": role, "content": _TURN} for _ in range(20) for role in ("user", "assistant")]
_rounds = threading.local()


class TemplateLimitError(Exception):
    """A chat template goes beyond a limit; the message says which."""


def render_within_limits(template: str, names: Mapping[str, Any]) -> str:
    """What transformers' `apply_chat_template` writes for these names.

    Raises:
        TemplateLimitError: beyond a limit.
        Exception: whatever the template raises.
    """
    compiled = _compile(template)
    _rounds.left = MAX_ROUNDS
    pieces, written = [], 0
    for piece in compiled.generate(**names):
        written += len(piece)
        if written > MAX_WRITTEN_CHARACTERS:
            raise TemplateLimitError(f"the template writes more than {MAX_WRITTEN_CHARACTERS:,} characters")
        pieces.append(piece)
    return "".join(pieces)


@cache
def check_chat_template(template: str, folder: str) -> None:
    """Tries a foreign template in a child process, before this process compiles it. A template that refuses
    the dialogue, or is no Jinja, passes: rendering says so.

    Args:
        template: Jinja source.
        folder: where it is from, for the message.

    Raises:
        DataError: it is too long, or takes too much time or memory.
    """
    where = f"the chat template of {folder}"
    if len(template) > MAX_TEMPLATE_CHARACTERS:
        raise DataError(f"{where} has more than {MAX_TEMPLATE_CHARACTERS:,} characters; set a shorter one")
    with start_child(
        MODULE, {}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as child:
        try:
            said, _ = child.communicate(template.encode("utf-8", "replace"), timeout=TRIAL_S)
        except subprocess.TimeoutExpired:
            said = b""
        finally:
            child.kill()
    if (line := said.decode("utf-8", "replace").strip()) != DONE:
        much = f"it takes more than {TRIAL_CPU_S} s or {TRIAL_MEMORY_BYTES >> 20} MiB for a short dialogue"
        raise DataError(f"{where} goes beyond a limit: {line or much}; set another one")


@lru_cache(maxsize=64)
def _compile(template: str) -> Template:
    """The template in transformers' sandbox, its loops and macros counting."""
    from jinja2 import nodes

    environment = _environment()
    tree = environment.parse(template)
    bodies: list[Any] = [
        node for kind in (nodes.For, nodes.Macro, nodes.CallBlock) for node in tree.find_all(kind)
    ]
    for node in bodies:
        call = nodes.Call(nodes.EnvironmentAttribute("count_round"), [], [], None, None)
        node.body.insert(0, nodes.ExprStmt(call).set_lineno(node.lineno))
    return environment.from_string(tree)


@cache
def _environment() -> Environment:
    # The public function around it costs as much again: it copies turns of any kind, and ours are strings.
    from transformers.utils.chat_template_utils import _compile_jinja_template

    environment: Environment = _compile_jinja_template("").environment
    environment.extend(count_round=_count_round)
    return environment


def _count_round() -> None:
    _rounds.left -= 1
    if _rounds.left < 0:
        raise TemplateLimitError(f"the loops of the template take more than {MAX_ROUNDS:,} rounds")


def _limit_process() -> None:
    import resource

    die_with_parent()
    most_s = int(time.process_time()) + 1 + TRIAL_CPU_S  # importing the sandbox took some
    resource.setrlimit(resource.RLIMIT_CPU, (most_s, most_s))
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[0]
    used_bytes = int(pages) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used_bytes + TRIAL_MEMORY_BYTES,) * 2)


def _try_template(template: str) -> None:
    """Every way that a template is asked in, for a dialogue of some thousand words."""
    for turns in ([], _PROBE[:1], _PROBE[:2], [{"role": "system", "content": _TURN}, *_PROBE]):
        for asked in (False, True):
            names = {"messages": turns, "tools": None, "documents": None, "add_generation_prompt": asked}
            try:
                render_within_limits(template, names)
            except (TemplateLimitError, MemoryError):
                raise
            except Exception:  # what it refuses is said where it is used
                continue


def _main() -> None:
    """The child: one line, `DONE` or the limit."""
    _environment()
    _limit_process()
    try:
        _try_template(sys.stdin.buffer.read().decode("utf-8"))
    except TemplateLimitError as error:
        print_line(str(error))
    else:
        print_line(DONE)


if __name__ == "__main__":
    _main()
