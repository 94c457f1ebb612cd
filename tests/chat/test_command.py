"""`persianmind chat` as it is typed: through the whole command line, against transformers called directly."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

from persianmind.cli import app
from persianmind.common.errors import UsageError
from persianmind.run.folder import RunFolder, RunLock
from tests.chat.helpers import model_folder
from tests.support.launch import BIN, Launched

QUESTIONS = ["What is an import?", "And a module?"]
NEW_TOKENS = 10


@pytest.fixture(scope="module")
def tied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_folder(tmp_path_factory.mktemp("tied") / "model", "random://llama-tied")


def chat(*arguments: object, stdin: str = "") -> str:
    result = CliRunner().invoke(
        app, ["chat", *map(str, arguments)], input=stdin, catch_exceptions=False, prog_name="persianmind"
    )
    assert result.exit_code == 0, result.output
    return result.stdout


def by_transformers(folder: Path, questions: list[str]) -> list[str]:
    """The answers of a conversation."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    messages, answers = [], []
    for question in questions:
        messages.append({"role": "user", "content": question})
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        ids = tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids
        output = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=NEW_TOKENS,
            do_sample=False,
            repetition_penalty=1.1,
            pad_token_id=tokenizer.eos_token_id,
        )
        answers.append(str(tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True)).strip())
        messages.append({"role": "assistant", "content": answers[-1]})
    return answers


def test_one_question(folder: Path) -> None:
    shown = chat(folder, "--prompt", QUESTIONS[0], "--max-new-tokens", NEW_TOKENS)
    [expected] = by_transformers(folder, QUESTIONS[:1])
    assert shown == expected + "\n" and expected


def test_a_conversation_from_a_script(folder: Path) -> None:
    shown = chat(folder, "--max-new-tokens", NEW_TOKENS, stdin="\n".join([*QUESTIONS, "/exit", "more"]))
    assert shown == "".join(answer + "\n" for answer in by_transformers(folder, QUESTIONS))
    fresh = chat(folder, "--max-new-tokens", NEW_TOKENS, stdin=f"x\n/reset\n{QUESTIONS[0]}\n")
    assert fresh.endswith("\n" + by_transformers(folder, QUESTIONS[:1])[0] + "\n")


def test_two_models_side_by_side(folder: Path, tied: Path) -> None:
    shown = chat(folder, "--against", tied, "--prompt", QUESTIONS[0], "--max-new-tokens", NEW_TOKENS)
    [left], [right] = (by_transformers(one, QUESTIONS[:1]) for one in (folder, tied))
    assert shown == f"[{folder}]\n{left}\n[{tied}]\n{right}\n" and left != right


def test_a_model_against_itself_is_refused(folder: Path) -> None:
    with pytest.raises(UsageError, match="the same model"):
        chat(folder, "--against", folder)


def installed(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(BIN / "persianmind"), "chat", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={name: value for name, value in os.environ.items() if name != "DS_ACCELERATOR"},
        stdin=subprocess.DEVNULL,
    )


@pytest.mark.integration
def test_the_installed_command_prints_the_answer_alone_and_an_error_as_a_line(folder: Path) -> None:
    done = installed(folder, "--prompt", QUESTIONS[0], "--max-new-tokens", NEW_TOKENS)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == by_transformers(folder, QUESTIONS[:1])[0] + "\n"
    refused = installed(folder.parent, "--prompt", "x")
    assert refused.returncode == 2 and refused.stdout == ""
    assert refused.stderr.startswith("persianmind: error: ") and refused.stderr.count("\n") == 1


@pytest.mark.integration
def test_a_run_in_progress_answers_as_its_last_stage_did_and_is_left_alone(
    tiny_run: Launched, tmp_path: Path
) -> None:
    """The newest checkpoint is that of the last stage; a process holds the run's lock, and nothing in the
    folder changes."""
    run = tmp_path / "run"
    shutil.copytree(tiny_run.run, run, ignore=shutil.ignore_patterns("export"))
    samples = {one["stage"]: one for one in tiny_run.results["samples"]}
    with RunLock(RunFolder(run)):
        before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
        done = installed(run, "--prompt", samples["instruct-2"]["prompt"], "--max-new-tokens", 8)
        assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == samples["instruct-2"]["text"] + "\n"


@pytest.mark.integration
def test_an_export_answers_as_its_sample_and_states_the_spelling_of_what_is_typed(tiny_run: Launched) -> None:
    export = tiny_run.run / "export"
    sample = tiny_run.results["samples"][-1]
    # The Arabic yeh is not what the model was trained on.
    typed = sample["prompt"].replace("\u06cc", "\u064a")
    assert sample["stage"] == "export" and typed != sample["prompt"]
    done = installed(export, "--prompt", typed, "--max-new-tokens", 8)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == sample["text"] + "\n"
    manifest = json.loads((export / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["languages"] == ["fa", "en"]
    assert manifest["normalise"] == {"enabled": True, "digits": "keep", "diacritics": "keep", "rules": {}}
