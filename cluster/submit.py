"""Training on Ray: this machine, or a cluster.

    python cluster/submit.py --local --recipe tiny --cpu-workers 2
    python cluster/submit.py --address http://127.0.0.1:8265 --recipe persianmind-7b \\
        --nodes 2 --gpus-per-node 4 --output /shared/runs/persianmind-7b
    ray job submit --working-dir . -- python cluster/submit.py --recipe persianmind-7b --nodes 2 ...
    python cluster/submit.py status|logs|stop ID --address http://127.0.0.1:8265

The same command again resumes, or says that all is done. docs/cluster.md begins at bare machines.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:  # started as a script, only cluster/ itself is on the path
    sys.path.insert(0, str(ROOT))

from cluster.package import RAYS_LIMIT_MIB  # noqa: E402
from cluster.sizing import Scale, resolve_scale  # noqa: E402
from launcher.train import build_parser as launcher_parser  # noqa: E402
from launcher.train import read_request  # noqa: E402
from persianmind.console import run_guarded  # noqa: E402
from persianmind.errors import ClusterError  # noqa: E402
from persianmind.recipe_file import known_recipes  # noqa: E402
from persianmind.train.ranks import prepare_environment  # noqa: E402
from persianmind.train.run import RunRequest  # noqa: E402

RUNS = "PERSIANMIND_RUNS"
IN_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # Ray sets it for the command of a job
VERBS = ("status", "logs", "stop")


def build_parser() -> argparse.ArgumentParser:
    """Flags of the cluster; what it does not know goes to launcher/train.py's parser."""
    parser = argparse.ArgumentParser(
        prog="cluster/submit.py",
        allow_abbrev=False,
        description="Train on Ray, on this machine or on a cluster. Verbs: status, logs, stop.",
        epilog="Flags and overrides of launcher/train.py work here as well: --recipe, --output, --deepspeed, "
        "--resume, key.sub=value. Exit codes are its own too; 7: the cluster lost the job.",
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--local", action="store_true", help="start a Ray of its own on this machine")
    where.add_argument("--address", help="submit to this dashboard, http://HOST:8265; not given inside a job")
    parser.add_argument("--nodes", type=int, help="machines with GPUs; default 1")
    parser.add_argument("--gpus-per-node", type=int, help="one worker a GPU")
    parser.add_argument("--cpu-workers", type=int, help="workers without a GPU, in all")
    parser.add_argument(
        "--min-workers", type=int, help="go on with as few when machines are lost; default all"
    )
    parser.add_argument("--max-failures", type=int, default=3, help="restarts after lost workers; default 3")
    parser.add_argument("--wait-s", type=float, default=300, help="how long machines may take to come; 300")
    parser.add_argument(
        "--resize-s", type=float, default=300, help="how often new machines are looked for; 300"
    )
    parser.add_argument("--job-id", help="default: the recipe's name and a hash of --output")
    parser.add_argument(
        "--max-upload-mib", type=float, default=RAYS_LIMIT_MIB, help="limit of what is shipped"
    )
    follow = parser.add_mutually_exclusive_group()
    follow.add_argument(
        "--follow", action="store_true", help="print the job's output to its end (the default)"
    )
    follow.add_argument("--detach", action="store_true", help="return once the job is submitted")
    return parser


def build_verb_parser() -> argparse.ArgumentParser:
    """`status|logs|stop ID --address URL`."""
    parser = argparse.ArgumentParser(prog="cluster/submit.py")
    parser.add_argument("verb", choices=VERBS)
    parser.add_argument("id", help="a run's id, or one submission's")
    parser.add_argument(
        "--address", default=os.environ.get("RAY_API_SERVER_ADDRESS", "http://127.0.0.1:8265")
    )
    parser.add_argument("--follow", action="store_true", help="logs: until the job ends")
    parser.add_argument("--json", action="store_true", help="status: one JSON object")
    return parser


def run(arguments: Sequence[str]) -> int:
    """Submits, or runs the driver in this process; returns the exit code.

    Raises:
        PersianMindError: one line with the fix.
    """
    if arguments and arguments[0] in VERBS:
        return run_verb(arguments)
    options, rest = build_parser().parse_known_args(arguments)
    request = read_request(rest)
    scale = resolve_scale(
        request.recipe,
        nodes=options.nodes,
        gpus_per_node=options.gpus_per_node,
        cpu_workers=options.cpu_workers,
        min_workers=options.min_workers,
    )
    if options.address:
        return submit(
            options,
            request,
            arguments,
            recipe=launcher_parser().parse_args(rest).recipe,
            explicit_output=has_output(rest),
        )
    if not options.local:
        if IN_JOB not in os.environ and "RAY_ADDRESS" not in os.environ:
            raise ClusterError(
                "where? give --address http://HEAD:8265 to submit, --local to use this machine, or start it "
                "as a job: ray job submit --working-dir . -- python cluster/submit.py ..."
            )
        request = shared_output(request, explicit=has_output(rest))
    run_here(options, request, scale)
    return 0


def run_here(options: argparse.Namespace, request: RunRequest, scale: Scale) -> None:
    """The driver in this process."""
    from cluster.driver import DriverOptions, run_driver

    driver = DriverOptions(scale, options.local, options.max_failures, options.wait_s, options.resize_s)
    run_driver(request, driver)


def submit(
    options: argparse.Namespace,
    request: RunRequest,
    arguments: Sequence[str],
    *,
    recipe: str,
    explicit_output: bool,
) -> int:
    """Everything that can be checked from here is; then the job starts, or a running one is joined."""
    from cluster.jobs import Jobs, job_id

    if explicit_output:
        shared_output(request, explicit=True)
    check_shipped(recipe, ROOT)
    run_id = options.job_id or job_id(request.recipe.name, request.run)
    jobs = Jobs(options.address)
    command = ["python", "cluster/submit.py", *for_the_job(arguments)]
    submission, started = jobs.submit(run_id, ROOT, command, options.max_upload_mib)
    print(f"{'submitted' if started else 'joined the running'} job {submission}", flush=True)
    if options.detach:
        print(f"python cluster/submit.py logs {run_id} --follow --address {options.address}", flush=True)
        return 0
    return jobs.follow(submission)


def run_verb(arguments: Sequence[str]) -> int:
    """status, logs, stop."""
    from cluster.jobs import Jobs, show

    options = build_verb_parser().parse_args(arguments)
    jobs = Jobs(options.address)
    if options.verb == "status":
        show(jobs.status(options.id), as_json=options.json)
        return 0
    if options.verb == "stop":
        submission = jobs.stop(options.id)
        jobs.wait(submission)
        print(f"{submission} has ended: {jobs.status(submission)['status']}", flush=True)
        return 0
    submission = str(jobs.find(options.id).submission_id)
    if options.follow:
        return jobs.follow(submission)
    print(jobs.client.get_job_logs(submission), end="")
    return 0


def for_the_job(arguments: Sequence[str]) -> list[str]:
    """The same flags without those that say how to submit."""
    kept, skip = [], False
    for argument in arguments:
        name = argument.partition("=")[0]
        if skip or name in ("--address", "--job-id", "--max-upload-mib", "--follow", "--detach"):
            skip = not skip and "=" not in argument and name not in ("--follow", "--detach")
            continue
        kept.append(argument)
    return kept


def shared_output(request: RunRequest, *, explicit: bool) -> RunRequest:
    """The run folder where every machine sees it; a job's own folder is a copy that Ray deletes.

    Raises:
        ClusterError: neither --output nor $PERSIANMIND_RUNS says where, or the path is relative.
    """
    if explicit and not request.run.is_absolute():
        raise ClusterError(f"--output {request.run}: on a cluster give an absolute path that every node sees")
    if explicit:
        return request
    if not os.environ.get(RUNS):
        raise ClusterError(
            f"give --output /shared/folder/NAME, a path that every node sees, or set {RUNS} on the head"
        )
    return replace(request, run=Path(os.environ[RUNS]) / request.recipe.name)


def has_output(rest: Sequence[str]) -> bool:
    """Whether --output is among the launcher's flags, in either spelling."""
    return any(flag == "--output" or flag.startswith("--output=") for flag in rest)


def check_shipped(recipe: str, root: Path) -> None:
    """A recipe given as a path must lie in the folder that is shipped, and be named from there.

    Raises:
        ClusterError: it does not; the job would not find it.
    """
    if recipe in known_recipes():
        return
    if Path(recipe).is_absolute() or not (root / recipe).is_file():
        raise ClusterError(
            f"--recipe {recipe} is not shipped; copy it into {root}/launcher/recipes and name it"
        )


def main() -> None:
    """Entry; exits with the run's own code."""
    prepare_environment()
    codes: list[int] = []
    code = run_guarded(lambda: codes.append(run(sys.argv[1:]))) or codes[0]
    sys.stdout.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
