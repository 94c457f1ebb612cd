"""A cluster started by the lines that docs/cluster.md prints, on boxes (network namespaces) with a switch of
their own and no way to the internet. What listens there, who may ask what, where the token is to be found."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.cluster import namespaces
from tests.cluster.by_hand import HEAD, NODES, OTHER, SETTINGS, SMALL, SPARE, Boxes, boxes
from tests.cluster.helpers import FAST, LONGER, assert_complete, end_family, errors_in, step_of, wait_for
from tests.cluster.listeners import Listener, listening_on
from tests.cluster.page import PortRow, port_rows, printed
from tests.cluster.stranger import REFUSALS, answers_to

REASON = namespaces.unavailable()
pytestmark = [
    pytest.mark.more,
    pytest.mark.integration,
    pytest.mark.skipif(REASON is not None, reason=REASON or ""),
]
START_HEAD, START_OTHER = printed("ray_start --head"), printed("ray_start --node-ip-address")
SUBMIT = printed("python cluster/submit.py --address")
STATUS, LOGS = printed("python cluster/submit.py status"), printed("python cluster/submit.py logs")
RAY_STATUS = printed("ray status")
STOP, RAYS_SUBMIT = printed("python cluster/submit.py stop"), printed("ray job submit")
# The page's job wants eight GPUs; this one two processors, and of the boxes one that may be lost.
RECIPE, PAGES_SIZE = "--recipe tiny", "--recipe persianmind-7b --nodes 2 --gpus-per-node 4"
PATIENCE_S = 400  # two busy processors
PAGES_JOB = f"{PAGES_SIZE} --min-workers 4 --output /mnt/persianmind/runs/persianmind-7b"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Boxes]:
    """The first box and one other, as printed; the third has only the token."""
    with boxes() as ours:
        ours.make_token()
        start_ray(ours)
        yield ours


def start_ray(cluster: Boxes) -> None:
    """The printed lines of the head and of the other box."""
    for node, line in ((HEAD, START_HEAD), (OTHER, START_OTHER)):
        code, text = cluster.run(node, f"{SETTINGS} && {line} {SMALL}")
        assert code == 0 and "Ray runtime started" in text, text
    wait_for(lambda: cluster.run(HEAD, f"{SETTINGS} && {RAY_STATUS}")[1].count(" node_") == 2, 60)


def job(run: Path, *more: str) -> str:
    """The page's own submit line with a recipe that fits here."""
    command = SUBMIT.partition(" sources.")[0]
    assert PAGES_JOB in command
    size = f"{RECIPE} --cpu-workers 2 --min-workers 1 --output {run}"
    return f"{SETTINGS} && {command.replace(PAGES_JOB, size)} {' '.join((*FAST, *more))}"


def token_of(cluster: Boxes) -> str:
    return (cluster.home(HEAD) / ".ray" / "persianmind_token").read_text().strip()


def unknown(found: list[Listener], rows: list[PortRow]) -> list[Listener]:
    """Listening sockets of which the table says nothing."""
    return [one for one in found if not any(row.admits(one.port, one.who, one.address) for row in rows)]


def test_the_token_line_needs_no_folder_and_leaves_it_closed(cluster: Boxes) -> None:
    folder = cluster.home(HEAD) / ".ray"
    assert len(token_of(cluster)) == 64
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / "persianmind_token").stat().st_mode & 0o777 == 0o600


def test_boxes_register_by_their_own_addresses(cluster: Boxes) -> None:
    heard = {one.ip for node in (HEAD, OTHER) for one in listening_on(node) if one.port == 52365}
    assert {namespaces.address(HEAD), namespaces.address(OTHER)} <= heard
    # The control: the line without the flag, where no route leads out.
    line = START_HEAD.replace("--node-ip-address=192.168.1.10", "").replace("6379", "7379")
    text = cluster.run(SPARE, f"{SETTINGS} && {line} {SMALL}")[1]
    cluster.switch_off(SPARE)
    assert "Local node IP: 127.0.0.1" in text


def test_every_listening_port_is_in_the_table(cluster: Boxes, tmp_path: Path) -> None:
    run, log = tmp_path / "run", tmp_path / "log"
    idle = {node: listening_on(node) for node in (HEAD, OTHER)}
    process = cluster.start(HEAD, job(run, LONGER), log)
    try:
        wait_for(lambda: step_of(run) >= 3, PATIENCE_S, process)
        busy = {node: listening_on(node) for node in (HEAD, OTHER)}
    finally:
        code, text = cluster.run(HEAD, f"{SETTINGS} && {STOP.replace('ID', job_name(log))}")
        process.wait(PATIENCE_S)
        end_family(process)
    assert code == 0 and "has ended: STOPPED" in text, text
    for found in (idle, busy):
        for node in (HEAD, OTHER):
            print(f"box {node}:", *found[node], sep="\n  ")
            assert unknown(found[node], port_rows()) == []
    assert any(one.who == "training worker" for one in busy[OTHER])
    # The control: a table without one of its lines.
    for who in ("gcs_server", "raylet", "training worker", "dashboard agent"):
        rows = [row for row in port_rows() if row.who != who]
        assert unknown(busy[HEAD], rows), who
    check_reach(idle[HEAD])


def job_name(log: Path) -> str:
    return log.read_text().partition(" job ")[2].split()[0]


def check_reach(on_head: list[Listener]) -> None:
    """What another box gets without the token: nothing of what listens on loopback, a refusal of the rest."""
    answers = answers_to(OTHER, namespaces.address(HEAD), on_head)
    shared = {one.port for one in on_head if one.address != "loopback"}
    assert {8265, 6384, 44217, 44227}.isdisjoint(shared) and {6379, 10001, 52365} <= shared
    print("answers to a stranger:", answers)
    assert {port for port in answers if answers[port] == "closed"} == set(answers) - shared
    assert {port: answers[port] for port in shared if answers[port] not in REFUSALS} == {}


def asked(cluster: Boxes, node: int, url: str, *, token: str | None) -> int | str:
    """What the dashboard answers to our own question, asked on a box."""
    code = "import sys; from persianmind.cluster.security import ask_dashboard as ask; "
    code += f"print(ask({url!r}, '/api/jobs/', {token!r})[0])"
    return cluster.run(node, f'{SETTINGS} && python -c "{code}"')[1].split()[-1]


def test_the_dashboard_wants_the_token(cluster: Boxes) -> None:
    url = "http://127.0.0.1:8265"
    assert asked(cluster, HEAD, url, token=None) == "401"
    assert asked(cluster, HEAD, url, token="0" * 64) == "403"
    assert asked(cluster, HEAD, url, token=token_of(cluster)) == "200"


@pytest.mark.parametrize("mode", ["disabled", "token"])
def test_a_dashboard_beyond_loopback(cluster: Boxes, mode: str) -> None:
    """A head of its own on the third box, with and without Ray's token mode, asked from the first one, whose
    own environment holds the token both times."""
    line = START_HEAD.replace("192.168.1.10", namespaces.address(SPARE)).replace(
        "--dashboard-host=127.0.0.1", ""
    )
    line += f" --dashboard-host={namespaces.address(SPARE)} {SMALL}"
    url = f"http://{namespaces.address(SPARE)}:8265"
    try:
        code, text = cluster.run(SPARE, f"{SETTINGS} && export RAY_AUTH_MODE={mode} && {line}")
        assert code == 0, text
        status = f"{SETTINGS} && {STATUS.replace('ID', 'none')} --address {url}"
        outcomes = [cluster.run(HEAD, f"{status} {consent}") for consent in ("", "--send-token-unencrypted")]
    finally:
        cluster.switch_off(SPARE)
    assert [code for code, _ in outcomes] == [2, 2]
    assert "unencrypted" in outcomes[0][1]
    answered = "answers 200 to a request without a token" if mode == "disabled" else "no job 'none'"
    assert answered in outcomes[1][1] and "Traceback" not in outcomes[1][1]


def test_the_token_stands_nowhere_but_in_its_file(cluster: Boxes, tmp_path: Path) -> None:
    run, log, token = tmp_path / "run", tmp_path / "log", token_of(cluster)
    process, seen = cluster.start(HEAD, job(run), log), set()

    def look() -> bool:
        for node in (HEAD, OTHER):
            for one in cluster.processes(node):
                with contextlib.suppress(psutil.Error):
                    seen.add(" ".join([*one.cmdline(), *one.environ().values()]))
        return process.poll() is not None

    try:
        wait_for(look, PATIENCE_S)
    finally:
        end_family(process)
    assert process.returncode == 0, log.read_text()[-3000:]
    assert_complete(run, 30)
    name = job_name(log)
    status = cluster.run(HEAD, f"{SETTINGS} && {STATUS.replace('ID', name)}")[1]
    assert json.loads(status.splitlines()[-1])["status"] == "SUCCEEDED"
    printed_log = cluster.run(HEAD, f"{SETTINGS} && {LOGS.replace('ID', name)}")[1]
    entries = cluster.run(HEAD, f"{SETTINGS} && ray list jobs --detail --format json")[1]
    assert name in entries and "step" in printed_log and len(seen) > 20
    for place in (status, printed_log, entries, log.read_text(), *seen):
        assert token not in place
    # Ray's session files, the run folder with its report: every byte.
    assert holding(token, cluster.folder, tmp_path) == {
        cluster.home(node) / ".ray" / "persianmind_token" for node in range(NODES)
    }
    (tmp_path / "planted").write_text(f"x {token} y")  # the control
    assert holding(token, tmp_path) == {tmp_path / "planted"}


def holding(token: str, *folders: Path) -> set[Path]:
    """Files that hold the token."""
    found = set()
    for folder in folders:
        for path in folder.rglob("*"):
            with contextlib.suppress(OSError):  # sockets, and what a closing session takes away
                if path.is_file() and token.encode() in path.read_bytes():
                    found.add(path)
    return found


@pytest.mark.parametrize(
    ("victim", "words"),
    [
        ("ray::TrainController", "controller was killed"),
        pytest.param("ray::JobSupervisor", "supervisor of it was killed", marks=pytest.mark.long),
    ],
)
def test_a_killed_leader_is_named_and_the_next_job_starts_at_once(
    cluster: Boxes, tmp_path: Path, victim: str, words: str
) -> None:
    run, log = tmp_path / "run", tmp_path / "log"
    process = cluster.start(HEAD, job(run, LONGER), log)
    try:
        wait_for(lambda: step_of(run) >= 5, PATIENCE_S, process)
        (leader,) = cluster.named(HEAD, victim)
        leader.kill()
        assert process.wait(60) == 7, log.read_text()[-3000:]
        text = log.read_text()
        assert len(errors_in(text)) == 1 and words in errors_in(text)[0]
        assert "Traceback" not in text and "ActorDiedError" not in text and "class_name" not in text
        killed_s, before = time.monotonic(), step_of(run)
        process = cluster.start(HEAD, job(run, LONGER), log)
        wait_for(lambda: step_of(run) > before, PATIENCE_S, process)
        print(f"{victim}: the next job's first new step after {time.monotonic() - killed_s:.0f} s")
        assert process.wait(PATIENCE_S) == 0, log.read_text()[-3000:]
    finally:
        end_family(process)


@pytest.mark.long
def test_another_run_is_told_what_it_waits_for(cluster: Boxes, tmp_path: Path) -> None:
    """What was reserved for a run whose driver is gone is not given back until it is taken up again."""
    run, log, other = tmp_path / "run", tmp_path / "log", tmp_path / "other"
    process = cluster.start(HEAD, job(run, LONGER), log)
    waiting = None
    try:
        wait_for(lambda: step_of(run) >= 3, PATIENCE_S, process)
        (supervisor,) = cluster.named(HEAD, "ray::JobSupervisor")
        supervisor.kill()
        assert process.wait(60) == 7, log.read_text()[-3000:]
        waiting = cluster.start(HEAD, job(other), tmp_path / "other-log")
        said = "or Ray still holds those of another run that was killed"
        wait_for(lambda: said in (tmp_path / "other-log").read_text(), PATIENCE_S, waiting)
        process = cluster.start(HEAD, job(run, LONGER), log)
        assert (process.wait(PATIENCE_S), waiting.wait(PATIENCE_S)) == (0, 0), log.read_text()[-3000:]
    finally:
        for one in filter(None, (process, waiting)):
            end_family(one)
    assert_complete(other, 30)


def test_rays_own_submit_on_the_head(cluster: Boxes, tmp_path: Path) -> None:
    assert PAGES_SIZE in RAYS_SUBMIT
    size = f"{RECIPE} --cpu-workers 2 --output {tmp_path / 'run'} {' '.join(FAST)}"
    code, text = cluster.run(
        HEAD, f"{SETTINGS} && {RAYS_SUBMIT.replace(PAGES_SIZE, size)}", timeout_s=PATIENCE_S
    )
    assert code == 0, text[-3000:]
    assert_complete(tmp_path / "run", 30)


def test_this_machine_alone(cluster: Boxes, tmp_path: Path) -> None:
    """`--local` opens nothing to the network."""
    run, log = tmp_path / "run", tmp_path / "log"
    line = printed("python cluster/submit.py --local").replace("/tmp/tiny", str(run))
    process = cluster.start(SPARE, f". .venv/bin/activate && {line} {' '.join(FAST)}", log)
    try:
        wait_for(lambda: step_of(run) >= 2, PATIENCE_S, process)
        found = listening_on(SPARE)
        assert process.wait(PATIENCE_S) == 0, log.read_text()[-3000:]
    finally:
        end_family(process)
        cluster.switch_off(SPARE)
    print(*found, sep="\n")
    assert [one for one in found if one.address != "loopback"] == []


@pytest.mark.long
def test_after_the_heads_death_every_box_starts_again(cluster: Boxes) -> None:
    """The last here: it leaves another cluster behind."""
    cluster.switch_off(HEAD)
    code, text = cluster.run(HEAD, f"{SETTINGS} && {START_HEAD} {SMALL}")
    assert code == 0, text
    time.sleep(20)  # twice what the other box took to register when it was started
    assert cluster.run(HEAD, f"{SETTINGS} && {RAY_STATUS}")[1].count(" node_") == 1
    for node in (HEAD, OTHER):  # as `ray stop`, which would end every Ray of this machine
        cluster.switch_off(node)
    start_ray(cluster)
