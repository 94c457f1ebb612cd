"""Exports of a finished run: from its checkpoints, checked before they appear; planted faults are refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from gguf import GGUFReader
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from persianmind.cli import app
from persianmind.common.errors import CheckpointError, ExportError, PersianMindError
from persianmind.model.export.hf import ExportSettings, write_merged
from persianmind.publish import export as export_module
from persianmind.publish.export import chat_form, check_export, export_model, reference_losses
from persianmind.publish.manifest import read_export_manifest
from persianmind.publish.sweep import ScaleScore, best_scale, english_of_base
from persianmind.publish.weights import TrainedRun, read_trained_run
from persianmind.run.folder import RunFolder
from persianmind.run.log import read_results, update_results
from tests.support.launch import Launched

pytestmark = pytest.mark.integration

CPU = torch.device("cpu")
FP32 = ExportSettings("float32")


@pytest.fixture(scope="module")
def run(tiny_run: Launched) -> TrainedRun:
    return read_trained_run(RunFolder(tiny_run.run))


@pytest.fixture(scope="module")
def exported(run: TrainedRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `persianmind export` writes, in fp32."""
    out = tmp_path_factory.mktemp("export") / "model"
    done = CliRunner().invoke(
        app, ["export", str(run.folder), "--out", str(out), "--dtype", "float32", "--json"]
    )
    assert done.exit_code == 0, done.output
    facts = json.loads(done.output)
    assert facts["step"] == run.step and facts["check"]["relative_loss_difference"] < 1e-6
    return out


def test_the_newest_checkpoint_gives_the_weights_that_the_run_itself_exported(
    run: TrainedRun, tmp_path: Path
) -> None:
    settings = ExportSettings(run.recipe.export.dtype, run.recipe.export.pad_vocab_to_multiple)
    export_model(run, tmp_path / "out", reference_losses(run, CPU), CPU, settings)
    theirs, ours = (
        load_file(folder / "model.safetensors") for folder in (run.folder.export, tmp_path / "out")
    )
    assert theirs.keys() == ours.keys()
    assert all(torch.equal(value, ours[name]) for name, value in theirs.items())


def test_a_folder_says_what_it_holds(run: TrainedRun, exported: Path) -> None:
    manifest = read_export_manifest(exported)
    assert (manifest.kind, manifest.recipe, manifest.stage) == ("hf", "tiny", run.stage)
    assert {"config.json", "model.safetensors", "tokenizer.json", "README.md"} <= manifest.files.keys()
    assert {path.name for path in exported.iterdir()} == {*manifest.files, "manifest.json"}
    vocab = run.folder.vocab
    assert (exported / "tokenizer.json").read_bytes() == (vocab / "tokenizer.json").read_bytes()


def test_an_older_checkpoint(run: TrainedRun, tmp_path: Path) -> None:
    steps = sorted(int(path.name.split("-")[1]) for path in run.folder.checkpoints.glob("step-*"))
    older = read_trained_run(run.folder, str(steps[0]))
    assert older.step == steps[0] < run.step
    assert not torch.equal(*(next(iter(one.weights.tensors.values())) for one in (older, run)))


def flip_rows(folder: Path, name: str) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors[name] = tensors[name].flip(0).contiguous()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def swap_pieces(folder: Path) -> None:
    """Two new tokens change places, in a tokenizer that is otherwise sound."""
    path = folder / "tokenizer.json"
    tree = json.loads(path.read_text(encoding="utf-8"))
    vocab = tree["model"]["vocab"]
    one, other = sorted(vocab, key=vocab.__getitem__)[-2:]
    vocab[one], vocab[other] = vocab[other], vocab[one]
    path.write_text(json.dumps(tree), encoding="utf-8")


def other_template(folder: Path) -> None:
    path = folder / "tokenizer_config.json"
    tree = json.loads(path.read_text(encoding="utf-8"))
    tree["chat_template"] = tree["chat_template"].replace("PersianMind:", "Assistant:")
    path.write_text(json.dumps(tree), encoding="utf-8")
    (folder / "chat_template.jinja").write_text(tree["chat_template"], encoding="utf-8")


def no_end_of_turn(folder: Path) -> None:
    for name in ("generation_config.json", "config.json"):
        path = folder / name
        tree = json.loads(path.read_text(encoding="utf-8"))
        tree["eos_token_id"] = 5
        path.write_text(json.dumps(tree), encoding="utf-8")


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (lambda folder: flip_rows(folder, "model.layers.1.mlp.down_proj.weight"), "its loss differs"),
        (lambda folder: flip_rows(folder, "lm_head.weight"), "its loss differs"),
        (swap_pieces, "other ids"),
        (other_template, "another prompt"),
        (no_end_of_turn, "does not stop"),
    ],
    ids=["a weight", "the head", "tokenizer", "template", "end of turn"],
)
def test_planted_faults_are_refused(
    run: TrainedRun, exported: Path, tmp_path: Path, fault: Callable[[Path], None], message: str
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(exported, folder)
    reference = reference_losses(run, CPU)
    arguments: Any = (run, folder, chat_form(run), reference, CPU, FP32)
    check_export(*arguments)
    fault(folder)
    with pytest.raises(ExportError, match=message):
        check_export(*arguments)


def test_nothing_appears_where_the_check_fails(
    run: TrainedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(folder: Path, *rest: Any) -> None:
        write_merged(folder, *rest)
        flip_rows(folder, "model.norm.weight")
        flip_rows(folder, "lm_head.weight")

    monkeypatch.setattr(export_module, "write_merged", write)
    with pytest.raises(ExportError, match="does not match the trained model"):
        export_model(run, tmp_path / "out", reference_losses(run, CPU), CPU, FP32)
    assert not list(tmp_path.iterdir())


def test_without_held_out_text_there_is_a_check_all_the_same(run: TrainedRun, exported: Path) -> None:
    blind = run.recipe.model_copy(update={"heldout": run.recipe.heldout.model_copy(update={"sources": []})})
    reference = reference_losses(replace(run, recipe=blind), CPU)
    assert len(reference.batches) == 2  # new tokens, and English
    result = check_export(run, exported, chat_form(run), reference, CPU, FP32)
    assert result.relative_loss_difference < 1e-6


def test_padding_takes_no_part_in_the_softmax_of_the_check(run: TrainedRun, tmp_path: Path) -> None:
    settings = ExportSettings("float32", pad_vocab_to_multiple=512)
    result = export_model(run, tmp_path / "out", reference_losses(run, CPU), CPU, settings)
    assert result.relative_loss_difference < 1e-6
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["vocab_size"] % 512 == 0 and config["vocab_size"] > run.expansion.size


def test_adapter_by_plain_peft(run: TrainedRun, tmp_path: Path) -> None:
    out = tmp_path / "adapter"
    done = CliRunner().invoke(app, ["export", str(run.folder), "--out", str(out), "--format", "adapter"])
    assert done.exit_code == 0, done.output
    assert "checked: loss within" in done.output
    config = json.loads((out / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] is None  # random:// has no Hub id, and no path of this machine
    assert {"adapter_model.safetensors", "tokenizer.json", "manifest.json"} <= {p.name for p in out.iterdir()}


def test_gguf_without_a_folder_of_weights_between(run: TrainedRun, tmp_path: Path) -> None:
    command = ["export", str(run.folder), "--out", str(tmp_path / "gguf"), "--format", "gguf"]
    refused = CliRunner().invoke(app, command)  # a tokenizer of our own: llama.cpp has no name for it
    assert isinstance(refused.exception, PersianMindError) and "--pre-tokenizer" in str(refused.exception)
    assert not list(tmp_path.iterdir())
    done = CliRunner().invoke(app, [*command, "--pre-tokenizer", "gpt-2", "--dtype", "f32"])
    assert done.exit_code == 0, done.output
    names = {path.name for path in (tmp_path / "gguf").iterdir()}
    assert names >= {"tiny-f32.gguf", "tiny-f32.Modelfile", "README.md", "manifest.json"}
    assert read_export_manifest(tmp_path / "gguf").kind == "gguf"
    reader = GGUFReader(tmp_path / "gguf" / "tiny-f32.gguf")
    embeddings = next(one for one in reader.tensors if one.name == "token_embd.weight")
    merged = load_file(run.folder.export / "model.safetensors")["model.embed_tokens.weight"]
    assert torch.equal(torch.from_numpy(embeddings.data.copy()), merged)


def test_4_bit_base_is_merged_in_16_bits_and_both_losses_are_stated(run: TrainedRun, tmp_path: Path) -> None:
    train = run.recipe.train.model_copy(update={"quantize": "nf4"})
    over_nf4 = replace(run, recipe=run.recipe.model_copy(update={"train": train}))
    result = export_model(over_nf4, tmp_path / "out", reference_losses(over_nf4, CPU), CPU, FP32)
    assert result.relative_loss_difference < 1e-6  # to the same adapters over the 16-bit base
    losses = result.losses
    assert losses["exported"] == pytest.approx(losses["unquantized"], rel=1e-6)
    assert abs(losses["trained"] - losses["unquantized"]) > 1e-4  # what 4 bits cost
    assert read_export_manifest(tmp_path / "out").check == result


def test_a_run_that_ended_early_gives_a_model_that_says_so(run: TrainedRun, tmp_path: Path) -> None:
    """As a budget, Ctrl-C or a deadline leaves it: some checkpoints, no export, not finished."""
    copy = RunFolder(tmp_path / "run")
    shutil.copytree(run.folder.path, copy.path, ignore=shutil.ignore_patterns("export"))
    update_results(copy, finished=False, samples=[])
    shutil.rmtree(copy.checkpoints / f"step-{run.step}")
    command = ["export", str(copy), "--out", str(tmp_path / "model"), "--dtype", "float32"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    step = read_export_manifest(tmp_path / "model").step
    assert step < run.step
    card = (tmp_path / "model" / "README.md").read_text(encoding="utf-8")
    assert f"checkpoint of step {step}" in card and "model-index" not in card


def test_sweep_names_a_scale(run: TrainedRun) -> None:
    command = ["export", str(run.folder), "--sweep", "0.5,1.0", "--json", "--max-english-loss", "5"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    found = json.loads(done.output)
    by_scale = {one["scale"]: one["bits_per_byte"]["fa"] for one in found["scores"]}
    assert found["best"] == min(by_scale, key=by_scale.__getitem__) and len(set(by_scale.values())) == 2
    last = [one for one in read_results(run.folder).evaluation if one.stage == run.stage]
    as_scored = {one.language: one.bits_per_byte for one in last}
    assert found["scores"][1]["bits_per_byte"] == pytest.approx(as_scored, rel=1e-5)


def test_the_scale_that_is_named_keeps_english(run: TrainedRun) -> None:
    base = english_of_base(run)
    assert base is not None
    scores = [
        ScaleScore(scale, {"fa": 3.0 - scale, "en": base + rise})
        for scale, rise in ((0.5, 0.01), (0.8, 0.02), (1.0, 0.05))
    ]
    for allowed, expected in ((0.1, 1.0), (0.03, 0.8), (0.015, 0.5)):
        best = best_scale(run, scores, allowed)
        assert best is not None and best.scale == expected
    assert best_scale(run, scores, 0.0) is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "{tmp}"], "exists; give another --out"),
        ([], "give --out DIR to write a model"),
        (["--out", "{tmp}/new", "--format", "onnx"], "give hf, adapter or gguf"),
        (["--out", "{tmp}/new", "--dtype", "int3"], "--format hf knows bfloat16, float32"),
        (["--out", "{tmp}/new", "--checkpoint", "123456"], "has no checkpoint '123456'; it has: step-"),
        (["--sweep", "one"], "give scales between 0 and 100"),
        (["--out", "{tmp}/new", "--device", "gpu7"], "give cpu, cuda or cuda:1"),
    ],
)
def test_mistakes_are_one_line_and_write_nothing(
    run: TrainedRun, tmp_path: Path, arguments: list[str], message: str
) -> None:
    command = ["export", str(run.folder), *(part.format(tmp=tmp_path) for part in arguments)]
    done = CliRunner().invoke(app, command)
    assert isinstance(done.exception, PersianMindError) and message in str(done.exception)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(PersianMindError, match="no run folder"):
        read_trained_run(RunFolder(tmp_path / "none"))


def test_a_run_without_checkpoints_and_one_whose_newest_is_damaged(run: TrainedRun, tmp_path: Path) -> None:
    copy = RunFolder(tmp_path / "run")
    shutil.copytree(run.folder.path, copy.path)
    newest = max(copy.checkpoints.glob("step-*"), key=lambda path: int(path.name.split("-")[1]))
    victim = next(newest.rglob("*optim_states.pt"))
    victim.write_bytes(victim.read_bytes()[:-1] + b"x")
    assert read_trained_run(copy).step < run.step
    with pytest.raises(CheckpointError, match=victim.name):
        read_trained_run(copy, newest.name)
    shutil.rmtree(copy.checkpoints)
    with pytest.raises(CheckpointError, match="has no checkpoint yet"):
        read_trained_run(copy)
