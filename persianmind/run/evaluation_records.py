"""What an evaluation gives: scores on held-out text, results of suites, and published ones beside them.

Every value says how sure it is: `ci_low` and `ci_high` bound a 95% interval, None where none can be given
(one document, a count of another program).
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from persianmind.run.record import RunRecord


class EvaluationResult(RunRecord):
    """The score of one stage on the held-out text of one language.

    ci_low, ci_high: of bits_per_byte, by bootstrap over documents. perplexity: per token of `tokenizer` (a
    fingerprint); it compares with nothing that another tokenizer gave. step: of a score within a stage; None
    at its end.
    """

    stage: str
    language: str
    bits_per_byte: float
    ci_low: float | None = None
    ci_high: float | None = None
    n_documents: int
    n_bytes: int
    n_tokens: int
    n_characters: int = 0
    n_words: int = 0
    bits_per_character: float | None = None
    bits_per_word: float | None = None
    perplexity: float | None = None
    tokenizer: str = ""
    step: int | None = None


class Comparison(RunRecord):
    """The same items by a second model. difference: first minus second, its interval beside it.

    test: how `p_value` was found ("mcnemar", "paired permutation", "paired bootstrap").
    """

    model: str
    value: float
    difference: float
    ci_low: float | None = None
    ci_high: float | None = None
    test: str
    p_value: float | None


class SuiteResult(RunRecord):
    """One metric of one task.

    n: items it is over. chance: what guessing gives; None where guessing means nothing. settings: everything
    that the value depends on, and what was counted on the way. prompt_hash: of the prompt's form and its
    examples. data_sha256: of the files it is from. seconds, joules: of the whole task, the same in each of
    its metrics; joules None where no meter ran. stage, step: of a run's own evaluation.
    """

    suite: str
    task: str
    metric: str
    value: float | None
    ci_low: float | None = None
    ci_high: float | None = None
    n: int
    chance: float | None = None
    settings: dict[str, Any] = Field(default_factory=dict)
    model: str = ""
    model_fingerprint: str = ""
    prompt_hash: str = ""
    data_sha256: str = ""
    seconds: float = 0.0
    joules: float | None = None
    stage: str = ""
    step: int | None = None
    against: Comparison | None = None
    origin: Literal["measured here"] = "measured here"


class NotRun(RunRecord):
    """A task without data: which file is looked for, where it comes from, under which licence."""

    suite: str
    task: str
    reason: str


class PublishedScore(RunRecord):
    """A figure that somebody else published; never measured here."""

    suite: str
    task: str
    metric: str
    value: float
    model: str
    source: str
    origin: Literal["published"] = "published"


class NewTokens(RunRecord):
    """How the new embeddings fare at the end of a stage; the tokens themselves are in a file of their own.

    dead: seen fewer than `min_seen` times and not moved. loss_ratio: of the held-out loss that falls on new
    tokens; token_ratio: of the held-out tokens that are new. moved: median distance from the initial value
    over that value's norm, of all and of the dead.
    """

    stage: str
    n: int
    seen: int
    dead: int
    min_seen: int
    median_seen: float
    moved: float
    loss_ratio: float | None = None
    token_ratio: float | None = None
    file: str = ""
