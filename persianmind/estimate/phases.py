"""The seconds of a whole run: its steps, and everything that it does beside them.

Fixed seconds were measured with the tiny recipe, whose own work takes none, on two CPU cores
(docs/gpus.md).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

from persianmind.recipe import Recipe

DISK_BYTES_PER_S = 200e6  # weights are read, converted, hashed and synced at, not only moved
PREPARE_S = 30.0  # held-out text, vocabulary and first sequences of a small corpus; a large one takes longer
START_S = 20.0  # imports, process group, opening the engine twice
EVALUATE_S = 0.5  # meeting at each score
EXPORT_S = 2.0  # account, report, card
SELF_TEST_MICRO_BATCHES = 4.0  # isolation and its control, the trial of deterministic kernels, gradients
SELF_TEST_S = 2.0  # an engine opened and closed
SELF_TEST_FORWARDS = 10.0  # over the sample: ours once, then ours and the base's own twice with gradients
SAVE_S = 0.1  # the snapshot that a step waits for; writing goes on beside training
EXPORT_PASSES = 4.0  # over all weights: read, merged and written, hashed, read again
CHECKED_MODELS = 2  # the trained and the exported one score a sequence of each language, on one rank


@dataclass(frozen=True, slots=True)
class Phases:
    """Seconds, by what they are spent on."""

    prepare_s: float
    start_s: float
    steps_s: float
    evaluation_s: float
    samples_s: float
    checkpoints_s: float
    export_s: float

    @property
    def total_s(self) -> float:
        """All of them."""
        return float(sum(asdict(self).values()))

    @property
    def beside_s(self) -> float:
        """All but the steps."""
        return self.total_s - self.steps_s


def generated_tokens(recipe: Recipe) -> int:
    """Tokens of the samples of one stage, at most."""
    return len(recipe.evaluate.prompts) * recipe.evaluate.max_new_tokens


def saves(recipe: Recipe, steps: int) -> int:
    """Checkpoints of a run of this many steps: at the interval, and at the end of each stage."""
    return steps // recipe.checkpoint.every_steps + len(recipe.stages)


def evaluations_within(recipe: Recipe, steps: int) -> int:
    """Evaluations on the way of a run of this many steps, at most: some fall on the end of a stage."""
    every_steps = recipe.evaluate.every_steps
    return 0 if every_steps is None else steps // every_steps


def export_s(
    recipe: Recipe, *, weight_bytes: float, bytes_per_s: float, rank_token_s: float, sample_s: float
) -> float:
    """Seconds from the last evaluation to the end of the run.

    Args:
        weight_bytes: of the exported model.
        bytes_per_s: at which weights are read, merged and written.
        rank_token_s: of one token that one rank alone scores.
        sample_s: of the samples of one stage.
    """
    if not recipe.export.enabled:
        return EXPORT_S
    checked = CHECKED_MODELS * max(1, len(recipe.held_out_languages())) * recipe.data.seq_len
    written_s = EXPORT_PASSES * weight_bytes / bytes_per_s
    return EXPORT_S + written_s + checked * rank_token_s + sample_s


def self_tests_s(token_s: float, sample_tokens: int, micro_batch_tokens: int, passes: float) -> float:
    """Seconds of the self-tests of a rank.

    Args:
        token_s: of one token that goes forward through the base.
        sample_tokens: of what the forward test goes over. passes: of a step, in forward passes.
    """
    forwards = SELF_TEST_FORWARDS * sample_tokens + SELF_TEST_MICRO_BATCHES * passes * micro_batch_tokens
    return SELF_TEST_S + forwards * token_s


def run_phases(
    recipe: Recipe,
    *,
    steps_s: float,
    steps: int,
    micro_batch_s: float,
    rank_token_s: float,
    ranks: int,
    held_out_tokens: float,
    generated_token_s: float,
    weight_bytes: float,
    bytes_per_s: float,
) -> Phases:
    """The phases of a run that was not begun.

    Args:
        steps_s, steps: of all stages.
        micro_batch_s: forward and backward of one micro-batch on one rank.
        rank_token_s: of one token that one rank scores.
        held_out_tokens: what one evaluation scores.
        generated_token_s: of one token of a sample.
        weight_bytes, bytes_per_s: of the base, and of the disk it is read from.
    """
    evaluations = 1 + len(recipe.stages)  # of the untouched base as well
    sample_s = generated_tokens(recipe) * generated_token_s
    tests = SELF_TEST_MICRO_BATCHES * micro_batch_s if recipe.train.self_tests else 0.0
    return Phases(
        prepare_s=PREPARE_S,
        start_s=START_S + weight_bytes / bytes_per_s + tests,
        steps_s=steps_s,
        evaluation_s=(evaluations + evaluations_within(recipe, steps))
        * (EVALUATE_S + held_out_tokens * rank_token_s / ranks),
        samples_s=evaluations * sample_s,
        checkpoints_s=saves(recipe, steps) * SAVE_S,
        export_s=export_s(
            recipe,
            weight_bytes=weight_bytes,
            bytes_per_s=bytes_per_s,
            rank_token_s=rank_token_s,
            sample_s=sample_s,
        ),
    )
