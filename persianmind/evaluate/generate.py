"""Greedy generation from token ids on a live causal LM: one that transformers loaded, or an `AdaptedModel`'s.

Shape legend: V vocabulary, L tokens of the prompt.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from persianmind.model.export.config import REPETITION_PENALTY

UNFINISHED = "\ufffd"  # what decoders write for bytes that are no character (yet)


@contextlib.contextmanager
def generation_mode(causal_lm: Any) -> Iterator[None]:
    """The model as it generates, and afterwards exactly as it was before.

    Without dropout. With transformers' own attention: packed attention wants whole documents and knows no
    cache. Without compiled layers, which every new length would compile again, and without torch's strict
    mode, which was tried on a training step and not on this.

    Args:
        causal_lm: a transformers ...ForCausalLM.
    """
    attention, training = causal_lm.config._attn_implementation, causal_lm.training
    strictness = torch.get_deterministic_debug_mode()
    # A soft-cap is in transformers' eager attention alone.
    softcap = getattr(causal_lm.config, "attn_logit_softcapping", None)
    causal_lm.set_attn_implementation("sdpa" if softcap is None else "eager")
    causal_lm.eval()
    torch.set_deterministic_debug_mode("default")
    try:
        with torch.compiler.set_stance("force_eager"):
            yield
    finally:
        torch.set_deterministic_debug_mode(strictness)
        causal_lm.train(training)
        causal_lm.set_attn_implementation(attention)


def stream_ids(
    causal_lm: Any,
    prompt_ids: Sequence[int],
    *,
    max_new_tokens: int,
    stop_ids: Collection[int],
    vocab_size: int | None = None,
    repetition_penalty: float = REPETITION_PENALTY,
) -> Iterator[int]:
    """The likeliest next token, again and again, each as soon as it is known.

    Logits of tokens that already stand in prompt or answer are moved away from the token by
    `repetition_penalty` (Keskar et al. 2019, arXiv 1909.05858), as transformers does it.

    Args:
        causal_lm: within `generation_mode`.
        prompt_ids: at least one.
        stop_ids: the answer ends before the first of these.
        vocab_size: ids from here on are never chosen; None: all that the model has logits for.

    Yields:
        Token ids of the answer, without the one it stopped at.
    """
    device = causal_lm.device
    ids_1L = torch.tensor([list(prompt_ids)], device=device)
    seen_V: Tensor | None = None
    cache, length = None, 0
    for _ in range(max_new_tokens):
        positions_1L = torch.arange(length, length + ids_1L.shape[1], device=device).unsqueeze(0)
        # Not inference mode: what a model keeps for itself at its first pass must be of use in training.
        with torch.no_grad():
            output = causal_lm(
                input_ids=ids_1L,
                position_ids=positions_1L,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
        cache, length = output.past_key_values, length + ids_1L.shape[1]
        logits_V = output.logits[0, -1, :vocab_size].float()
        if seen_V is None:
            seen_V = torch.zeros_like(logits_V, dtype=torch.bool)
        seen_V[ids_1L[0]] = True
        moved_V = torch.where(logits_V < 0, logits_V * repetition_penalty, logits_V / repetition_penalty)
        token = int(torch.where(seen_V, moved_V, logits_V).argmax())
        if token in stop_ids:
            return
        yield token
        ids_1L = torch.tensor([[token]], device=device)


def stream_text(ids: Iterable[int], decode: Callable[[Sequence[int]], str]) -> Iterator[str]:
    """Token ids as pieces of text as they come; joined they are the whole text, without space around it.

    Held back until what follows is known: the bytes of a character that is not whole yet, and space, which
    may be the end.

    Args:
        decode: token ids to text.

    Yields:
        Pieces, none of them empty.
    """
    collected: list[int] = []
    shown = text = ""
    for token in ids:
        collected.append(token)
        text = decode(collected).strip()
        sure = text.rstrip(UNFINISHED).rstrip()
        # Some decoders show a whole run of byte tokens as unknown while its last character is not whole.
        if sure.startswith(shown) and len(sure) > len(shown):
            yield sure[len(shown) :]
            shown = sure
    if text.startswith(shown) and len(text) > len(shown):
        yield text[len(shown) :]
