"""The README's commands exist and run; the count is asserted, so that a new one is noticed."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.support.launch import ROOT, Launched

PAGES = [ROOT / "README.md", ROOT / "README.fa.md", *sorted((ROOT / "docs").rglob("*.md"))]
PERSIAN = [ROOT / "README.fa.md", *sorted((ROOT / "docs" / "fa").glob("*.md"))]
LEFT_TO_RIGHT = "\u200e"
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = [
    line.split("#")[0].strip()
    for block in re.findall(r"```bash\n(.*?)```", README, flags=re.DOTALL)
    for line in block.splitlines()
    if line.strip()
]
# Run by the suite itself: `make test` is this run, `make demo` and the tiny run have their own tests.
LARGEST_PICTURE_BYTES = 150_000
LONG = ("make demo", "make test", ".venv/bin/persianmind train")


def test_the_number_of_commands_is_known() -> None:
    assert len(COMMANDS) == 14
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for command in COMMANDS:
        if command.startswith("make "):
            assert f"\n{command.split()[1]}: " in makefile


@pytest.mark.integration
@pytest.mark.parametrize("command", [one for one in COMMANDS if not one.startswith(LONG)])
def test_command_runs(command: str, tiny_run: Launched, tmp_path: Path) -> None:
    words = [word.replace("runs/tiny", str(tiny_run.run)) for word in command.split()]
    words = [word.replace("models/tiny", str(tmp_path / "model")) for word in words]
    words[0] = str(ROOT / words[0])
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


@pytest.mark.parametrize("name", ["README.md", "README.fa.md"])
def test_the_picture_of_the_report_is_small_and_told_in_words(name: str) -> None:
    """It is made by benchmarks/reference/picture.py; who does not see it has the alternative text."""
    text = (ROOT / name).read_text(encoding="utf-8")
    ((source, said),) = re.findall(r'<img src="([^"]+)"[^>]* alt="([^"]+)"', text)
    picture = (ROOT / source).read_bytes()
    assert picture.startswith(b"\x89PNG") and len(picture) < LARGEST_PICTURE_BYTES
    assert len(said.split()) > 20


@pytest.mark.parametrize("page", PERSIAN, ids=lambda page: str(page.relative_to(ROOT)))
def test_code_in_persian_text_is_read_from_its_left(page: Path) -> None:
    """`--output` within a line from right to left is shown as output--, unless a mark stands beside it."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    found = re.findall(f"({LEFT_TO_RIGHT}?)`([^`\n]+)`({LEFT_TO_RIGHT}?)", text)
    assert found
    assert [code for mark, code, _ in found if not mark and not code[0].isalpha()] == []
    assert [code for _, code, mark in found if not mark and not code[-1].isalnum()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_linked_files_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        assert (page.parent / target).exists(), target
