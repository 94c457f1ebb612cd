"""The training entry:  deepspeed launcher/train.py --deepspeed ds_configs/zero2.json

Without other flags it runs the embedded demo recipe. The same command again resumes, or says that all is
done. `python launcher/train.py --deepspeed ...` runs it in one process; the Ray driver calls `run_request`.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:  # `deepspeed launcher/train.py` puts launcher/ on the path, not the project
    sys.path.insert(0, str(ROOT))

from persianmind.console import run_guarded  # noqa: E402
from persianmind.plan.precision import resolve_precision  # noqa: E402
from persianmind.plan.preflight import check_resume_from, preflight  # noqa: E402
from persianmind.recipe_file import known_recipes, load_recipe  # noqa: E402
from persianmind.train.ranks import Ranks, prepare_environment, ranks_from_environment  # noqa: E402
from persianmind.train.run import RunRequest, is_complete, run_training  # noqa: E402

DEEPSPEED_JSON = ROOT / "ds_configs" / "zero2.json"


def build_parser() -> argparse.ArgumentParser:
    """The flags; `--local_rank` is the DeepSpeed launcher's own."""
    parser = argparse.ArgumentParser(
        prog="launcher/train.py",
        description="Adapt an open LLM to your language: vocabulary, LoRA, DeepSpeed ZeRO-2, energy account.",
        epilog="The same command again resumes. Exit codes: 0 done, 2 a mistake to fix, 3 self-test failed, "
        "4 loss not finite, 5 checkpoints unusable, 6 energy budget used up, 8 a rank hangs, "
        "75 stopped by a signal.",
    )
    parser.add_argument("--deepspeed", type=Path, default=DEEPSPEED_JSON, help="DeepSpeed's JSON config")
    recipes = ", ".join(known_recipes())
    parser.add_argument("--recipe", default="demo", help=f"a name ({recipes}) or a .yaml file; default demo")
    parser.add_argument("--output", type=Path, help="the run folder; default runs/<recipe name>")
    parser.add_argument("--resume", choices=("auto", "must", "never"), default="auto")
    parser.add_argument(
        "--resume-from",
        type=Path,
        metavar="PATH",
        help="begin with the trained weights of another run (its folder, or one of its checkpoints)",
    )
    parser.add_argument("--local_rank", type=int, default=None, help=argparse.SUPPRESS)
    parser.add_argument("overrides", nargs="*", metavar="key.sub=value", help="recipe overrides")
    return parser


def read_request(arguments: Sequence[str]) -> RunRequest:
    """Flags and recipe -> what to run; writes nothing, imports neither torch nor DeepSpeed."""
    options = build_parser().parse_args(arguments)
    recipe = load_recipe(options.recipe, options.overrides)
    run = options.output or Path("runs") / recipe.name
    return RunRequest(
        resolve_precision(recipe, run), options.deepspeed, run, options.resume, options.resume_from
    )


def run_request(request: RunRequest, ranks: Ranks) -> None:
    """Checks everything (rank 0, for all), then trains, or says that all is done.

    Raises:
        PersianMindError: one line with the fix; a mistake is found before anything is written.
    """
    if is_finished(request):
        if ranks.rank == 0:
            show_finished(request.run)
        return
    if ranks.rank == 0:
        preflight(request.recipe, request.deepspeed_json, request.run, ranks.world_size)
        check_resume_from(request.resume_from)
    run_training(request, ranks)


def is_finished(request: RunRequest) -> bool:
    """Whether there is nothing left to do."""
    return request.resume != "never" and is_complete(request.run, request.recipe)


def show_finished(run: Path) -> None:
    """What a finished run came to."""
    from persianmind.train.runlog import read_results
    from persianmind.train.summary import summary_lines

    print(f"{run}: all done; nothing to do", flush=True)
    for line in summary_lines(read_results(run)):
        print(line, flush=True)
    print(f"report: {run / 'report.html'}", flush=True)


def main() -> None:
    """Entry of every rank. A mistake that every rank sees is said once, by rank 0."""
    prepare_environment()
    ranks = ranks_from_environment()
    requests: list[RunRequest] = []
    code = run_guarded(lambda: requests.append(read_request(sys.argv[1:])), silent=ranks.rank != 0)
    if code == 0:
        code = run_guarded(lambda: run_request(requests[0], ranks), rank=ranks.rank)
    sys.stdout.flush()
    # Threads of gloo and of the shared-memory kernel can hang interpreter shutdown; all work is on disk.
    os._exit(code)


if __name__ == "__main__":
    main()
