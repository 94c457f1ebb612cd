"""The main job on the tiny recipe, two ranks, the real launcher: everything later issues build on."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from tests.support.launch import BIN, ROOT, Launched, launch

pytestmark = pytest.mark.integration


def test_run_folder_has_what_scripts_rely_on(tiny_run: Launched) -> None:
    for name in (
        "recipe.yaml",
        "engine.json",
        "metrics.jsonl",
        "results.json",
        "report.html",
        "vocab/expansion.json",
        "vocab/tokenizer.json",
        "export/config.json",
        "export/model.safetensors",
    ):
        assert (tiny_run.run / name).is_file(), name
    assert list((tiny_run.run / "energy").glob("*.jsonl"))
    assert list((tiny_run.run / "checkpoints").glob("step-*/manifest.json"))
    assert {path.name for path in (tiny_run.run / "data").iterdir()} == {
        "poems",
        "messages",
        "english",
        "translate",
        "interpret",
    }


def test_metrics_have_a_line_per_optimizer_step(tiny_run: Launched) -> None:
    lines = tiny_run.metrics
    assert [line["step"] for line in lines] == list(range(1, len(lines) + 1))
    assert [line["stage"] for line in lines] == ["pretrain"] * 16 + ["instruct-1"] * 7 + ["instruct-2"] * 7
    for line in lines:
        assert float.fromhex(line["loss_hex"]) == line["loss"]
        assert 0 < line["target_tokens"] <= line["useful_tokens"] <= line["tokens"] == 1024
        assert not line["skipped"] and line["learning_rate"] > 0 and line["tokens_per_s"] > 0


def test_persian_is_learned(tiny_run: Launched) -> None:
    """That English is kept shows only a base that knows some: test_real_base.py."""
    assert tiny_run.stages == ["base", "pretrain", "instruct-1", "instruct-2"]
    assert tiny_run.bits("instruct-2", "fa") < 0.5 * tiny_run.bits("base", "fa")
    held_out = [one for one in tiny_run.results["evaluation"] if one["language"] == "fa"]
    assert len({one["n_bytes"] for one in held_out}) == 1


def test_energy_is_accounted(tiny_run: Launched) -> None:
    energy = tiny_run.results["energy"]
    assert energy["kwh"] > 0 and energy["co2_g"] is None  # no shipped recipe states a grid
    span_g = [energy["kwh"] * grid["g_per_kwh"] for grid in energy["grids"]]
    assert energy["co2_span_g"] == pytest.approx(span_g)
    assert {"pretrain", "instruct-1", "instruct-2"} <= set(energy["by_stage"])
    assert sum(energy["by_stage"].values()) == pytest.approx(energy["kwh"], rel=1e-6)


def test_self_tests_ran_before_step_1(tiny_run: Launched) -> None:
    assert tiny_run.text.count("self-test:") == 4
    told, first, passed, step = map(
        tiny_run.text.index, ("self-tests: about ", "self-test:", "self-tests: passed, ", "step 1/30")
    )
    assert told < first < passed < step


def test_no_shared_memory_is_left_behind(tiny_run: Launched) -> None:
    assert tiny_run.port and not tiny_run.shared_buffers


def test_export_is_loaded_by_transformers_alone(tiny_run: Launched) -> None:
    script = (
        "import sys; from transformers import AutoModelForCausalLM as M, AutoTokenizer as T\n"
        "t = T.from_pretrained(sys.argv[1]); m = M.from_pretrained(sys.argv[1])\n"
        "i = t('دل می رود', return_tensors='pt')\n"
        "o = m.generate(**i, max_new_tokens=4, do_sample=False)\n"
        "assert 'persianmind' not in sys.modules\n"
        "print(m.config.vocab_size, len(t), o.shape[1] - i['input_ids'].shape[1])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tiny_run.run / "export")],
        capture_output=True,
        text=True,
        check=False,
        cwd=tiny_run.run,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[:2] == ["1424", "1424"]
    assert tiny_run.results["export"]["relative_loss_difference"] < 1e-4


def test_export_keeps_the_base_embeddings_bit_for_bit(tiny_run: Launched) -> None:
    from persianmind.model.bases import resolve_base

    base = load_file(resolve_base("random://llama") / "model.safetensors")
    merged = load_file(tiny_run.run / "export" / "model.safetensors")
    name = "model.embed_tokens.weight"
    assert (merged[name][:1024] == base[name]).all() and len(merged[name]) == 1424


def test_held_out_text_is_in_no_shard(tiny_run: Launched) -> None:
    """Counted by the builder, and seen by decoding: no held-out poem's first line is in the training data."""
    from tokenizers import Tokenizer

    from persianmind.data.read.dataset import TokenDataset
    from persianmind.recipe.loading import load_recipe
    from persianmind.text.corpus import training_texts
    from persianmind.text.heldout import held_out_fingerprints, read_held_out
    from persianmind.text.spec import source_specs

    folder = tiny_run.run / "heldout"
    held_out = [document.text for document in read_held_out(folder, "fa")]
    specs = source_specs(load_recipe("tiny"), ["poems"])
    trained = list(training_texts(specs, held_out_fingerprints(folder)))
    assert held_out and not set(held_out) & set(trained)
    tokenizer = Tokenizer.from_file(str(tiny_run.run / "vocab" / "tokenizer.json"))
    dataset = TokenDataset(tiny_run.run / "data" / "poems")
    packed = "".join(tokenizer.decode(dataset.sequence(i).input_ids.tolist()) for i in range(len(dataset)))
    assert dataset.manifest.documents_held_out > 0
    assert trained[0].splitlines()[0] in packed  # the search can find what is there
    assert not [text for text in held_out if text.splitlines()[0] in packed]


def test_the_same_command_says_that_all_is_done(tiny_run: Launched) -> None:
    before = {path: path.stat().st_mtime_ns for path in tiny_run.run.rglob("*") if path.is_file()}
    again = launch("--recipe", "tiny", "--output", str(tiny_run.run), ranks=2)
    assert again.code == 0 and "all done" in again.text
    after = {path: path.stat().st_mtime_ns for path in tiny_run.run.rglob("*") if path.is_file()}
    assert after == before


def test_another_recipe_is_refused_and_the_difference_named(tiny_run: Launched, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(tiny_run.run, run, ignore=shutil.ignore_patterns("checkpoints", "export"))
    refused = launch("--recipe", "tiny", "--output", str(run), "train.learning_rate=1e-3", ranks=2)
    assert refused.code != 0
    assert len(refused.errors) == 1 and "train.learning_rate=0.005" in refused.errors[0]


def test_verbs_report_json(tiny_run: Launched) -> None:
    run = str(tiny_run.run)
    for subcommand in (
        ["energy", "report", run],
        ["checkpoint", "list", run],
        ["checkpoint", "verify", run],
        ["data", "inspect", f"{run}/data/poems"],
        ["report", run],
        ["doctor", "tiny"],
        ["plan", "tiny", "--ranks", "2"],
    ):
        done = subprocess.run(
            [str(BIN / "persianmind"), *subcommand, "--json"],
            capture_output=True,
            text=True,
            check=False,
            cwd=ROOT,
        )
        assert done.returncode == 0, (subcommand, done.stderr)
        assert isinstance(json.loads(done.stdout), dict), subcommand
