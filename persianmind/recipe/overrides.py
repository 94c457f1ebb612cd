"""Settings from the command line: key.sub=value into a plain tree."""

from __future__ import annotations

import re
from typing import Any

import yaml

from persianmind.common.errors import RecipeError


def apply_override(tree: dict[str, Any], override: str) -> None:
    """Sets one dotted key in place; list items are addressed by their number (stages.0.tokens=1000)."""
    dotted, equals, raw = override.partition("=")
    if not equals or not dotted:
        raise RecipeError(f"override {override!r}: write it as key.sub=value, e.g. train.learning_rate=2e-4")
    try:
        value = yaml.safe_load(raw)
    except (yaml.YAMLError, ValueError, RecursionError):  # numbers and dates that are none; deep nesting
        raise RecipeError(f"override {override[:200]!r}: the value is not valid YAML") from None
    if isinstance(value, str):  # YAML 1.1 reads 2e-4 as a string; people mean the number
        value = _as_number(value)
    keys = dotted.split(".")
    node: Any = tree
    for depth, key in enumerate(keys[:-1]):
        node = _descend(node, key, ".".join(keys[: depth + 1]), override)
    if isinstance(node, list):
        node[_list_index(node, keys[-1], override)] = value
    else:
        node[keys[-1]] = value


def _descend(node: Any, key: str, path: str, override: str) -> Any:
    if isinstance(node, list):
        return node[_list_index(node, key, override)]
    child = node.setdefault(key, {})
    if not isinstance(child, dict | list):
        raise RecipeError(f"override {override!r}: {path} is a single value, it has no keys below it")
    return child


def _list_index(node: list[Any], key: str, override: str) -> int:
    if not re.fullmatch(r"[0-9]{1,6}", key) or int(key) >= len(node):
        raise RecipeError(f"override {override!r}: {key!r} is no item of a list of {len(node)} (0 first)")
    return int(key)


def _as_number(value: str) -> str | float:
    try:
        return float(value)
    except ValueError:
        return value
