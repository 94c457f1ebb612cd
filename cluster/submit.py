"""Training on Ray: this machine, or a cluster.

    python cluster/submit.py --local --recipe tiny --cpu-workers 2
    python cluster/submit.py --address http://127.0.0.1:8265 --recipe persianmind-7b --nodes 2 --gpus-per-node 4 \\
        --output /shared/runs/persianmind-7b
    ray job submit --working-dir . -- python cluster/submit.py --recipe persianmind-7b --nodes 2 ...
    python cluster/submit.py status|logs|stop ID --address http://127.0.0.1:8265

The same command again resumes, or says that all is done. docs/cluster.md has everything from bare machines on.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:  # started as a script, only cluster/ itself is on the path
    sys.path.insert(0, str(ROOT))

from cluster.sizing import resolve_scale  # noqa: E402
from launcher.train import read_request  # noqa: E402
from persianmind.console import run_guarded  # noqa: E402
from persianmind.errors import ClusterError  # noqa: E402
from persianmind.train.ranks import prepare_environment  # noqa: E402

RUNS = "PERSIANMIND_RUNS"
IN_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # Ray sets it for the command of a job


def build_parser() -> argparse.ArgumentParser:
    """Flags of the cluster; what it does not know goes to launcher/train.py's parser."""
    parser = argparse.ArgumentParser(
        prog="cluster/submit.py",
        allow_abbrev=False,
        description="Train on Ray, on this machine or on a cluster.",
        epilog="Flags and overrides of launcher/train.py work here as well: --recipe, --output, --deepspeed, "
        "--resume, key.sub=value.",
    )
    parser.add_argument("--local", action="store_true", help="start a Ray of its own on this machine")
    parser.add_argument("--nodes", type=int, help="machines with GPUs; default 1")
    parser.add_argument("--gpus-per-node", type=int, help="one worker a GPU")
    parser.add_argument("--cpu-workers", type=int, help="workers without a GPU, in all")
    parser.add_argument("--min-workers", type=int, help="go on with as few when machines are lost; default all")
    parser.add_argument("--max-failures", type=int, default=3, help="restarts after lost workers; default 3")
    parser.add_argument("--wait-s", type=float, default=300, help="how long machines may take to come; 300")
    parser.add_argument(
        "--resize-s", type=float, default=300, help="how often to take up machines that came (back); default 300"
    )
    return parser


def run_here(arguments: Sequence[str]) -> None:
    """The driver in this process.

    Raises:
        PersianMindError: one line with the fix.
    """
    from cluster.driver import DriverOptions, run_driver

    options, rest = build_parser().parse_known_args(arguments)
    request = read_request([*rest, *default_output(rest, local=options.local)])
    scale = resolve_scale(
        request.recipe,
        nodes=options.nodes,
        gpus_per_node=options.gpus_per_node,
        cpu_workers=options.cpu_workers,
        min_workers=options.min_workers,
    )
    driver = DriverOptions(scale, options.local, options.max_failures, options.wait_s, options.resize_s)
    run_driver(request, driver)


def default_output(rest: Sequence[str], *, local: bool) -> list[str]:
    """Flags that put the run folder where every machine sees it; a job's own folder is a copy Ray deletes.

    Raises:
        ClusterError: neither --output nor $PERSIANMIND_RUNS says where, or the path is relative.
    """
    if local:
        return []
    given = next((Path(value) for flag, value in zip(rest, rest[1:], strict=False) if flag == "--output"), None)
    if given is None and not os.environ.get(RUNS):
        raise ClusterError(
            f"give --output /shared/folder/NAME, a path that every node sees, or set {RUNS} on the head"
        )
    if given is not None and not given.is_absolute():
        raise ClusterError(f"--output {given}: on a cluster give an absolute path that every node sees")
    return []


def main() -> None:
    """Entry; exits with the run's own code."""
    prepare_environment()
    code = run_guarded(lambda: run_here(sys.argv[1:]))
    sys.stdout.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
