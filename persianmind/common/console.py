"""What commands share: one JSON object on standard output, or a table; one line for every error."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Annotated, Any

import typer

from persianmind.common.command_help import name_wanted
from persianmind.common.disk import disk_error
from persianmind.common.errors import PersianMindError, UsageError
from persianmind.common.log import console, one_line, print_line, print_traceback

RANK_0_SPEAKS_S = 5.0
PIPE_WIDTH = 10_000  # more than any row has: a table is as wide as its cells
# gloo's words, and those of torch's store where groups are opened.
LOST_PEER = re.compile(r"Connection (?:closed|reset) by peer|Broken pipe|Connection was likely closed")

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


def emit_table(
    title: str,
    header: Sequence[str],
    rows: Sequence[Sequence[object]],
    styles: Mapping[str, str] | None = None,
) -> None:
    """Prints a table for people. What does not fit a terminal goes on in the next line; in a pipe or a file
    each row is one line of its full width. Cells are text, never markup.

    styles: by word, how rich draws it in the first column.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    def cell(value: object, style: str = "") -> Text:
        return Text(one_line(str(value)), style)

    table = Table(title=cell(title), title_justify="left")
    for name in header:
        table.add_column(cell(name), overflow="fold")
    for first, *others in rows:
        table.add_row(cell(first, (styles or {}).get(str(first), "")), *map(cell, others))
    Console(width=None if sys.stdout.isatty() else PIPE_WIDTH).print(table)


class LiveLine:
    """A line of text and a bar that is drawn anew in its place; for a terminal alone."""

    def __init__(self, total: int) -> None:
        """Appears at once. total: what the bar is full at."""
        from rich.progress import BarColumn, Progress, TextColumn

        text = TextColumn("{task.description}", markup=False)
        self._progress = Progress(text, BarColumn(bar_width=20), console=console())
        self._task = self._progress.add_task("starting", total=total)
        self._progress.start()

    def show(self, text: str, done: int, total: int) -> None:
        """Replaces text and bar."""
        self._progress.update(self._task, completed=done, total=total, description=one_line(text))

    def close(self) -> None:
        """Leaves it as it stands."""
        self._progress.stop()


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
    """Runs an entry point; an error of ours, or of a disk, becomes one line on standard error and its exit
    code.

    silent: for mistakes that rank 0 sees and says as well. rank: named in the line when it is not 0.
    """
    try:
        action()
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        named = error if isinstance(error, PersianMindError) else disk_error(error)
        if named is None:
            return _report_unnamed(error, rank)
        if rank and named.by_all_ranks:
            # A launcher ends every rank with the first that exits: rank 0 still has its meter to close.
            time.sleep(RANK_0_SPEAKS_S)
        elif not silent:
            _print_error(str(named), rank)
        return named.exit_code
    return 0


def _report_unnamed(error: Exception, rank: int) -> int:
    """A lost peer is one line; anything else is a bug of ours and shows its traceback."""
    if isinstance(error, RuntimeError) and LOST_PEER.search(str(error)):
        time.sleep(RANK_0_SPEAKS_S)  # the rank that ended first has the reason, and the exit code
        _print_error(f"another rank ended first and has the reason ({error})", rank, kind="")
    else:
        print_traceback()
    return 1


def _print_error(text: str, rank: int, kind: str = "error: ") -> None:
    where = f"rank {rank}: " if rank else ""
    with suppress(OSError):  # standard error may lie on the disk that is full; the exit code remains
        print_line(f"persianmind: {kind}{where}{' '.join(text.split())}", sys.stderr)
