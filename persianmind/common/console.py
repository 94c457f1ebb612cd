"""What commands share: one JSON object on standard output, or a table; one line for every error."""

from __future__ import annotations

import json
import re
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer

from persianmind.common.command_help import name_wanted
from persianmind.common.errors import PersianMindError, UsageError
from persianmind.common.log import print_line

RANK_0_SPEAKS_S = 5.0
PIPE_WIDTH = 10_000  # more than any row has: a table is as wide as its cells
LOST_PEER = re.compile(r"Connection (?:closed|reset) by peer|Broken pipe")  # gloo's words

JsonFlag = Annotated[
    bool, typer.Option("--json", help="One JSON object on standard output, nothing else there.")
]
RecipeArgument = Annotated[str, typer.Argument(help="A shipped recipe's name or the path of a .yaml file.")]
OverridesArgument = Annotated[
    list[str] | None, typer.Argument(help="key.sub=value, e.g. train.learning_rate=2e-4")
]


def emit_json(value: Any) -> None:
    """Prints one JSON object on standard output."""
    print_line(json.dumps(value, ensure_ascii=False, allow_nan=False))


def emit_table(title: str, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Prints a table for people. What does not fit a terminal goes on in the next line; in a pipe or a file
    each row is one line of its full width. Cells are text, never markup."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title), title_justify="left")
    for name in header:
        table.add_column(Text(name), overflow="fold")
    for row in rows:
        table.add_row(*[Text(str(cell)) for cell in row])
    Console(width=None if sys.stdout.isatty() else PIPE_WIDTH).print(table)


def printable(text: str) -> str:
    """Foreign text for a terminal: what would move its cursor or turn its direction is written as its number.

    Line breaks, tabs and joiners (ZWNJ, ZWJ) stay.
    """
    kept = "\n\t\u200c\u200d"
    return "".join(one if one in kept or one.isprintable() else _escape(one) for one in text)


def _escape(one: str) -> str:
    return f"\\x{ord(one):02x}" if ord(one) < 256 else f"\\u{ord(one):04x}"


def invoke(
    app: typer.Typer, arguments: Sequence[str], prog: str, flag_hint: Callable[[str], str] = lambda flag: ""
) -> Any:
    """What the command of a typer app returns for these arguments; an int where it only showed its help.

    flag_hint: of a flag that no command has: what to write instead, or "".

    Raises:
        UsageError: a flag is unknown, or its value is not usable.
    """
    command = name_wanted(typer.main.get_command(app))
    try:
        return command.main(list(arguments), prog_name=prog, standalone_mode=False)
    except typer.Abort:
        raise KeyboardInterrupt from None
    except Exception as error:
        # What typer raises for wrong flags; its class lies in a private module.
        if (text := getattr(error, "format_message", None)) is None:
            raise
        if not text():  # a command that only shows its help
            return 0
        context = getattr(error, "ctx", None)
        where = prog if context is None else context.command_path
        hint = flag_hint(getattr(error, "option_name", ""))
        advice = f"{hint}; " if hint else ""
        said = text().rstrip(".").replace("Value error, ", "")  # pydantic's, which typer checks values with
        raise UsageError(f"{said}; {advice}`{where} --help` lists the flags") from None


def run_guarded(action: Callable[[], object], *, silent: bool = False, rank: int = 0) -> int:
    """Runs an entry point; an error of ours becomes one line on standard error and its exit code.

    silent: for mistakes that rank 0 sees and says as well. rank: named in the line when it is not 0.
    """
    try:
        action()
    except PersianMindError as error:
        if rank and error.by_all_ranks:
            # A launcher ends every rank with the first that exits: rank 0 still has its meter to close.
            time.sleep(RANK_0_SPEAKS_S)
        elif not silent:
            where = f"rank {rank}: " if rank else ""
            line = " ".join(str(error).split())
            print_line(f"persianmind: error: {where}{line}", sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        traceback.print_exc()
        if LOST_PEER.search(str(error)):
            time.sleep(RANK_0_SPEAKS_S)  # the rank that ended first has the reason, and the exit code
        return 1
    return 0
