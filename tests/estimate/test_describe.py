"""The arithmetic that a run logs before step 1."""

from __future__ import annotations

from persianmind.estimate.describe import describe_run
from persianmind.recipe.loading import load_recipe
from tests.estimate.models import tiny_model


def test_lines_add_up() -> None:
    recipe = load_recipe("tiny")
    model = tiny_model(False, "meta")
    trained = sum(value.numel() for value in model.trained().values())
    stages = [(stage, 10 * number) for number, stage in enumerate(recipe.stages, 1)]
    lines = list(describe_run(recipe, stages, model, 2))
    assert f"{trained:,} trained" in lines[0] and "vocabulary 100 + 10" in lines[0]
    per_step = recipe.train.global_batch_size * recipe.data.seq_len
    assert f"= {per_step:,} tokens per step (1 sequences x 2 micro-batches x 2 ranks)" in lines[1]
    for line, (stage, steps) in zip(lines[2:-1], stages, strict=True):
        assert line.startswith(f"stage {stage.name}: {steps} steps, {steps * per_step:,} tokens")
    assert lines[-1].startswith("memory per rank: weights 0.00 GB")


def test_a_stage_of_another_length_is_told_with_its_own_tokens() -> None:
    recipe = load_recipe("tiny", ["stages.1.seq_len=128"])
    lines = list(describe_run(recipe, [(stage, 10) for stage in recipe.stages], tiny_model(False, "meta"), 2))
    assert "batch: 4 sequences x 256 tokens = 1,024 tokens or 128 tokens = 512 tokens per step (" in lines[1]
    assert lines[2].startswith(
        "stage pretrain: 10 steps, 10,240 tokens from poems, messages, english; trains"
    )
    assert "instruct-1: 10 steps, 5,120 tokens from translate, english in sequences of 128; " in lines[3]
