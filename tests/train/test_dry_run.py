"""--dry-run through the real entry: what it shows is the sources' own text, and nothing is left behind."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.support.launch import ROOT, Launched, command, launch

pytestmark = pytest.mark.integration
POEM = "دل می‌رود ز دستم صاحب دلان خدا را"
QUESTION, ANSWER = "پایتخت ایران کجاست؟", "پایتخت ایران تهران است."


@pytest.fixture
def place(outside: Path) -> Path:
    """Sources of a few records, and empty folders for temporary files and converted bases."""
    poems = [{"text": f"{POEM} {number}\nسطر دوم"} for number in range(60)]
    dialogue = [
        {"instruction": f"{QUESTION} {number}", "input": "", "output": ANSWER} for number in range(20)
    ]
    for name, records in {"poems": poems, "dialogue": dialogue}.items():
        lines = [json.dumps(one, ensure_ascii=False) for one in records]
        (outside / f"{name}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    (outside / "tmp").mkdir()
    (outside / "cache").mkdir()
    return outside


def arguments(*more: str) -> list[str]:
    return [
        "--dry-run", "--recipe", "tiny", "heldout.sources=[]", "vocab.new_tokens=20", "vocab.sources=[poems]",
        "sources.poems.uri=poems.jsonl", "sources.translate.uri=dialogue.jsonl", "evaluate.prompts=[]",
        "stages=[{name: one, sources: {poems: 1.0}, tokens: 4096},"
        " {name: two, sources: {translate: 1.0}, epochs: 2}]",
        *more,
    ]  # fmt: skip


def environment(place: Path) -> dict[str, str]:
    return {"TMPDIR": str(place / "tmp"), "PERSIANMIND_CACHE": str(place / "cache")}


def left_behind(place: Path) -> list[str]:
    """Everything but what was there before."""
    before = {"poems.jsonl", "dialogue.jsonl", "tmp", "cache"}
    # What torch and its kernels keep in TMPDIR is theirs; ours is named.
    ours = [one.name for one in (place / "tmp").iterdir() if "persianmind" in one.name]
    return [
        *ours,
        *(one.name for one in (place / "cache").rglob("*")),
        *{one.name for one in place.iterdir()} - before,
    ]


def shown_text(done: Launched, source: str) -> str:
    """What stands below the heading of a source, as one text."""
    after = done.text.split(f"{source}: first sequence:", 1)[1].split("\n", 1)[1]
    lines = []
    for line in after.split("\n"):
        if not line.startswith("  | "):
            break
        lines.append(line.removeprefix("  | "))
    return "\n".join(lines)


def test_two_ranks_show_the_sources_text_with_its_targets_and_keep_nothing(place: Path) -> None:
    done = launch(*arguments(), ranks=2, cwd=place, environment=environment(place))
    assert done.code == 0, done.text
    assert left_behind(place) == []
    assert done.text.count("dry run of tiny:") == done.text.count("dry run: done") == 1
    poems = shown_text(done, "poems")
    assert poems.count("⟦") == poems.count("⟧") >= 1
    plain = re.sub("[⟦⟧]", "", poems)
    texts = {f"{POEM} {number}\nسطر دوم" for number in range(60)}
    documents = plain.removesuffix("<|end|>").split("<|end|>\n")
    assert len(documents) > 1 and set(documents) <= texts  # the source's own, every character
    dialogue = shown_text(done, "translate")
    assert re.findall("⟦(.*?)⟧", dialogue, re.DOTALL)[0] == f" {ANSWER}<|end|>"
    assert set(re.findall("⟦(.*?)⟧", dialogue, re.DOTALL)) == {f" {ANSWER}<|end|>"}
    assert QUESTION in re.sub("⟦.*?⟧", "", dialogue, flags=re.DOTALL)
    tokens = int(re.search(r"^poems: ([\d,]+) tokens, seen", done.text, re.MULTILINE)[1].replace(",", ""))  # type: ignore[index]
    seen = float(re.search(r"^poems: .* seen ([\d.]+) times", done.text, re.MULTILINE)[1])  # type: ignore[index]
    assert seen == pytest.approx(4096 / tokens, rel=0.01)
    assert "vocabulary 1,024 + 20" in done.text and "x 2 ranks" in done.text
    assert "stage one: 4 steps" in done.text


def test_a_mistake_is_one_line_and_nothing_is_kept(place: Path) -> None:
    done = launch(*arguments("vocab.new_tokens=5000"), ranks=0, cwd=place, environment=environment(place))
    assert done.code == 2, done.text
    assert len(done.errors) == 1 and "new pieces, 5000 were asked for" in done.errors[0]
    assert left_behind(place) == []


@pytest.fixture
def running(place: Path) -> Iterator[tuple[Path, subprocess.Popen[str]]]:
    """A dry run of two ranks on so much text that it is still at it, its temporary folder made."""
    with (place / "poems.jsonl").open("w", encoding="utf-8") as handle:
        for number in range(150_000):
            handle.write(json.dumps({"text": f"{POEM} {number}"}, ensure_ascii=False) + "\n")
    process = subprocess.Popen(
        command(arguments(), ranks=2),
        env={**os.environ, "DS_ACCELERATOR": "cpu", "PYTHONPATH": str(ROOT), **environment(place)},
        cwd=place,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        wait_for(lambda: any((place / "tmp").glob("persianmind-dry-run-*")), "its folder is made")
        yield place, process
    finally:
        below = psutil.Process().children(recursive=True)
        for one in below:
            one.kill()
        process.wait()


def wait_for(look: object, what: str, seconds: float = 400) -> None:
    assert callable(look)
    ended_s = time.monotonic() + seconds
    while not look():
        assert time.monotonic() < ended_s, f"waited in vain until {what}"
        time.sleep(0.1)


def test_control_c_leaves_nothing(running: tuple[Path, subprocess.Popen[str]]) -> None:
    place, process = running
    os.killpg(process.pid, signal.SIGINT)  # as a terminal sends it: to all of them
    wait_for(lambda: left_behind(place) == [], "the folder is removed")
    process.wait(timeout=120)


def test_the_end_of_the_launcher_leaves_nothing(running: tuple[Path, subprocess.Popen[str]]) -> None:
    place, process = running
    process.kill()  # it passes nothing on
    wait_for(lambda: left_behind(place) == [], "the folder is removed")
