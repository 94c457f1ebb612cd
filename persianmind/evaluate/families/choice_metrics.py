"""From the records of multiple-choice items to metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from persianmind.evaluate.measured import ItemScores, Measured
from persianmind.evaluate.stats import bootstrap_mean, wilson

Record = dict[str, Any]
MIN_CATEGORY = 10  # items; fewer have an interval as wide as the scale


def choice_metrics(records: Sequence[Record]) -> Iterator[Measured]:
    """Accuracy by every method that the records hold; then without doubtful items, by category, by subset."""
    if not records:
        return
    methods = [one for one in _METHODS.items() if all(one[1](record) is not None for record in records)]
    for metric, choose in methods:
        yield accuracy(metric, records, choose)
    if "letters" in records[0] and len(records[0]["letters"]) > 1:
        yield from orders(records)
    doubtful = [record for record in records if record["flags"]]
    if doubtful and len(doubtful) < len(records):
        sound = [record for record in records if not record["flags"]]
        for metric, choose in methods:
            yield accuracy(metric, sound, choose, without="empty or equal candidates")
    for label, groups in (("category", _by_category(records)), ("subset", _by_subset(records))):
        for name, group in groups.items():
            if MIN_CATEGORY <= len(group) < len(records):
                for metric, choose in methods:
                    yield accuracy(metric, group, choose, **{label: name})


def accuracy(
    metric: str, records: Sequence[Record], choose: Callable[[Record], int | None], **settings: Any
) -> Measured:
    """The ratio of items whose chosen candidate is the right one, or says the same as the right one; Wilson's
    interval."""
    right = {record["item"]: float(choose(record) in record["twins"]) for record in records}
    hits = int(sum(right.values()))
    return Measured(
        metric,
        hits / len(records),
        len(records),
        wilson(hits, len(records)),
        chance=_chance(records),
        settings=settings,
        scores=ItemScores(right, "right"),
    )


def orders(records: Sequence[Record]) -> Iterator[Measured]:
    """Letters in every cyclic order: how often they are right, and whether the same candidate is chosen."""
    means, same = {}, {}
    for record in records:
        count = len(record["letters"])
        # At place p of order o stands candidate (p + o) mod count.
        chosen = [(int(np.argmax(scores)) + order) % count for order, scores in enumerate(record["letters"])]
        means[record["item"]] = sum(one in record["twins"] for one in chosen) / count
        same[record["item"]] = float(len({*chosen}) == 1)
    values = list(means.values())
    yield Measured(
        "accuracy_letter_orders",
        float(np.mean(values)),
        len(records),
        bootstrap_mean(values),
        chance=_chance(records),
        scores=ItemScores(means, "mean"),
    )
    consistent = int(sum(same.values()))
    yield Measured(
        "order_consistency",
        consistent / len(records),
        len(records),
        wilson(consistent, len(records)),
        scores=ItemScores(same, "right"),
    )


def _by_letter(record: Record) -> int | None:
    return int(np.argmax(record["letters"][0])) if "letters" in record else None


def _by_text(record: Record) -> int | None:
    return int(np.argmax([nats for nats, _ in record["text"]])) if "text" in record else None


def _by_text_per_byte(record: Record) -> int | None:
    if "text" not in record:
        return None
    pairs = zip(record["text"], record["bytes"], strict=True)
    return int(np.argmax([nats / max(1, size) for (nats, _), size in pairs]))


def _by_text_per_token(record: Record) -> int | None:
    if "text" not in record:
        return None
    return int(np.argmax([nats / max(1, tokens) for nats, tokens in record["text"]]))


def _by_generation(record: Record) -> int | None:
    if "generated" not in record:
        return None
    return -1 if record["chosen"] is None else int(record["chosen"])


_METHODS: dict[str, Callable[[Record], int | None]] = {
    "accuracy_letter": _by_letter,
    "accuracy_text": _by_text,
    "accuracy_text_per_byte": _by_text_per_byte,
    "accuracy_text_per_token": _by_text_per_token,
    "accuracy_generated": _by_generation,
}


def _chance(records: Sequence[Record]) -> float:
    """Of guessing: twins of the right answer count as it."""
    return float(np.mean([len(record["twins"]) / len(record["bytes"]) for record in records]))


def _by_category(records: Sequence[Record]) -> dict[str, list[Record]]:
    groups: dict[str, list[Record]] = {}
    for record in records:
        if record["category"]:
            groups.setdefault(record["category"], []).append(record)
    return groups


def _by_subset(records: Sequence[Record]) -> dict[str, list[Record]]:
    groups: dict[str, list[Record]] = {}
    for record in records:
        for subset in record["subsets"]:
            groups.setdefault(subset, []).append(record)
    return groups
