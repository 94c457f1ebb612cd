"""Similarity across languages: do a sentence and its translation lie together?

With scores of people: Pearson and Spearman against the cosine of sentence vectors. Without: whether each
sentence's translation is the nearest of all, both ways. The layer is chosen on other pairs than those tested:
the dev file, or where there is none every second pair, which then is not tested.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from persianmind.common.errors import RecipeError
from persianmind.evaluate.families.base import Numbered, Record, TaskContext, TaskFamily
from persianmind.evaluate.items import PairItem
from persianmind.evaluate.measured import ItemScores, Measured
from persianmind.evaluate.stats import fisher_interval, pearson, spearman, wilson
from persianmind.evaluate.vectors import Vectors, sentence_vectors
from persianmind.recipe import Section


class SimilarityOptions(Section):
    """layer: whose vectors are taken, 0 being the embeddings; None: the best on other pairs."""

    layer: Annotated[int, Field(ge=0)] | None = None


class Similarity(TaskFamily[PairItem]):
    """PESTS, and retrieval over parallel sentences."""

    name: ClassVar[str] = "similarity"
    options: ClassVar[type[Section]] = SimilarityOptions

    def check(self, context: TaskContext) -> None:
        """Every model can, at the layers that it has.

        Raises:
            RecipeError: options.layer is none of them.
        """
        last = int(context.model.causal_lm.config.get_text_config().num_hidden_layers)
        if context.options.layer is not None and context.options.layer > last:
            raise RecipeError(f"options.layer={context.options.layer}: {context.model.name} has 0 to {last}")

    def score(self, context: TaskContext, numbered: Numbered[PairItem]) -> Iterator[Record]:
        """All ranks need all vectors: each makes those of its items, then they meet."""
        mine = dict(sorted(numbered.items.items()))
        first, second = (_vectors(context, [getattr(item, side) for item in mine.values()])
                         for side in ("first", "second"))  # fmt: skip
        every = context.gather([list(mine), first, second])
        numbers = [number for part in every for number in part[0]]
        order = np.argsort(numbers)
        first_NHD, second_NHD = (
            np.concatenate([p[side] for p in every if len(p[0])])[order] for side in (1, 2)
        )
        place = {number: i for i, number in enumerate(sorted(numbers))}
        dev = _dev_cosines(context) if context.dev else {}
        for number, item in mine.items():
            row = place[number]
            cosines_H = np.einsum("hd,hd->h", first_NHD[row], second_NHD[row])
            forward_H, backward_H = _found(first_NHD, second_NHD, row)
            yield {
                "item": number,
                "score": item.score,
                "cosine": [round(float(one), 7) for one in cosines_H],
                "forward": [int(one) for one in forward_H],
                "backward": [int(one) for one in backward_H],
                **(dev if number == min(numbers) else {}),
            }

    def measure(self, context: TaskContext, records: Sequence[Record]) -> list[Measured]:
        if not records:
            return []
        is_scored = all(record["score"] is not None for record in records)
        layer, chosen_on, tested = _choose_layer(context, records, is_scored)
        settings = {"layer": layer, "layer_chosen_on": chosen_on}
        return list((_correlations if is_scored else _retrieval)(tested, layer, settings))


def _vectors(context: TaskContext, texts: Sequence[str]) -> Vectors:
    if texts:
        return sentence_vectors(context.model, texts)
    return np.zeros((0, 0, 0), dtype=np.float32)


def _found(first_NHD: Vectors, second_NHD: Vectors, row: int) -> tuple[np.ndarray, np.ndarray]:
    """By layer, whether the own translation is the nearest, seen from either side; a tie is no find."""
    ahead_NH = np.einsum("hd,nhd->nh", first_NHD[row], second_NHD)
    back_NH = np.einsum("hd,nhd->nh", second_NHD[row], first_NHD)
    ahead_H, back_H = ((np.delete(one, row, axis=0) < one[row]).all(axis=0) for one in (ahead_NH, back_NH))
    return ahead_H, back_H


def _dev_cosines(context: TaskContext) -> Record:
    """Of the dev pairs, kept with the first record: what the layer is chosen by."""
    pairs = [item for item in context.dev if isinstance(item, PairItem)]
    first_NHD, second_NHD = (_vectors(context, [getattr(item, side) for item in pairs])
                             for side in ("first", "second"))  # fmt: skip
    found = [_found(first_NHD, second_NHD, row)[0] for row in range(len(pairs))]
    return {
        "dev_cosine": np.einsum("nhd,nhd->nh", first_NHD, second_NHD).round(7).tolist(),
        "dev_score": [item.score for item in pairs],
        "dev_forward": np.array(found, dtype=int).tolist(),
    }


def _choose_layer(
    context: TaskContext, records: Sequence[Record], is_scored: bool
) -> tuple[int, str, Sequence[Record]]:
    if context.options.layer is not None:
        return context.options.layer, "options.layer", records
    held = next((record for record in records if "dev_cosine" in record), None)
    if held is not None:
        cosines_NH, forward_NH, scores = held["dev_cosine"], held["dev_forward"], held["dev_score"]
        chosen_on, tested = f"{len(scores)} dev pairs", records
    else:
        even = records[::2]
        cosines_NH, forward_NH, scores = (
            [record[key] for record in even] for key in ("cosine", "forward", "score")
        )
        chosen_on, tested = f"{len(even)} pairs that are not tested", records[1::2] or records
    if is_scored:
        found_H = [spearman(column, scores) for column in np.array(cosines_NH).T]
        quality_H = [-1.0 if one is None else one for one in found_H]
    else:
        quality_H = list(np.array(forward_NH, dtype=float).mean(axis=0))
    return int(np.argmax(quality_H)), chosen_on, tested


def _correlations(records: Sequence[Record], layer: int, settings: dict[str, object]) -> Iterator[Measured]:
    cosines = [record["cosine"][layer] for record in records]
    scores = [record["score"] for record in records]
    for metric, correlate in (("pearson", pearson), ("spearman", spearman)):
        value = correlate(cosines, scores)
        yield Measured(metric, value, len(records), fisher_interval(value, len(records)), settings=settings)


def _retrieval(records: Sequence[Record], layer: int, settings: dict[str, object]) -> Iterator[Measured]:
    for metric in ("forward", "backward"):
        found = {record["item"]: float(record[metric][layer]) for record in records}
        hits = int(sum(found.values()))
        yield Measured(
            f"retrieval_{metric}",
            hits / len(records),
            len(records),
            wilson(hits, len(records)),
            chance=1 / len(records),
            settings=settings,
            scores=ItemScores(found, "right"),
        )
