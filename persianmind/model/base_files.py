"""The files of a model folder, looked at before anything of them is read: kinds, links, sizes, counts.

A link to an endless device would be hashed for ever, a header that claims more than its file holds is an
allocation. Links of the hub's cache, from a snapshot to its blobs, are followed; others stay in the folder.
"""

from __future__ import annotations

import json
import math
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from persianmind.common.errors import BaseModelError, PersianMindError
from persianmind.model.config_limits import check_named_ids
from persianmind.tokenizer import MAX_TOKENIZER_BYTES

MIB = 1 << 20
# Of the files that are read whole; the largest JSON of well-known bases has 10 MB.
MAX_JSON_BYTES = 64 * MIB
MAX_TEMPLATE_BYTES = MIB
MAX_HEADER_BYTES = 100_000_000  # the safetensors library's own
MAX_WEIGHT_FILES = 10_000
_READ_WHOLE = {
    "tokenizer.json": MAX_TOKENIZER_BYTES,
    "tokenizer.model": MAX_TOKENIZER_BYTES,
    "chat_template.jinja": MAX_TEMPLATE_BYTES,
}
_BITS = {
    "F64": 64, "I64": 64, "U64": 64, "F32": 32, "I32": 32, "U32": 32, "BF16": 16, "F16": 16, "I16": 16,
    "U16": 16, "I8": 8, "U8": 8, "BOOL": 8, "F8_E4M3": 8, "F8_E5M2": 8,
}  # fmt: skip
_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d{1,6})\.")
Shapes = dict[str, tuple[int, ...]]


def own_file(path: Path) -> Path:
    """The path, if it is an ordinary file that belongs to its folder.

    Raises:
        BaseModelError: it is missing, a device, a pipe or a folder, or a link that leads somewhere else.
    """
    try:
        target = path.resolve(strict=True)
        mode = target.stat().st_mode
    except (OSError, RuntimeError):  # a loop of links
        raise BaseModelError(f"{path} is missing; copy the folder again") from None
    if not stat.S_ISREG(mode):
        raise BaseModelError(f"{path} is no ordinary file; copy the folder again")
    folder = path.parent.resolve()
    if target.parent != folder and not _is_blob(target, folder):
        raise BaseModelError(f"{path} is a link that leads out of its folder; put the file itself there")
    return path


def _is_blob(target: Path, folder: Path) -> bool:
    """Whether the target lies in a repository of a hub cache: that of this snapshot, or of a folder that was
    downloaded with links into the cache."""
    repository = target.parent.parent
    is_snapshot = folder.parent.name == "snapshots" and folder.parent.parent == repository
    return target.parent.name == "blobs" and (is_snapshot or repository.name.startswith("models--"))


def weight_files(folder: Path) -> list[Path]:
    """The files that transformers loads of a base, by name: model.safetensors, or those that its index lists.
    Repositories hold others beside them (Mistral's consolidated.safetensors is the model once more).

    Raises:
        BaseModelError: the index cannot be read, or leads out of the folder; a file is missing, no ordinary
            one, or a link out of the folder.
    """
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.is_symlink() or single.exists():
        return [own_file(single)]
    if not index.is_file():
        return []
    try:
        names = sorted({*json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()})
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        names = [""]
    if len(names) > MAX_WEIGHT_FILES or any(
        not isinstance(name, str) or Path(name).name != name or not name for name in names
    ):
        raise BaseModelError(f"base {str(folder)!r}: {index.name} lists no files; copy the folder again")
    return [own_file(folder / name) for name in names]


def read_object(path: Path) -> dict[str, Any]:
    """A JSON file as a plain mapping.

    Raises:
        BaseModelError: it is no JSON object.
    """
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        tree = None
    if not isinstance(tree, dict):
        raise BaseModelError(f"{path} is no JSON object; copy the folder again")
    return tree


def check_small_files(folder: Path) -> None:
    """Kind and size of every JSON file, tokenizer and template that is there, and the tokens that they name.

    Raises:
        BaseModelError: one is no ordinary file of the folder, or too large.
    """
    for path in sorted([*folder.glob("*.json"), *folder.glob("*.jinja"), *folder.glob("tokenizer.model")]):
        most = _READ_WHOLE.get(path.name, MAX_JSON_BYTES)
        if (size := own_file(path).stat().st_size) > most:
            raise BaseModelError(
                f"{path} has {size:,} bytes, and at most {most:,} are read of it; copy the folder again"
            )
    for name in ("generation_config.json", "tokenizer_config.json", "special_tokens_map.json"):
        if (folder / name).is_file():
            check_named_ids(read_object(folder / name), str(folder / name))
    if (folder / "adapter_config.json").exists():
        raise BaseModelError(
            f"{folder} has an adapter_config.json, by which transformers loads another model in its place; "
            "merge the adapter, or remove the file"
        )


def check_weights(files: list[Path], config: Mapping[str, Any]) -> None:
    """Whether the headers of safetensors files fit the files, and config.json what lies in them.

    Raises:
        BaseModelError: a file is cut short or claims what it does not hold; or config.json states layers, ids
            or a width that no weight has.
    """
    shapes: Shapes = {}
    for path in files:
        shapes |= read_shapes(path)
    where = f"{files[0].parent}: config.json says"
    layers = 1 + max((int(found[1]) for name in shapes if (found := _LAYER.search(name))), default=-1)
    if layers and config.get("num_hidden_layers", layers) > layers:
        raise BaseModelError(
            f"{where} {config['num_hidden_layers']:,} layers, and its files hold {layers:,}; copy it again"
        )
    rows = {shape[0] for shape in shapes.values() if len(shape) == 2}
    if config.get("vocab_size", 0) and config["vocab_size"] not in rows:
        raise BaseModelError(f"{where} vocab_size {config['vocab_size']:,}, and no table has so many rows")
    widths = {shape[-1] for shape in shapes.values() if shape}
    if config.get("hidden_size", 0) and config["hidden_size"] not in widths:
        raise BaseModelError(f"{where} hidden_size {config['hidden_size']:,}, and no weight is so wide")


def read_shapes(path: Path) -> Shapes:
    """Name -> shape by the header of a safetensors file; no tensor is read.

    Raises:
        BaseModelError: the header is none, or claims bytes that the file does not have.
    """
    size = own_file(path).stat().st_size
    with path.open("rb") as handle:
        length = int.from_bytes(handle.read(8), "little")
        if size < 8 or length > min(MAX_HEADER_BYTES, size - 8):
            raise BaseModelError(f"{path} is no safetensors file, or its beginning is damaged; copy it again")
        raw = handle.read(length)
    try:
        header = json.loads(raw)
        shapes = dict(_entries(header, size - 8 - length))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise BaseModelError(
            f"{path} lists tensors that do not fit its {size:,} bytes: cut short or damaged; copy it again"
        ) from None
    return shapes


def _entries(header: dict[str, Any], data_bytes: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    end_of_all = 0
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        shape, (begin, end) = tuple(entry["shape"]), entry["data_offsets"]
        bits = _BITS.get(entry["dtype"])
        counts = [*shape, begin, end]
        if any(isinstance(one, bool) or not isinstance(one, int) or one < 0 for one in counts):
            raise ValueError(name)
        if not begin <= end <= data_bytes or (bits and math.prod(shape) * bits != 8 * (end - begin)):
            raise ValueError(name)
        end_of_all = max(end_of_all, end)
        yield name, shape
    if end_of_all != data_bytes:
        raise ValueError("bytes that no tensor has")


@contextmanager
def load_errors_named(what: str) -> Iterator[None]:
    """Whatever transformers raises over a foreign folder as one line that begins with `what`.

    Raises:
        BaseModelError: it raised. A RuntimeError stays: it may be the machine's.
    """
    try:
        yield
    except (RuntimeError, PersianMindError):
        raise
    except Exception as error:
        raise BaseModelError(f"{what}: {' '.join(str(error).split())[:300]}") from None
