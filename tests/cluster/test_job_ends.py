"""How a job's end reads to whoever submitted it: one line, and a code that docs/cluster.md names."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from persianmind.cluster.driver import DriverOptions
from persianmind.cluster.jobs import Jobs, exit_code
from persianmind.cluster.sizing import Scale
from persianmind.common.errors import ClusterError, JobLostError, PersianMindError
from persianmind.recipe.loading import load_recipe
from persianmind.run.folder import RunFolder
from persianmind.train.run import RunRequest

OBITUARY = "Job supervisor actor died: The actor died unexpectedly.\n  class_name: JobSupervisor"


def jobs_with(**fields: Any) -> Jobs:
    """Of a cluster with one job, as Ray 2.60 describes it."""
    defaults = {"submission_id": "one", "status": "FAILED", "driver_exit_code": None, "error_type": None}
    job = SimpleNamespace(**{**defaults, "message": None, **fields})

    async def tail(_: str) -> AsyncIterator[str]:
        yield "step 1\n"
        yield f"step 2\n{OBITUARY}"
        yield "the rest of it"

    jobs = Jobs.__new__(Jobs)
    jobs.address = "http://127.0.0.1:8265"
    jobs.client = SimpleNamespace(get_job_info=lambda _: job, tail_job_logs=tail)  # type: ignore[assignment]
    return jobs


@pytest.mark.parametrize("kind", ["JOB_SUPERVISOR_ACTOR_DIED", "JOB_SUPERVISOR_ACTOR_UNKNOWN_FAILURE"])
def test_a_killed_supervisor_is_a_lost_job(kind: str) -> None:
    with pytest.raises(JobLostError, match=r"supervisor of it was killed.*same command to resume") as found:
        jobs_with(error_type=kind, message=OBITUARY).wait("one")
    assert found.value.exit_code == 7
    assert "class_name" not in str(found.value)


def test_a_job_that_never_started_says_why() -> None:
    with pytest.raises(ClusterError, match="could not start the job one: runtime_env setup failed") as found:
        message = "runtime_env setup failed:\n no room"
        jobs_with(error_type="RUNTIME_ENV_SETUP_FAILURE", message=message).wait("one")
    assert found.value.exit_code == 2 and "\n" not in str(found.value)


def test_a_killed_driver_is_named_with_its_signal(caplog: pytest.LogCaptureFixture) -> None:
    assert jobs_with(driver_exit_code=-9).wait("one") == 137
    assert "signal 9 killed the driver of one" in caplog.text
    caplog.clear()
    assert jobs_with(driver_exit_code=5).wait("one") == 5 and caplog.text == ""


class UnreadyHead:
    """Answers as Ray 2.60 does while its agent is coming. lost: a job starts, its answer does not come."""

    def __init__(self, refusals: list[str], *, lost: bool = False) -> None:
        self.refusals, self.lost = refusals, lost
        self.submitted: list[dict[str, Any]] = []

    def list_jobs(self) -> list[Any]:
        return [SimpleNamespace(metadata={}, **one) for one in self.submitted]

    def submit_job(self, **job: Any) -> None:
        if self.lost and not self.submitted:
            self.submitted.append({"submission_id": job["submission_id"]})
            raise ConnectionError("reset")
        if self.refusals or self.lost:
            text = self.refusals.pop(0) if self.refusals else "status code 400: already exists"
            raise RuntimeError(f"Request failed with {text}.")
        self.submitted.append({"submission_id": job["submission_id"]})


NO_AGENT = "status code 503: No available agent to submit job, please try again later"


def _submit(client: UnreadyHead, root: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, bool]:
    monkeypatch.setattr("persianmind.cluster.jobs.POLL_S", 0.01)
    monkeypatch.setattr("persianmind.cluster.jobs.RECONNECT_S", 0.5)
    (root / "launcher").mkdir()
    jobs = Jobs.__new__(Jobs)
    jobs.address, jobs.client = "http://127.0.0.1:8265", client  # type: ignore[assignment]
    return jobs.submit("one", root, ["true"], 10.0)


@pytest.mark.parametrize("lost", [False, True])
def test_a_head_whose_agent_is_not_there_yet_is_asked_again(
    lost: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = UnreadyHead([] if lost else [NO_AGENT] * 3, lost=lost)
    assert _submit(head, tmp_path, monkeypatch) == ("one", True)
    assert len(head.submitted) == 1 and not head.refusals


@pytest.mark.parametrize(
    ("refusals", "told"),
    [
        ([NO_AGENT] * 1000, r"is not ready after 0 s: .*No available agent.*same command again"),
        (["status code 400: bad"], "refuses: Request failed with status code 400: bad"),
    ],
)
def test_a_head_that_stays_so_or_refuses_is_one_line(
    refusals: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ClusterError, match=told) as found:
        _submit(UnreadyHead(refusals), tmp_path, monkeypatch)
    assert "\n" not in str(found.value)


def test_codes() -> None:
    assert exit_code("SUCCEEDED", 0) == 0
    assert exit_code("FAILED", 3) == 3
    assert exit_code("STOPPED", 0) == 75


def test_rays_own_words_on_the_supervisor_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    asyncio.run(jobs_with()._tail("one"))
    assert capsys.readouterr().out == "step 1\nstep 2\n"


@pytest.mark.parametrize("named", [True, False])
def test_a_killed_controller_is_a_lost_job(named: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the trainer raises where its controller is gone; the control: any other error goes through."""
    from ray.exceptions import ActorDiedError

    from persianmind.cluster import driver, policies

    error = ActorDiedError() if named else ValueError("a bug")

    def fit(_: Any) -> None:
        raise error

    monkeypatch.setattr(policies.TorchTrainer, "__init__", lambda *_, **__: None)
    monkeypatch.setattr(policies.ElasticTrainer, "fit", fit)
    request = RunRequest(load_recipe("tiny"), Path("zero2.json"), RunFolder(Path("/x")))
    options = DriverOptions(Scale(1, 1, gpu=False), True, 0, 1.0, 1.0)
    with pytest.raises(PersianMindError if named else ValueError) as found:
        driver._fit(request, options, 1.0, None)
    if named:
        assert isinstance(found.value, JobLostError) and found.value.exit_code == 7
        assert "controller was killed" in str(found.value) and "the same command resumes" in str(found.value)
