"""What a base's config.json may state: numbers of models that there are, and no code or files of others.

Whoever publishes a base writes its config.json. A vocabulary of 2^40 or a billion layers ends late, in an
allocation or never; here it is one line, before anything is made of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from persianmind.common.errors import BaseModelError

# By key of config.json, from 1 on. The largest of well-known models have 262 thousand, 126, 16 thousand,
# 128, and 256.
LIMITS = {
    "vocab_size": 4 << 20,
    "num_hidden_layers": 1024,
    "hidden_size": 128 << 10,
    "num_attention_heads": 4096,
    "num_key_value_heads": 4096,
}
# Any other key that sounds like a size, and any other number, from minus that on.
_SIZE = re.compile(r"(_size|_dim|_rank|experts?|layers?|heads?)$|^num_|^n_")
OTHER_SIZE = 4 << 20
OTHER_NUMBER = 1 << 40
MOST_IDS = 1000  # that end a text
# Keys by which a config hands on code, or weights and kernels from elsewhere, also within its parts.
_FOREIGN = re.compile(
    r"^auto_map$|auto_class|^custom_|name_or_path$|_weights$|_implementation(_internal)?$|kernel|adapter"
    r"|^_commit_hash$|^quantization_config$|^trust_|^is_local$|^local_files_only$|^backend$|_file$|_code$"
    r"|code_revision"
)
_PLACES = ("transformers_weights", "attn_implementation", "experts_implementation")


def check_config(config: Mapping[str, Any], base: str) -> None:
    """Whether its numbers are those of a model.

    Args:
        config: config.json as a mapping.
        base: how the recipe names it, for the message.

    Raises:
        BaseModelError: a number is none, or too large; or it names weights or kernels that lie elsewhere.
    """
    for key, value in _numbers(config):
        most = LIMITS.get(key) or (OTHER_SIZE if _SIZE.search(key) else OTHER_NUMBER)
        least = 1 if key in LIMITS else -most
        if isinstance(value, bool) or not least <= value <= most:
            raise BaseModelError(
                f"base {base!r}: config.json has {key} {_short(value)}, and models have {least:,} to "
                f"{most:,}; copy the folder again, or give another base"
            )
    _check_kinds(config, base)
    check_named_ids(config, f"base {base!r}: config.json")
    for key in config:
        place = config[key]
        if key.strip("_").removesuffix("_internal") in _PLACES and ("_weights" in key or "/" in str(place)):
            raise BaseModelError(
                f"base {base!r}: config.json takes {key} from {_short(place)}, which is no part of the "
                "model's own files; remove the key if you trust them, or give another base"
            )


def check_named_ids(tree: Mapping[str, Any], where: str) -> None:
    """Whether the tokens that a config.json or generation_config.json names are ids.

    Raises:
        BaseModelError: one is none; the line begins with `where`.
    """
    for key in ("bos_token_id", "eos_token_id", "pad_token_id"):
        value = tree.get(key)
        ids = value if isinstance(value, list) else [] if value is None else [value]
        if len(ids) > MOST_IDS or any(type(one) is not int or abs(one) > LIMITS["vocab_size"] for one in ids):
            raise BaseModelError(f"{where} has {key} {_short(value)}; copy the folder again")


def without_code(tree: Any) -> Any:
    """A plain tree of config.json or tokenizer_config.json without what names code, or files and repositories
    of others. "owner/name--module.Class" is how transformers writes a class in a repository."""
    if isinstance(tree, Mapping):
        kept = {key: value for key, value in tree.items() if not _FOREIGN.search(str(key))}
        return {key: without_code(value) for key, value in kept.items() if not _is_remote(value)}
    if isinstance(tree, list):
        return [without_code(item) for item in tree if not _is_remote(item)]
    return tree


def _is_remote(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[\w.-]+/[\w.-]+--[\w.]+", value) is not None


def _numbers(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The numbers of the config and of lists and parts in it, by the nearest key; what should be a number is
    given as it is."""
    for key, value in config.items():
        items = value if isinstance(value, list) else [value]
        for item in items:
            if isinstance(item, Mapping):
                yield from _numbers(item)
            elif isinstance(item, int | float) and not (isinstance(item, bool) and key not in LIMITS):
                yield key, item


def _check_kinds(config: Mapping[str, Any], base: str) -> None:
    kinds: dict[str, type | tuple[type, ...]] = {
        **dict.fromkeys(LIMITS, int),
        "model_type": str,
        "layer_types": list,
    }
    for key, kind in kinds.items():
        value = config.get(key)
        texts = value if key == "layer_types" and isinstance(value, list) else []
        if value is not None and (
            not isinstance(value, kind) or not all(isinstance(one, str) for one in texts)
        ):
            raise BaseModelError(
                f"base {base!r}: config.json has {key} {_short(value)}; copy the folder again"
            )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
