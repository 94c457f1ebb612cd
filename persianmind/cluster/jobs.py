"""Ray Jobs over HTTP: submit under an id that can be given again, follow, ask, stop."""

from __future__ import annotations

import asyncio
import logging
import re
import shlex
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from persianmind.cluster.client import connect, short_text
from persianmind.cluster.package import MIB, stage
from persianmind.common.checksum import hash_text
from persianmind.common.console import emit_json
from persianmind.common.errors import ClusterError, JobLostError, nearest
from persianmind.common.log import print_line, print_text
from persianmind.common.poll import wait_until

# A job that is asked to stop saves first; Ray's default of 3 s would kill it before.
STOP_WAIT_S = 120
POLL_S = 1.0
logger = logging.getLogger(__name__)
RECONNECT_S = 60.0
RUN_KEY, COMMAND_KEY = "persianmind_run", "persianmind_command"
ENDED = {"SUCCEEDED", "FAILED", "STOPPED"}
EXIT_STOPPED, SIGNALLED = 75, 128
SUPERVISOR_LOST = ("JOB_SUPERVISOR_ACTOR_DIED", "JOB_SUPERVISOR_ACTOR_UNKNOWN_FAILURE")
OBITUARY = "Job supervisor actor died:"
NOT_READY = re.compile(r"status code 5\d\d")
T = TypeVar("T")
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class Jobs:
    """The jobs of one cluster.

    A run keeps its id; Ray wants a new one for each submission, so later ones are called ID.2, ID.3.
    """

    def __init__(self, address: str, *, unencrypted_allowed: bool = False) -> None:
        """Connects; for the arguments and what is raised see `connect`."""
        self.client = connect(address, unencrypted_allowed=unencrypted_allowed)
        self.address = self.client.get_address()

    def submit(self, run: str, root: Path, command: Sequence[str], limit_mib: float) -> tuple[str, bool]:
        """Ships `root` and starts `command` in it. Returns (submission id, whether it was started now).

        A job of this run that is still going is joined instead, if it was started by the same command.

        Raises:
            ClusterError: another command is running under this id, or the folder is too large.
        """
        line = shlex.join(command)
        earlier = self.of_run(run)
        if earlier and status_of(earlier[-1]) not in ENDED:
            if (running := earlier[-1].metadata.get(COMMAND_KEY)) != line:
                raise ClusterError(
                    f"{earlier[-1].submission_id} is running with other arguments ({running}); stop it "
                    "first, or give another --job-id"
                )
            return str(earlier[-1].submission_id), False
        name = run if not earlier else f"{run}.{len(earlier) + 1}"
        with tempfile.TemporaryDirectory(prefix="persianmind-ship-") as folder:
            package = stage(root, Path(folder), limit_mib)
            logger.info(f"ships {package.files} files, {package.size_bytes / MIB:.2f} MiB, from {root}")
            environment = {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_WAIT_S), "PYTHONUNBUFFERED": "1"}
            submission = {
                "entrypoint": line,
                "submission_id": name,
                "runtime_env": {"working_dir": folder, "env_vars": environment},
                "metadata": {RUN_KEY: run, COMMAND_KEY: line},
            }
            self._patiently(lambda: self._start(submission))
        return name, True

    def _start(self, submission: dict[str, Any]) -> None:
        try:
            self.client.submit_job(**submission)
        except RuntimeError:  # also where the answer to an earlier request was lost: it is there then
            known = {job.submission_id for job in self.client.list_jobs()}
            if submission["submission_id"] not in known:
                raise

    def _patiently(self, call: Callable[[], T]) -> T:
        """What a call of the client gives, once the head is ready (its agent comes seconds after it).

        Raises:
            ClusterError: it refuses, or is not ready within RECONNECT_S.
        """

        def refused(why: str) -> ClusterError | None:
            return None if NOT_READY.search(why) else ClusterError(f"{self.address} refuses: {why}")

        def silent(why: str) -> ClusterError:
            return ClusterError(
                f"{self.address} is not ready after {RECONNECT_S:.0f} s: {why}; look at `ray status` on the "
                "head, then give the same command again"
            )

        return self._ask(call, refused, silent)

    def _ask(
        self,
        call: Callable[[], T],
        refused: Callable[[str], ClusterError | None],
        silent: Callable[[str], ClusterError],
    ) -> T:
        """Calls for RECONNECT_S until there is an answer.

        Args:
            refused: what to raise at once for what Ray's client says, None where another try may help.
            silent: what to raise in the end.
        """
        why = ""

        def ask() -> tuple[T] | None:
            nonlocal why
            try:
                return (call(),)
            except OSError:  # requests' errors are OSErrors
                why = f"{self.address} no longer answers"
            except RuntimeError as error:
                why = short_text(error)
                if (final := refused(why)) is not None:
                    raise final from None
            return None

        if (found := wait_until(ask, timeout_s=RECONNECT_S, interval_s=POLL_S)) is None:
            raise silent(why)
        return found[0]

    def of_run(self, run: str) -> list[Any]:
        """Submissions of one run, oldest first."""
        jobs = [job for job in self._jobs() if (job.metadata or {}).get(RUN_KEY) == run]
        return sorted(jobs, key=lambda job: job.start_time or 0)

    def find(self, name: str) -> Any:
        """The newest submission of a run, or the one submission of that id.

        Raises:
            ClusterError: the cluster does not know it; also after its head was started anew.
        """
        jobs = self._jobs()
        exact = [job for job in jobs if job.submission_id == name and name != self._run_of(job)]
        found = self.of_run(name) or exact
        if not found:
            known = sorted({self._run_of(job) or str(job.submission_id) for job in jobs})
            listed = f"it knows {', '.join(known)}" if known else "it knows none: was its head started anew?"
            raise ClusterError(
                f"no job {name!r} on {self.address}{nearest(name, known)}; {listed}; submit the same command "
                "again to resume"
            )
        return found[-1]

    def _jobs(self) -> list[Any]:
        return list(self._patiently(self.client.list_jobs))

    @staticmethod
    def _run_of(job: Any) -> str | None:
        return (job.metadata or {}).get(RUN_KEY)

    def status(self, name: str) -> dict[str, Any]:
        """State, times in seconds since the epoch, and exit code of a run's newest submission."""
        job = self.find(name)
        run = self._run_of(job)
        return {
            "run": run or name,
            "submission_id": job.submission_id,
            "submissions": len(self.of_run(run)) if run else 1,
            "status": status_of(job),
            "started_s": None if job.start_time is None else job.start_time / 1000,
            "ended_s": None if not job.end_time else job.end_time / 1000,
            "exit_code": job.driver_exit_code,
        }

    def stop(self, name: str) -> str:
        """Asks a run to save and end; returns its submission id."""
        job = self.find(name)
        if status_of(job) not in ENDED:
            self._patiently(lambda: self.client.stop_job(job.submission_id))
        return str(job.submission_id)

    def wait(self, submission: str) -> int:
        """Waits for the end; the job's own exit code, 75 for a stopped one, 128 + N where signal N killed the
        driver.

        Raises:
            JobLostError: the cluster lost the job: its head died or was started anew, or Ray's supervisor of
                it was killed.
            ClusterError: Ray could not start it.
        """

        def ended() -> Any:
            job = self._info(submission)
            return job if status_of(job) in ENDED else None

        job: Any = wait_until(ended, interval_s=POLL_S)
        if status_of(job) == "FAILED" and job.driver_exit_code is None:
            raise self._without_driver(job)
        code = exit_code(status_of(job), job.driver_exit_code)
        if code > SIGNALLED:
            signal = code - SIGNALLED
            logger.error(f"signal {signal} killed the driver of {submission}; the same command resumes")
        return code

    def _without_driver(self, job: Any) -> ClusterError:
        """What to say of a failed job whose driver has no exit code."""
        if str(getattr(job.error_type, "value", job.error_type)) in SUPERVISOR_LOST:
            return self._lost(job.submission_id, "Ray's supervisor of it was killed, and its driver with it")
        return ClusterError(
            f"Ray could not start the job {job.submission_id}: {short_text(job.message)}; fix that and give "
            "the same command again"
        )

    def follow(self, submission: str) -> int:
        """Prints the job's output as it comes, then `wait`s."""
        asyncio.run(self._tail(submission))
        return self.wait(submission)

    def output(self, submission: str) -> str:
        """What the job has printed so far."""
        return job_text(self._patiently(lambda: self.client.get_job_logs(submission)))

    async def _tail(self, submission: str) -> None:
        try:
            async for text in self.client.tail_job_logs(submission):
                ours, obituary, _ = text.partition(OBITUARY)
                print_text(job_text(ours), end="")
                if obituary:  # the last that Ray adds to the log; `wait` says it in a line
                    return
        except Exception as error:  # aiohttp's many; what it means is for `wait` to find out
            logger.warning(f"the log stream of {submission} broke off ({type(error).__name__})")

    def _info(self, submission: str) -> Any:
        """The job, through a head that does not answer for a while.

        Raises:
            ClusterError: gone for good, or unknown to a head that was started anew.
        """

        def refused(why: str) -> ClusterError | None:
            is_unknown = "404" in why or "does not exist" in why
            known = "the head does not know it, so it was started anew"
            return self._lost(submission, known) if is_unknown else None

        return self._ask(
            lambda: self.client.get_job_info(submission), refused, lambda why: self._lost(submission, why)
        )

    @staticmethod
    def _lost(submission: str, why: str) -> JobLostError:
        return JobLostError(
            f"the job {submission} is lost: {why}; what it saved is in its run folder: start the head again "
            "if need be and give the same command to resume"
        )


def job_text(output: str) -> str:
    """Output of a job without the colours that Ray gives it; what redraws a line begins a new one."""
    return COLOUR.sub("", output).replace("\r\n", "\n").replace("\r", "\n")


def status_of(job: Any) -> str:
    """PENDING, RUNNING, SUCCEEDED, FAILED or STOPPED."""
    return str(getattr(job.status, "value", job.status))


def exit_code(status: str, driver_exit_code: int) -> int:
    """What the submitting process ends with."""
    if status == "SUCCEEDED":
        return 0
    if status == "STOPPED":
        return EXIT_STOPPED
    # A driver killed by a signal has a negative code.
    return driver_exit_code if driver_exit_code > 0 else SIGNALLED - driver_exit_code


def job_id(recipe_name: str, output: Path) -> str:
    """The id of a run: its recipe, and a hash of where it writes; the same command gives the same id."""
    safe = re.sub(r"[^A-Za-z0-9_-]", "-", recipe_name)
    return f"{safe}-{hash_text(str(output))[:8]}"


def show(value: dict[str, Any], *, as_json: bool) -> None:
    """A status for people or for scripts."""
    if as_json:
        emit_json(value)
        return
    for key, item in value.items():
        print_line(f"{key:15} {item}")
