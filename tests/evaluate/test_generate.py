"""Generation against transformers called directly, against training's own forward pass, and as a stream."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._dynamo.utils
from transformers import AutoModelForCausalLM, AutoTokenizer, Gemma2Config, Gemma2ForCausalLM

from persianmind.evaluate.generate import generation_mode, stream_ids, stream_text
from persianmind.model.adapted import AdaptedModel, build_adapted
from persianmind.model.bases import resolve_base
from persianmind.model.compiling import compile_layers
from persianmind.recipe.loading import load_recipe
from persianmind.tokenizer import FolderTokenizer

# The last one is long: in what follows, tokens that stood there would come again.
PROMPTS = ["The import system", "for x in range(10):", "دل می‌رود ز دستم", "class A: pass\n" * 30]
NEW_TOKENS = 12
PIECES = [(5, 6), (300, 301, 302), (40,), (900, 17)]


@pytest.fixture(scope="module")
def base() -> Path:
    return resolve_base("random://llama")


@pytest.fixture(scope="module")
def prompts(base: Path) -> list[list[int]]:
    return FolderTokenizer(base).encode(PROMPTS)


@pytest.fixture(scope="module")
def plain(base: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(base)


@pytest.fixture(scope="module")
def adapted(base: Path) -> AdaptedModel:
    """With adapters and new embeddings that change what is written, in training mode."""
    recipe = load_recipe("tiny", ["adapter.dropout=0.5"])
    model = build_adapted(base, recipe, PIECES, 1024)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for value in model.trained().values():
            value.add_(0.5 * torch.randn(value.shape, generator=generator))
    model.train()
    return model


def generated(model: Any, prompt: Sequence[int], **options: Any) -> list[int]:
    settings: dict[str, Any] = {"max_new_tokens": NEW_TOKENS, "stop_ids": {1}, **options}
    with generation_mode(model):
        return list(stream_ids(model, prompt, **settings))


def by_transformers(model: Any, prompt: Sequence[int], **options: Any) -> list[int]:
    """transformers' own loop, without the stop id at the end."""
    settings = {"repetition_penalty": 1.1, "eos_token_id": 1, **options}
    ids = model.generate(
        input_ids=torch.tensor([list(prompt)]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        max_new_tokens=NEW_TOKENS,
        do_sample=False,
        num_beams=1,
        pad_token_id=1,
        **settings,
    )[0, len(prompt) :].tolist()
    stop = ids.index(settings["eos_token_id"]) if settings["eos_token_id"] in ids else len(ids)
    return [int(one) for one in ids[:stop]]


def test_equals_transformers_called_directly(plain: Any, prompts: list[list[int]]) -> None:
    found = [generated(plain, prompt) for prompt in prompts]
    assert found == [by_transformers(plain, prompt) for prompt in prompts]
    assert all(len(ids) == NEW_TOKENS for ids in found) and len(set(map(tuple, found))) == len(PROMPTS)
    # The penalty of the paper shows in these texts: without it others come.
    assert found != [by_transformers(plain, prompt, repetition_penalty=1.0) for prompt in prompts]


def test_it_stops_before_a_stop_id_and_after_the_longest_answer(plain: Any, prompts: list[list[int]]) -> None:
    whole = generated(plain, prompts[0])
    stop = whole[4]
    assert generated(plain, prompts[0], stop_ids={1, stop}) == whole[: whole.index(stop)]
    assert generated(plain, prompts[0], max_new_tokens=3) == whole[:3]
    assert generated(plain, prompts[0]) == by_transformers(plain, prompts[0], eos_token_id=1)
    assert whole[: whole.index(stop)] == by_transformers(plain, prompts[0], eos_token_id=stop)


def test_a_model_in_training_generates_what_training_computes(
    adapted: AdaptedModel, prompts: list[list[int]]
) -> None:
    """Against the packed path, all of it computed again for each token: no cache, no switched attention."""
    found = [generated(adapted.causal_lm, prompt) for prompt in prompts[:3]]
    assert found == [by_packed_path(adapted, prompt) for prompt in prompts[:3]]
    assert max(map(max, found)) >= 1024  # new tokens too


def by_packed_path(model: AdaptedModel, prompt: Sequence[int]) -> list[int]:
    ids = list(prompt)
    causal_lm: Any = model.causal_lm
    model.eval()
    while len(ids) < len(prompt) + NEW_TOKENS:
        with torch.no_grad():
            hidden = model.hidden_states(torch.tensor([ids]), torch.arange(len(ids)).unsqueeze(0))
            logits = causal_lm.get_output_embeddings()(hidden[0, -1])
        for seen in set(ids):
            logits[seen] = logits[seen] / 1.1 if logits[seen] > 0 else logits[seen] * 1.1
        ids.append(int(logits.argmax()))
        if ids[-1] == 1:
            ids.pop()
            break
    model.train()
    return ids[len(prompt) :]


def test_ids_beyond_the_vocabulary_are_never_chosen(adapted: AdaptedModel, prompts: list[list[int]]) -> None:
    for prompt in prompts:
        assert max(generated(adapted.causal_lm, prompt, vocab_size=1024)) < 1024


def test_the_model_is_afterwards_as_it_was(adapted: AdaptedModel, prompts: list[list[int]]) -> None:
    causal_lm: Any = adapted.causal_lm
    torch.use_deterministic_algorithms(True)
    try:
        before = causal_lm.config._attn_implementation
        assert before.startswith("persianmind")
        with pytest.raises(RuntimeError, match="stopped"), generation_mode(causal_lm):
            assert causal_lm.config._attn_implementation == "sdpa" and not causal_lm.training
            assert not torch.are_deterministic_algorithms_enabled()
            raise RuntimeError("stopped")
        assert causal_lm.config._attn_implementation == before and causal_lm.training
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)


def test_training_goes_on_to_the_bit_after_generation(base: Path, prompts: list[list[int]]) -> None:
    """Loss and gradients of a step with dropout, with and without an answer before it."""

    def step(*, with_answer: bool) -> list[torch.Tensor]:
        model = build_adapted(base, load_recipe("tiny", ["adapter.dropout=0.1"]), PIECES, 1024)
        model.train()
        torch.manual_seed(3)
        if with_answer:
            assert generated(model.causal_lm, prompts[0])
        ids = torch.arange(40).unsqueeze(0)
        loss = model(ids, ids, ids + 1)
        loss.backward()
        gradients = [one.grad for one in model.trained().values() if one.grad is not None]
        return [loss.detach(), *gradients]

    pairs = list(zip(step(with_answer=False), step(with_answer=True), strict=True))
    assert len(pairs) > 5 and all(torch.equal(*pair) for pair in pairs)


def test_compiled_layers_are_not_compiled_for_every_length(base: Path, prompts: list[list[int]]) -> None:
    model = build_adapted(base, load_recipe("tiny"), PIECES, 1024)
    plain = generated(model.causal_lm, prompts[0])
    compile_layers(model.causal_lm)
    torch._dynamo.utils.counters.clear()
    assert generated(model.causal_lm, prompts[0]) == plain
    assert not torch._dynamo.utils.counters["frames"]


def test_a_base_with_a_soft_cap_generates_as_transformers_does() -> None:
    torch.manual_seed(0)
    config = Gemma2Config(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        attn_logit_softcapping=2.0,
        sliding_window=8,
    )
    model = Gemma2ForCausalLM._from_config(config, attn_implementation="eager").eval()
    prompt = list(range(2, 22))  # longer than the window
    assert generated(model, prompt) == by_transformers(model, prompt)


HARD = ["سلام دنیا", " می‌روم. ", "🙂👩‍👩‍👧‍👦 é", "x = 1\n\n  y", "\n", "٪۵۰ – «گیومه»", "\ufffd\ufffdx"]


@pytest.mark.parametrize("text", HARD)
def test_pieces_joined_are_the_text_and_no_character_is_cut(base: Path, text: str) -> None:
    """The base splits Persian letters and emoji into single bytes."""
    tokenizer = FolderTokenizer(base)
    ids = tokenizer.encode([text])[0]
    pieces = list(stream_text(ids, tokenizer.decode))
    assert "".join(pieces) == text.strip() and all(pieces)
    assert "\ufffd" in text or not any("\ufffd" in piece for piece in pieces)
    whole = AutoTokenizer.from_pretrained(base).decode(ids, clean_up_tokenization_spaces=False)
    assert "".join(pieces) == whole.strip()


def test_text_comes_while_ids_still_do(base: Path) -> None:
    tokenizer = FolderTokenizer(base)
    taken: list[int] = []

    def ids() -> Iterator[int]:
        for one in tokenizer.encode(["The import system of Python"])[0]:
            taken.append(one)
            yield one

    pieces = stream_text(ids(), tokenizer.decode)
    assert next(pieces) and len(taken) == 1


def test_an_answer_that_ends_within_a_character_ends_with_what_decoders_show(base: Path) -> None:
    tokenizer = FolderTokenizer(base)
    ids = tokenizer.encode(["ab🙂"])[0][:-1]
    assert "".join(stream_text(ids, tokenizer.decode)) == "ab\ufffd" == tokenizer.decode(ids)


def test_a_decoder_that_shows_a_whole_run_of_bytes_as_unknown_takes_nothing_back() -> None:
    """SentencePiece's: while the second letter is one byte, the first shows as unknown again."""
    shown = {1: "\ufffd", 2: "س", 3: "\ufffd\ufffd\ufffd", 4: "سل"}
    pieces = list(stream_text([1, 2, 3, 4], lambda ids: shown[len(ids)]))
    assert pieces == ["س", "ل"]
