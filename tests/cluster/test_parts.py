"""The arithmetic, what is shipped, what is refused, and what submit.py says before it touches Ray."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from persianmind.cluster import package, sizing
from persianmind.cluster.arguments import SubmitArguments, job_arguments, shared_output
from persianmind.cluster.command import submit_app
from persianmind.cluster.jobs import job_id
from persianmind.cluster.sizing import (
    Node,
    Scale,
    cpus_per_worker,
    resolve_scale,
    workers_that_fit,
)
from persianmind.common.console import invoke
from persianmind.common.errors import ClusterError, UsageError
from persianmind.recipe.loading import load_recipe
from persianmind.run.folder import RunFolder
from persianmind.train.command import app as train_app
from persianmind.train.run import RunRequest
from tests.cluster.helpers import ROOT, errors_in, submit

TINY = load_recipe("tiny")  # 4 sequences per step, 1 per micro-batch


def ask(**flags: int | None) -> Scale:
    none = dict.fromkeys(("nodes", "gpus_per_node", "gpu_workers", "cpu_workers", "min_workers"))
    return resolve_scale(TINY, **{**none, **flags})


def test_scale_of_flags() -> None:
    assert ask(nodes=2, gpus_per_node=2) == Scale(4, 4, gpu=True)
    assert ask(gpus_per_node=4, min_workers=2) == Scale(4, 2, gpu=True)
    assert ask(gpu_workers=4, min_workers=1) == Scale(4, 1, gpu=True)  # on machines of 3 and 1, say
    assert ask(cpu_workers=2, min_workers=1) == Scale(2, 1, gpu=False)
    assert ask(cpu_workers=3) == Scale(3, 3, gpu=False)  # 4 sequences need not divide


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({}, "what to train on"),
        ({"cpu_workers": 1, "gpus_per_node": 1}, "exclude each other"),
        ({"gpu_workers": 4, "gpus_per_node": 1}, "exclude each other"),
        ({"gpu_workers": 4, "nodes": 2}, "leave --nodes out"),
        ({"cpu_workers": 5}, "more than the 4 sequences of a step"),
        ({"cpu_workers": 2, "min_workers": 4}, "more than the 2 workers"),
        ({"cpu_workers": 0}, "start at 1"),
    ],
)
def test_scale_refused(flags: dict[str, int], words: str) -> None:
    with pytest.raises(ClusterError, match=words):
        ask(**flags)


@pytest.mark.parametrize(
    ("nodes", "scale", "expected"),
    [
        # A box with as many CPUs as GPUs, a common old desktop: one CPU per worker, not ten.
        ([Node("a", 4, 4)], Scale(4, 4, gpu=True), 1),
        ([Node("a", 2, 4)], Scale(4, 4, gpu=True), 0.5),
        ([Node("a", 64, 4)], Scale(4, 4, gpu=True), 8),
        # The smaller box decides.
        ([Node("a", 64, 4), Node("b", 8, 4)], Scale(8, 8, gpu=True), 2),
        # Machines with different numbers of GPUs: the one with the fewest CPUs per GPU decides.
        ([Node("a", 8, 4), Node("b", 64, 2)], Scale(6, 6, gpu=True), 2),
        ([Node("a", 32, 1), Node("b", 3, 3)], Scale(4, 4, gpu=True), 1),
        # A head without GPUs holds no worker, whatever its CPUs.
        ([Node("head", 64, 0), Node("a", 8, 4)], Scale(4, 4, gpu=True), 2),
        ([Node("head", 1, 0), Node("a", 16, 4), Node("b", 4, 2)], Scale(6, 6, gpu=True), 2),
        # Fewer machines than asked, enough to begin with.
        ([Node("a", 8, 4)], Scale(8, 4, gpu=True), 2),
        ([Node("a", 2, 0)], Scale(2, 2, gpu=False), 1),
        ([Node("head", 1, 0), Node("b", 4, 0), Node("c", 4, 0)], Scale(2, 2, gpu=False), 4),
    ],
)
def test_workers_are_sized_so_that_they_schedule(nodes: list[Node], scale: Scale, expected: float) -> None:
    size = cpus_per_worker(nodes, scale)
    assert size == expected
    assert workers_that_fit(nodes, gpu=scale.gpu, cpus_per_worker=size) >= scale.min_workers
    # The next size up would not do, or is beyond the cap.
    larger = size + 1 if size >= 1 else size * 2
    most = min(scale.workers, workers_that_fit(nodes, gpu=scale.gpu, cpus_per_worker=0.1 if scale.gpu else 1))
    assert (
        larger > sizing.MAX_CPUS_PER_WORKER
        or workers_that_fit(nodes, gpu=scale.gpu, cpus_per_worker=larger) < most
    )


def test_too_few_gpus_names_what_is_there() -> None:
    with pytest.raises(ClusterError, match=r"too few GPUs for 8 workers \(a: 8 CPUs, 4 GPUs\)"):
        cpus_per_worker([Node("a", 8, 4)], Scale(8, 8, gpu=True))


def test_the_gpus_of_a_head_without_any_are_not_counted_on() -> None:
    words = r"too few GPUs for 4 workers \(head: 64 CPUs, 0 GPUs, a: 8 CPUs, 2 GPUs\)"
    with pytest.raises(ClusterError, match=words):
        cpus_per_worker([Node("head", 64, 0), Node("a", 8, 2)], Scale(4, 4, gpu=True))


def test_only_the_project_is_shipped(tmp_path: Path) -> None:
    for name in (
        "launcher/train.py",
        "persianmind/x.py",
        ".git/objects/pack",
        ".venv/lib/big.so",
        "runs/demo/data/0.bin",
        "shards/a.jsonl",
        "persianmind/__pycache__/x.pyc",
        "model.safetensors",
        "data/.hidden",
    ):
        path = tmp_path / "src" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * 1000)
    (tmp_path / "src" / "link.py").symlink_to("/etc/passwd")
    staged = package.stage(tmp_path / "src", tmp_path / "to")
    files = sorted(
        p.relative_to(tmp_path / "to").as_posix() for p in (tmp_path / "to").rglob("*") if p.is_file()
    )
    assert files == ["launcher/train.py", "persianmind/x.py"]
    assert (staged.files, staged.size_bytes) == (2, 2000)


def test_too_large_is_refused_before_anything_is_copied(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "corpus.txt").write_bytes(b"x" * (2 * package.MIB))
    with pytest.raises(
        ClusterError, match=r"is 2\.0 MiB .* limit is 1 MiB; the largest: corpus\.txt \(2\.0 MiB\)"
    ):
        package.stage(tmp_path / "src", tmp_path / "to", limit_mib=1)
    assert not (tmp_path / "to").exists()
    assert package.stage(tmp_path / "src", tmp_path / "to", limit_mib=3).files == 1


def test_this_project_is_small_and_whole() -> None:
    files, size = package.check_size(ROOT, 20)
    names = {path.as_posix() for path in files}
    assert {
        "cluster/submit.py",
        "launcher/train.py",
        "ds_configs/zero2.json",
        "persianmind/recipe/whole.py",
        "persianmind/data/build/job.py",  # "build" names a package of ours, not only what is left out
    } <= names
    assert {"launcher/recipes/tiny.yaml", "pyproject.toml"} <= names
    assert size < 20 * package.MIB


def parse(words: str) -> SubmitArguments:
    given = invoke(submit_app, words.split(), prog="cluster/submit.py")
    assert isinstance(given, SubmitArguments)
    return given


def test_the_job_gets_the_flags_without_those_that_say_how_to_submit() -> None:
    given = "--recipe tiny --address http://h:1 --job-id a --detach --max-upload-mib=3 --cpu-workers 2 a.b=1"
    assert job_arguments(parse(given)) == ["--recipe", "tiny", "--cpu-workers", "2", "a.b=1"]
    followed = given.replace("--detach", "--follow")
    assert job_arguments(parse(followed)) == job_arguments(parse(given))


@pytest.mark.parametrize(
    "words", ["a=b --output /x c=d", "--output /x a=b c=d", "a=b c=d --output /x", "a=b --output=/x c=d"]
)
def test_overrides_stand_anywhere(words: str) -> None:
    """Before, between and after flags, here and at the launcher."""
    at_launcher = invoke(train_app, words.split(), prog="launcher/train.py")
    for given in (parse(words).train, at_launcher):
        assert (given.overrides, given.output) == (("a=b", "c=d"), Path("/x"))
    with pytest.raises(UsageError, match="--ouput"):
        parse(words.replace("--output", "--ouput"))


def test_the_job_runs_what_was_asked_for() -> None:
    """Read again inside the job, its flags say the same of the run and its size as those given here."""
    assert job_arguments(parse("--gpu-workers 6"))[-2:] == ["--gpu-workers", "6"]
    every_flag = (
        "--recipe tiny --deepspeed ds_configs/zero2_qlora.json --output /shared/run --resume must "
        "--resume-from /shared/other --nodes 2 --gpus-per-node 4 --min-workers 4 --max-failures 1 --wait-s 7 "
        "--resize-s 9 --address http://h:1 --send-token-unencrypted train.learning_rate=1e-3 seed=9"
    )
    given = parse(every_flag)
    inside = parse(" ".join(job_arguments(given)))
    submitting = {"address": None, "job_id": None, "send_token_unencrypted": False}
    assert inside == dataclasses.replace(given, **submitting)
    assert inside.train.overrides == ("train.learning_rate=1e-3", "seed=9")


def test_the_shipped_config_is_found_in_the_jobs_own_copy() -> None:
    path = ROOT / "ds_configs" / "zero2_qlora.json"
    words = job_arguments(parse(f"--deepspeed {path} --cpu-workers 2"))
    assert words[words.index("--deepspeed") + 1] == "ds_configs/zero2_qlora.json"


def test_the_same_command_has_the_same_id() -> None:
    assert job_id("tiny", Path("/a")) == job_id("tiny", Path("/a")) != job_id("tiny", Path("/b"))


def test_run_folder_of_a_job(monkeypatch: pytest.MonkeyPatch) -> None:
    request = RunRequest(TINY, Path("zero2.json"), RunFolder(Path("runs/tiny")))
    monkeypatch.delenv("PERSIANMIND_RUNS", raising=False)
    with pytest.raises(ClusterError, match="give --output /shared"):
        shared_output(request, explicit=False)
    with pytest.raises(ClusterError, match="absolute path"):
        shared_output(request, explicit=True)
    monkeypatch.setenv("PERSIANMIND_RUNS", "/mnt/runs")
    assert shared_output(request, explicit=False).folder.path == Path("/mnt/runs/tiny")
    given = dataclasses.replace(request, folder=RunFolder(Path("/x")))
    assert shared_output(given, explicit=True).folder.path == Path("/x")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--recipe", "tini", "--cpu-workers", "2", "--local"), "did you mean 'tiny'"),
        (("--recipe", "tiny", "--local"), "what to train on"),
        (("--recipe", "tiny", "--cpu-workers", "2"), "where? give --address"),
        (("--recipe", "tiny", "--cpu-workers", "2", "--address", "ray://head:10001"), "wants http://HOST"),
        (
            ("--recipe", "tiny", "--cpu-workers", "2", "--address", "http://x:1", "--output", "r"),
            "absolute path",
        ),
    ],
)
def test_mistakes_are_one_line_before_anything_starts(flags: tuple[str, ...], words: str) -> None:
    code, text = submit(*flags, timeout_s=60)
    assert code == 2
    assert words in errors_in(text)[0]
    assert "Traceback" not in text
