"""What is wrong with a recipe, in one line; an unknown key names the nearest known one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

from pydantic import BaseModel, ValidationError

from persianmind.common.errors import nearest
from persianmind.recipe.foreign import NOT_HERE, OTHER_NAMES
from persianmind.recipe.whole import Recipe

MOST_PLACES = 2  # more would be no hint
# Keys of versions before 0.2, by section ("*": any): an old key is an error that names the new one.
RENAMED_KEYS = {
    ("data", "row_length"): "seq_len",
    ("data", "shard_rows"): "sequences_per_shard",
    ("data", "open_rows"): "open_sequences",
    ("data", "max_bad_row_share"): "max_bad_record_ratio",
    ("data", "shuffle_block_rows"): "shuffle_block_sequences",
    ("quality", "max_symbol_share"): "max_symbol_ratio",
    ("quality", "max_repeated_line_share"): "max_repeated_line_ratio",
    ("heldout", "share"): "ratio",
    ("vocab", "train_rows"): "train_embeddings",
    ("train", "global_batch_rows"): "global_batch_size",
    ("train", "micro_batch_rows"): "micro_batch_size",
    ("train", "rows_learning_rate"): "embedding_learning_rate",
    ("train", "warmup_share"): "warmup_ratio",
    ("train", "min_learning_rate_share"): "min_lr_ratio",
    ("stages", "rows_learning_rate"): "embedding_learning_rate",
    ("export", "pad_rows_to_multiple"): "pad_vocab_to_multiple",
}


def explain_errors(error: ValidationError) -> str:
    """All problems on one line; an unknown key names the nearest key that exists at that place."""
    problems = []
    for item in error.errors():
        location = [part for part in item["loc"] if part not in _UNION_TAGS]
        dotted = ".".join(str(part) for part in location)
        if item["type"] == "extra_forbidden":
            problems.append(f"unknown key {dotted!r}{_hint(location, item['input'])}")
        elif item["type"] == "missing":
            problems.append(f"{dotted!r} is missing")
        else:
            message = item["msg"].removeprefix("Value error, ")
            is_section = isinstance(item["input"], dict)  # whose keys the message names
            got = "" if is_section else f" (got {item['input']!r})"
            problems.append(f"{dotted}: {message}{got}" if location else message)
    return "; ".join(dict.fromkeys(problems))


def _hint(location: Sequence[int | str], value: Any) -> str:
    """What the key is called now, where another tool's key lies here, or the nearest key at its place."""
    if renamed := RENAMED_KEYS.get((str(location[0]), str(location[-1]))):
        return f" (it is called {renamed!r} now)"
    words = [str(location[-1])]
    if isinstance(value, dict):  # a section of another tool: lora.r
        words += [f"{words[0]}_{key}" for key in value]
    for word in words:
        if hint := foreign_hint(word):
            return f" ({hint})"
    return nearest(words[0], _fields_at(location[:-1]))


def foreign_hint(word: str) -> str:
    """Of a key that lies elsewhere here, or that another tool has: what to write instead, or ""."""
    if word in OTHER_NAMES:
        return f"here it is {OTHER_NAMES[word]}"
    if word in NOT_HERE:
        return f"{NOT_HERE[word]}, see docs/training.md"
    places = [key for key in known_keys() if key.rpartition(".")[2] == word]
    return f"it lies at {' or '.join(places)}" if 0 < len(places) <= MOST_PLACES else ""


def flag_hint(flag: str) -> str:
    """Of a recipe's key that was given as a flag: how it is written, or ""."""
    word = flag.lstrip("-").replace("-", "_")
    if word in known_keys():
        return f"a recipe's key has no dashes: {word}=VALUE"
    last = word.rpartition(".")[2]
    return f"here it is {OTHER_NAMES[last]}=VALUE" if last in OTHER_NAMES else foreign_hint(last)


@cache
def known_keys() -> tuple[str, ...]:
    """Every dotted key of a recipe; of a list, those of its first item; of free names, NAME."""
    return tuple(_keys_of(Recipe))


def _keys_of(model: type[BaseModel], place: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        inner = _model_in(field.annotation)
        dotted = f"{place}{name}"
        yield dotted
        if inner is not None:
            item = {"stages": ".0", "sources": ".NAME", "profiles": ".CODE"}.get(dotted, "")
            yield from _keys_of(inner, f"{dotted}{item}.")


_UNION_TAGS = {"constrained-int", "constrained-float", "constrained-str"}


def _fields_at(location: Sequence[int | str]) -> list[str]:
    """Field names of the model at a dotted place, walking optional, list and dict annotations."""
    model: type[BaseModel] | None = Recipe
    for part in location:
        if model is None:
            return []
        if isinstance(part, int) or part not in model.model_fields:
            continue  # an index of a list, or a free key of a dict: the model stays the same
        model = _model_in(model.model_fields[str(part)].annotation)
    return list(model.model_fields) if model else []


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        if (found := _model_in(argument)) is not None:
            return found
    return None
