"""The cluster command, `cluster/submit.py`: submit a run, or drive one from here; status, logs, stop."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from persianmind.cluster.arguments import (
    JobArguments,
    SubmitArguments,
    check_shipped,
    job_arguments,
    shared_output,
)
from persianmind.cluster.package import RAYS_LIMIT_MIB
from persianmind.cluster.security import UNENCRYPTED_FLAG
from persianmind.cluster.sizing import Scale, resolve_scale
from persianmind.common.console import JsonFlag, invoke, run_guarded
from persianmind.common.errors import ClusterError
from persianmind.common.log import configure_logging, print_text
from persianmind.common.paths import PROJECT_ROOT
from persianmind.engine.registry import backend
from persianmind.recipe.hints import flag_hint
from persianmind.train.arguments import ENGINE_CONFIG, RecipeOption, TrainArguments
from persianmind.train.options import (
    AcceptDataOption,
    DeepSpeedOption,
    OutputOption,
    OverridesArgument,
    ResumeFromOption,
    ResumeOption,
)

if TYPE_CHECKING:
    from persianmind.train.run import RunRequest

logger = logging.getLogger(__name__)
IN_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # Ray sets it for the command of a job
COMMANDS = ("status", "logs", "stop")
DASHBOARD = "http://127.0.0.1:8265"
PROG = "cluster/submit.py"


submit_app = typer.Typer(add_completion=False, rich_markup_mode=None)
job_app = typer.Typer(add_completion=False, rich_markup_mode=None)

IdArgument = Annotated[str, typer.Argument(help="A run's id, or one submission's.")]
AddressOption = Annotated[str, typer.Option(help="The dashboard.", envvar="RAY_API_SERVER_ADDRESS")]
UnencryptedOption = Annotated[
    bool,
    typer.Option(
        UNENCRYPTED_FLAG, help="Over http beyond loopback too: who listens there can then run code."
    ),
]


@submit_app.command(
    help="Train on Ray, on this machine or on a cluster. Commands: status, logs, stop.",
    epilog="Exit codes are those of launcher/train.py; 7: the cluster lost the job, "
    "128 + N: signal N killed its driver.",
)
def submit(
    local: Annotated[bool, typer.Option("--local", help="Start a Ray of its own on this machine.")] = False,
    address: Annotated[
        str | None, typer.Option(help="Submit to this dashboard, http://HOST:8265; not given inside a job.")
    ] = None,
    nodes: Annotated[int | None, typer.Option(help="Machines with GPUs; default 1.")] = None,
    gpus_per_node: Annotated[int | None, typer.Option(help="One worker per GPU.")] = None,
    gpu_workers: Annotated[
        int | None, typer.Option(help="Workers with a GPU, in all: where machines have different numbers.")
    ] = None,
    cpu_workers: Annotated[int | None, typer.Option(help="Workers without a GPU, in all.")] = None,
    min_workers: Annotated[
        int | None, typer.Option(help="Go on with as few when machines are lost; default all.")
    ] = None,
    max_failures: Annotated[int, typer.Option(help="Restarts after lost workers.")] = 3,
    wait_s: Annotated[float, typer.Option(help="How long machines may take to come.")] = 300,
    resize_s: Annotated[float, typer.Option(help="How often new machines are looked for.")] = 300,
    job_id: Annotated[
        str | None, typer.Option(help="Default: the recipe's name and a hash of --output.")
    ] = None,
    max_upload_mib: Annotated[float, typer.Option(help="Limit of what is shipped.")] = RAYS_LIMIT_MIB,
    follow: Annotated[
        bool, typer.Option("--follow", help="Print the job's output to its end (the default).")
    ] = False,
    detach: Annotated[bool, typer.Option("--detach", help="Return once the job is submitted.")] = False,
    send_token_unencrypted: UnencryptedOption = False,
    recipe: RecipeOption = "demo",
    deepspeed: DeepSpeedOption = ENGINE_CONFIG,
    output: OutputOption = None,
    resume: ResumeOption = "auto",
    resume_from: ResumeFromOption = None,
    accept_changed_data: AcceptDataOption = False,
    overrides: OverridesArgument = None,
) -> SubmitArguments:
    """Collects the flags."""
    if local and address:
        raise ClusterError("--local and --address exclude each other; give one of them")
    if follow and detach:
        raise ClusterError("--follow and --detach exclude each other; give one of them")
    return SubmitArguments(
        TrainArguments(
            recipe,
            deepspeed,
            output,
            resume,
            resume_from,
            tuple(overrides or ()),
            accept_changed_data=accept_changed_data,
        ),
        local,
        address,
        nodes,
        gpus_per_node,
        gpu_workers,
        cpu_workers,
        min_workers,
        max_failures,
        wait_s,
        resize_s,
        job_id,
        max_upload_mib,
        detach,
        send_token_unencrypted,
    )


@job_app.command()
def status(
    id: IdArgument,
    address: AddressOption = DASHBOARD,
    as_json: JsonFlag = False,
    send_token_unencrypted: UnencryptedOption = False,
) -> JobArguments:
    """State, times and exit code of a run's newest submission."""
    return JobArguments("status", id, address, send_token_unencrypted, as_json=as_json)


@job_app.command()
def logs(
    id: IdArgument,
    address: AddressOption = DASHBOARD,
    follow: Annotated[bool, typer.Option("--follow", help="Until the job ends.")] = False,
    send_token_unencrypted: UnencryptedOption = False,
) -> JobArguments:
    """What a job has printed."""
    return JobArguments("logs", id, address, send_token_unencrypted, follow=follow)


@job_app.command()
def stop(
    id: IdArgument, address: AddressOption = DASHBOARD, send_token_unencrypted: UnencryptedOption = False
) -> JobArguments:
    """Ask a run to save and end; returns once it has."""
    return JobArguments("stop", id, address, send_token_unencrypted)


def run(arguments: Sequence[str], prog: str = PROG) -> int:
    """Submits, or runs the driver in this process; returns the exit code. prog: what the user typed.

    Raises:
        PersianMindError: one line with the fix.
    """
    app = job_app if arguments and arguments[0] in COMMANDS else submit_app
    given = invoke(app, arguments, prog, flag_hint)
    if isinstance(given, JobArguments):
        return run_job_command(given)
    if not isinstance(given, SubmitArguments):
        return 0
    # The precision depends on the machines that train; the head of a cluster may have no GPU.
    request = given.train.unresolved_request()
    scale = resolve_scale(
        request.recipe,
        nodes=given.nodes,
        gpus_per_node=given.gpus_per_node,
        gpu_workers=given.gpu_workers,
        cpu_workers=given.cpu_workers,
        min_workers=given.min_workers,
    )
    if given.address:
        return submit_job(given, request)
    if not given.local:
        if IN_JOB not in os.environ and "RAY_ADDRESS" not in os.environ:
            raise ClusterError(
                "where? give --address http://HEAD:8265 to submit, --local to use this machine, or start it "
                "as a job: ray job submit --working-dir . -- python cluster/submit.py ..."
            )
        request = shared_output(request, explicit=given.train.output is not None)
    run_here(given, request, scale)
    return 0


def run_here(given: SubmitArguments, request: RunRequest, scale: Scale) -> None:
    """The driver in this process."""
    from persianmind.cluster.driver import DriverOptions, run_driver

    run_driver(request, DriverOptions(scale, given.local, given.max_failures, given.wait_s, given.resize_s))


def submit_job(given: SubmitArguments, request: RunRequest) -> int:
    """Everything that can be checked from here is; then the job starts, or a running one is joined."""
    from persianmind.cluster.jobs import Jobs, job_id

    assert given.address is not None
    if given.train.output is not None:
        shared_output(request, explicit=True)
    if not (PROJECT_ROOT / PROG).is_file():
        raise ClusterError(
            "a job gets a copy of the project, and here is only an installed package: submit from a "
            "checkout, or start it on the head with --local"
        )
    check_shipped(given.train.recipe, PROJECT_ROOT)
    run_id = given.job_id or job_id(request.recipe.name, request.folder.path)
    jobs = Jobs(given.address, unencrypted_allowed=given.send_token_unencrypted)
    command = ["python", "cluster/submit.py", *job_arguments(given)]
    submission, started = jobs.submit(run_id, PROJECT_ROOT, command, given.max_upload_mib)
    logger.info(f"{'submitted' if started else 'joined the running'} job {submission}")
    if given.detach:
        logger.info(f"python cluster/submit.py logs {run_id} --follow --address {jobs.address}")
        return 0
    return jobs.follow(submission)


def run_job_command(given: JobArguments) -> int:
    """status, logs, stop."""
    from persianmind.cluster.jobs import Jobs, show

    jobs = Jobs(given.address, unencrypted_allowed=given.send_token_unencrypted)
    if given.command == "status":
        show(jobs.status(given.id), as_json=given.as_json)
        return 0
    if given.command == "stop":
        submission = jobs.stop(given.id)
        jobs.wait(submission)
        logger.info(f"{submission} has ended: {jobs.status(submission)['status']}")
        return 0
    submission = str(jobs.find(given.id).submission_id)
    if given.follow:
        return jobs.follow(submission)
    print_text(jobs.output(submission), end="")
    return 0


def main(arguments: Sequence[str] | None = None, prog: str = PROG) -> None:
    """Entry; exits with the run's own code. arguments: those of the command line unless given."""
    backend().prepare_environment()
    configure_logging()
    codes: list[int] = []
    code = (
        run_guarded(lambda: codes.append(run(sys.argv[1:] if arguments is None else arguments, prog)))
        or codes[0]
    )
    sys.stdout.flush()
    os._exit(code)
