"""Scores of a run at several adapter scales: how much of what was learnt to keep, against English lost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from persianmind.common.errors import ExportError
from persianmind.data.read.batches import Batch
from persianmind.evaluate.text import Floats, HeldOutSequences, held_out_sequences, score
from persianmind.language import target_language
from persianmind.model.documents import model_inputs
from persianmind.publish.weights import TrainedRun, adapted_model, set_adapter_scale
from persianmind.run.log import read_results
from persianmind.run.records import BASE_STAGE
from persianmind.text.heldout import read_held_out

if TYPE_CHECKING:
    import torch

    from persianmind.model.adapted import AdaptedModel

ENGLISH = "en"


@dataclass(frozen=True, slots=True)
class ScaleScore:
    """bits_per_byte: by language, on the run's held-out text."""

    scale: float
    bits_per_byte: Mapping[str, float]


def sweep_scales(run: TrainedRun, scales: Sequence[float], device: torch.device) -> list[ScaleScore]:
    """Scores each adapter scale over the 16-bit base; one model is loaded.

    Raises:
        ExportError: the run holds no text out.
    """
    languages = run.recipe.held_out_languages()
    if not languages:
        raise ExportError(
            f"{run.folder} holds no text out to score scales on; begin another --output with heldout.sources"
        )
    held_out = {language: _held_out(run, language) for language in languages}
    model = adapted_model(run, device, quantized=False)
    scores = []
    for scale in scales:
        set_adapter_scale(model, run.weights, scale)
        bits = {language: _bits_per_byte(model, one) for language, one in held_out.items()}
        scores.append(ScaleScore(scale, bits))
    model.release()
    return scores


def best_scale(run: TrainedRun, scores: Sequence[ScaleScore], max_english_loss: float) -> ScaleScore | None:
    """The scale with the lowest bits per byte in the target language among those whose English rose by at
    most `max_english_loss` bits per byte over the untouched base; None where English rose more at all.

    Raises:
        ExportError: the run has no target language, or no English score of its base, to compare with.
    """
    held_out = run.recipe.held_out_languages()
    target = target_language(run.recipe.languages())
    if target not in held_out:
        target = target_language(held_out)
    if target == ENGLISH:
        raise ExportError(f"{run.folder} holds out English alone: there is no target language to score")
    base = english_of_base(run)
    if base is None and any(ENGLISH in one.bits_per_byte for one in scores):
        raise ExportError(f"{run.folder}: results.json has no English score of the base to compare with")
    allowed = [one for one in scores if base is None or one.bits_per_byte[ENGLISH] - base <= max_english_loss]
    return min(allowed, key=lambda one: one.bits_per_byte[target], default=None)


def english_of_base(run: TrainedRun) -> float | None:
    """Bits per byte of the untouched base on the run's English held-out text; None where it was not
    scored."""
    return next(
        (
            one.bits_per_byte
            for one in read_results(run.folder).evaluation
            if one.stage == BASE_STAGE and one.language == ENGLISH
        ),
        None,
    )


def _bits_per_byte(model: AdaptedModel, held_out: HeldOutSequences) -> float:
    """By this process alone."""

    def target_losses(batches: Sequence[Batch]) -> list[Floats]:
        device = model.output_table.base_VD.device
        losses = (model.target_losses(**model_inputs(batch, device)) for batch in batches)
        return [one.double().cpu().numpy() for one in losses]

    model.eval()
    return score(held_out, target_losses, rank=0, world_size=1, sum_over_ranks=list).bits_per_byte


def _held_out(run: TrainedRun, language: str) -> HeldOutSequences:
    texts = [document.text for document in read_held_out(run.folder.heldout, language)]
    return held_out_sequences(texts, run.folder.vocab, run.recipe.data.seq_len)
