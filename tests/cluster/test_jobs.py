"""Real jobs over HTTP on a real head, and the driver on a Ray of its own."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.helpers import (
    BIN,
    FAST,
    LONGER,
    LONGER_STEPS,
    ROOT,
    TINY,
    Head,
    assert_complete,
    end_family,
    errors_in,
    kill_worker,
    metrics,
    running_head,
    start,
    step_of,
    submit,
    wait_for,
)

pytestmark = pytest.mark.integration


@pytest.fixture
def head() -> Iterator[Head]:
    with running_head() as one:
        yield one


@pytest.mark.more
def test_job_is_shipped_joined_and_can_be_given_again(head: Head, tmp_path: Path) -> None:
    run, log = tmp_path / "run", tmp_path / "log"
    flags = (*TINY, "--output", str(run), "--cpu-workers", "2", "--address", head.address, "--job-id", "one")
    flags = (*flags, *FAST)
    process = start(*flags, env=head.env(), log=log)
    try:
        wait_for(lambda: step_of(run) >= 1, 300, process)
        code, text = submit(*flags, "--detach", env=head.env())
        assert code == 0 and "joined the running job one" in text
        code, text = submit(*flags, "seed=8", "--detach", env=head.env())
        assert code == 2 and "running with other arguments" in errors_in(text)[0]
        assert process.wait(300) == 0, log.read_text()[-3000:]
    finally:
        end_family(process)
    text = log.read_text()
    assert "ships " in text and "attempt 1: 2 ranks" in text
    assert_complete(run, 30)
    code, text = submit("status", "one", "--json", "--address", head.address, env=head.env())
    status = json.loads(text.splitlines()[-1])
    assert (code, status["status"], status["exit_code"], status["submissions"]) == (0, "SUCCEEDED", 0, 1)
    assert_refusals(head, run)
    code, text = submit(*flags, env=head.env())
    assert code == 0 and "job one.2" in text and "all done" in text
    assert "cluster:" not in text  # nothing to do: no machine is waited for
    assert_complete(run, 30)


@pytest.mark.long
def test_rays_own_submit_runs_the_driver_inside_the_job(head: Head, tmp_path: Path) -> None:
    """From the project as it lies here: Ray leaves out what .gitignore names (.venv, runs)."""
    run = tmp_path / "run"
    job = ["python", "cluster/submit.py", *TINY, "--output", str(run), "--cpu-workers", "2", *FAST]
    command = ["job", "submit", "--address", head.address, "--working-dir", ".", "--", *job]
    done = subprocess.run(
        [BIN / "ray", *command], cwd=ROOT, env=head.env(), capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert "attempt 1: 2 ranks" in done.stdout
    assert_complete(run, 30)


@pytest.mark.long
def test_stop_saves_and_the_mistake_of_a_job_is_its_exit_code(head: Head, tmp_path: Path) -> None:
    run, log = tmp_path / "run", tmp_path / "log"
    flags = (*TINY, "--output", str(run), "--cpu-workers", "2", "--address", head.address, "--job-id", "two")
    process = start(*flags, *FAST, LONGER, env=head.env(), log=log)
    try:
        wait_for(lambda: step_of(run) >= 2, 300, process)
        code, text = submit("stop", "two", "--address", head.address, env=head.env())
        assert code == 0 and "two has ended: STOPPED" in text
        assert process.wait(60) == 75
    finally:
        end_family(process)
    last = metrics(run)[-1]["step"]
    assert last < LONGER_STEPS
    assert (run / "checkpoints" / f"step-{last}").is_dir()  # at the very step it stood at
    # The same folder with another recipe is a mistake found in the job; its exit code comes back.
    code, text = submit(*flags, *FAST, LONGER, "seed=9", env=head.env())
    assert code == 2 and "belongs to a run with" in errors_in(text)[0]
    assert "attempt 2" not in text  # it would come again


@pytest.mark.long
def test_local_ray_two_workers_budget_used_up(tmp_path: Path) -> None:
    run, log = tmp_path / "run", tmp_path / "log"
    flags = ("--local", *TINY, "--output", str(run), "--cpu-workers", "2", "--max-failures", "0", *FAST)
    process = start(*flags, log=log)
    try:
        wait_for(lambda: step_of(run) >= 5, 300, process)
        kill_worker(process.pid)
        assert process.wait(60) == 2, log.read_text()[-3000:]
        assert "restart budget is used up (--max-failures 0)" in errors_in(log.read_text())[0]
        process = start(*flags, log=log)
        assert process.wait(300) == 0, log.read_text()[-3000:]
    finally:
        end_family(process)
    assert "resuming from" in log.read_text()
    assert_complete(run, 30)


def assert_refusals(head: Head, run: Path) -> None:
    """A wrong token, nobody at the address, a job the head does not know: one line each."""
    flags = (*TINY, "--output", str(run), "--cpu-workers", "2", "--address")
    code, text = submit(*flags, head.address, env={**head.env(), "RAY_AUTH_TOKEN": "0" * 32})
    assert code == 2 and "token" in errors_in(text)[0]
    code, text = submit(*flags, "http://127.0.0.1:9", env=head.env())
    assert code == 2 and "no Ray dashboard answers" in errors_in(text)[0]
    code, text = submit("status", "thre", "--address", head.address, env=head.env())
    assert code == 2 and "no job 'thre'" in errors_in(text)[0]


@pytest.mark.long
def test_signal_to_a_local_run_saves_and_ends_with_75(tmp_path: Path) -> None:
    run, log = tmp_path / "run", tmp_path / "log"
    flags = ("--local", *TINY, "--output", str(run), "--cpu-workers", "1", *FAST, LONGER)
    process = start(*flags, log=log)
    try:
        wait_for(lambda: step_of(run) >= 3, 120, process)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 75, log.read_text()[-3000:]
    finally:
        end_family(process)
    assert errors_in(log.read_text())[0].startswith("persianmind: error: stopped at step")
    assert "attempt 2" not in log.read_text()


@pytest.mark.long
def test_killed_three_times_within_the_budget(tmp_path: Path) -> None:
    run, log = tmp_path / "run", tmp_path / "log"
    flags = (
        "--local",
        *TINY,
        "--output",
        str(run),
        "--cpu-workers",
        "2",
        "--max-failures",
        "3",
        *FAST,
        LONGER,
    )
    process = start(*flags, log=log)
    try:
        for step in (6, 14, 22):
            wait_for(lambda at=step: step_of(run) >= at and len(metrics(run)) >= at, 180, process)
            kill_worker(process.pid)
        assert process.wait(240) == 0, log.read_text()[-3000:]
    finally:
        end_family(process)
    assert "4 attempts" in log.read_text()
    assert_complete(run, LONGER_STEPS)


@pytest.mark.long
def test_head_is_lost_and_the_same_submit_resumes(tmp_path: Path) -> None:
    run, log = tmp_path / "run", tmp_path / "log"
    with running_head() as head:
        flags = (*TINY, "--output", str(run), "--cpu-workers", "2", "--address", head.address, *FAST, LONGER)
        process = start(*flags, env=head.env(), log=log)
        try:
            wait_for(lambda: step_of(run) >= 10, 180, process)
            head.kill()
            head.start()
            assert process.wait(120) == 7, log.read_text()[-3000:]
            assert "is lost: the head does not know it" in errors_in(log.read_text())[0]
            process = start(*flags, env=head.env(), log=log)
            assert process.wait(240) == 0, log.read_text()[-3000:]
        finally:
            end_family(process)
    assert "resuming from" in log.read_text()
    assert_complete(run, LONGER_STEPS)
