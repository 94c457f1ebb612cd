"""The check before an export is called done: it loads by transformers alone and is the trained model, in its
token ids, its prompt, its loss, and in where it stops."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from persianmind.common.errors import ExportError
from persianmind.data.chat_form import ChatForm
from persianmind.data.read.batches import Batch
from persianmind.evaluate.text import held_out_sequences
from persianmind.language import run_profile
from persianmind.model.documents import model_inputs, to_device
from persianmind.model.loss import IGNORED
from persianmind.recipe import Recipe
from persianmind.run.folder import RunFolder
from persianmind.text.dialogue import Message
from persianmind.text.heldout import read_held_out
from persianmind.tokenizer import HARD_STRINGS, FolderTokenizer
from persianmind.vocab.expansion import load_expansion
from persianmind.vocab.foreign import english_prose, foreign_samples

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from persianmind.model.adapted import AdaptedModel

# Largest relative difference of the loss between the trained and the merged model: adding a delta to a bf16
# weight rounds it once more than keeping both apart.
TOLERANCE = {"float32": 1e-4, "bfloat16": 2e-2}
PIECES = 300  # new tokens that stand in for text of the language where a run holds none out
GENERATED = 3


def check_texts(recipe: Recipe, folder: RunFolder) -> list[str]:
    """Text of all languages: held-out text where the run has some, and always new tokens and English."""
    texts = [
        document.text
        for language in recipe.held_out_languages()
        for document in read_held_out(folder.heldout, language)
    ]
    pieces = load_expansion(folder.vocab).pieces[:PIECES]
    return [*texts, "".join(piece.text for piece in pieces), " ".join(english_prose(40))]


def check_batches(recipe: Recipe, folder: RunFolder) -> list[Batch]:
    """What losses are compared on: a sequence of held-out text of each language, else of `check_texts`."""
    by_language = [
        [document.text for document in read_held_out(folder.heldout, language)]
        for language in recipe.held_out_languages()
    ]
    groups = by_language or [[text] for text in check_texts(recipe, folder) if text]
    return [
        batch
        for texts in groups
        for batch in held_out_sequences(texts, folder.vocab, recipe.data.seq_len).sequences[:1]
    ]


def check_token_ids(export: Path, vocab: Path, texts: Sequence[str]) -> int:
    """Compares ids of whole texts by the exported folder's AutoTokenizer with those that training uses.

    Returns:
        How many texts were compared.

    Raises:
        ExportError: some text has other ids.
    """
    exported = _auto_tokenizer(export)
    texts = [*texts, *HARD_STRINGS, *foreign_samples()[:200]]
    expected = FolderTokenizer(vocab).encode(texts, parse_special=True)
    for text, ids in zip(texts, expected, strict=True):
        found = list(exported(text, add_special_tokens=False, verbose=False)["input_ids"])
        if found != ids:
            raise ExportError(
                f"{export}: its tokenizer gives other ids than the trained one for {text[:40]!r}; do not use "
                "it, and report the package versions"
            )
    return len(texts)


def check_prompts(export: Path, form: ChatForm, recipe: Recipe) -> int:
    """Compares prompts by the exported folder's own chat template, tokenised whole, with the trained form.

    Returns:
        How many dialogues were compared.

    Raises:
        ExportError: a prompt has other ids.
    """
    exported = _auto_tokenizer(export)
    dialogues = _dialogues(recipe)
    for messages in dialogues:
        turns = [{"role": one.role, "content": one.content} for one in messages]
        found = exported.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)
        if list(found) != form.prompt_ids(messages):
            raise ExportError(
                f"{export}: its chat template gives another prompt than the trained one; do not use it, and "
                "report the package versions"
            )
    return len(dialogues)


def trained_losses(model: AdaptedModel, batches: Sequence[Batch]) -> list[Tensor]:
    """Summed loss of each batch, on the model's device; nothing waits for it."""
    import torch

    model.eval()
    with torch.no_grad():
        return [model(**model_inputs(batch, model.output_table.base_VD.device)) for batch in batches]


def load_exported(export: Path, device: torch.device) -> Any:
    """The exported model by transformers alone, on a device, in evaluation mode."""
    from transformers import AutoModelForCausalLM

    options = {} if device.type == "cpu" else {"device_map": {"": device}}
    return AutoModelForCausalLM.from_pretrained(export, use_safetensors=True, **options).eval()


def exported_losses(
    exported: Any, batches: Sequence[Batch], device: torch.device, vocab_size: int
) -> list[Tensor]:
    """`trained_losses` by transformers alone. Ids from `vocab_size` on are padding: not in the softmax."""
    import torch

    losses = []
    for batch in batches:
        ids, positions, labels = (
            to_device(batch[name], device) for name in ("input_ids", "position_ids", "labels")
        )
        with torch.no_grad():
            logits = exported(input_ids=ids, position_ids=positions, use_cache=False).logits
        losses.append(
            torch.nn.functional.cross_entropy(
                logits[0, :, :vocab_size].float(), labels[0], ignore_index=IGNORED, reduction="sum"
            )
        )
    return losses


def largest_difference(expected: Sequence[float], found: Sequence[float]) -> float:
    """Largest relative difference, 0 where there is nothing to compare."""
    return max((abs(a - b) / abs(a) for a, b in zip(expected, found, strict=True)), default=0.0)


def check_stops(exported: Any, export: Path, form: ChatForm, device: torch.device) -> None:
    """Lets the model generate with the folder's own settings, made to say each end-of-turn id: it must stop.

    Raises:
        ExportError: generation goes on behind an end of turn.
    """
    import torch

    prompt_L = torch.tensor([form.prompt_ids([Message("user", "?")])], device=device)
    for token_id in form.end_of_turn_ids:
        with torch.no_grad():
            output = exported.generate(
                input_ids=prompt_L,
                attention_mask=torch.ones_like(prompt_L),
                max_new_tokens=GENERATED,
                logits_processor=[_Says(token_id)],
            )
        if output.shape[1] != prompt_L.shape[1] + 1:
            raise ExportError(f"{export}: generation does not stop at the end-of-turn id {token_id}")


class _Says:
    """A logits processor after which only one id is likely."""

    def __init__(self, token_id: int) -> None:
        self._token_id = token_id

    def __call__(self, input_ids: Tensor, scores_BV: Tensor) -> Tensor:
        scores_BV = scores_BV.clone()
        scores_BV[:, self._token_id] = scores_BV.max() + 100.0
        return scores_BV


def _auto_tokenizer(export: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(export, local_files_only=True, trust_remote_code=False)


def _dialogues(recipe: Recipe) -> list[list[Message]]:
    """One and two turns, with and without a system message, of the recipe's prompts and of our own."""
    probes = run_profile(recipe).probes
    ours = [*probes.spaces[:1], *probes.joined_words[:1], "Hello", "1 + 2 = ?"]
    found: list[list[Message]] = []
    for question in [*recipe.evaluate.prompts[:4], *ours]:
        one = [Message("user", question.strip() or "?")]
        found += [one, [*one, Message("assistant", "4"), *one]]
    return found
