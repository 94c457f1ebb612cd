"""Text formats, a module each: whatever module here defines `FORMAT` is one (see base.TextFormat)."""

from __future__ import annotations

import pkgutil
from functools import cache
from importlib import import_module
from pathlib import Path

from persianmind.text.compression import COMPRESSION_SUFFIXES, Compression
from persianmind.text.formats.base import TextFormat


@cache
def text_formats() -> dict[str, TextFormat]:
    """Every format, by name."""
    modules = [import_module(f"{__name__}.{found.name}") for found in pkgutil.iter_modules(__path__)]
    formats: list[TextFormat] = [module.FORMAT for module in modules if hasattr(module, "FORMAT")]
    return {one.name: one for one in formats}


def supported_kinds() -> str:
    """The kinds of file that are read, for messages."""
    alone = [suffix[1:] for one in text_formats().values() if not one.compressible for suffix in one.suffixes]
    packed = [suffix[1:] for one in text_formats().values() if one.compressible for suffix in one.suffixes]
    compressions = list(COMPRESSION_SUFFIXES)
    return (
        f"{', '.join(packed[:-1])} and {packed[-1]} (each also as {', '.join(compressions[:-1])} or "
        f"{compressions[-1]}), and {', '.join(alone)}"
    )


def kind_of_name(file_name: str) -> tuple[str, Compression] | None:
    """(name of the format, compression) by suffix; None for a kind that is not read."""
    stem = file_name.lower()
    compression: Compression = ""
    for suffix, known in COMPRESSION_SUFFIXES.items():
        if stem.endswith(suffix):
            compression, stem = known, stem[: -len(suffix)]
    for one in text_formats().values():
        if Path(stem).suffix in one.suffixes and (one.compressible or not compression):
            return one.name, compression
    return None
