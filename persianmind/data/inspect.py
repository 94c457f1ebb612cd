"""What a folder of token shards holds, as text."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from persianmind.common.errors import RecipeError

if TYPE_CHECKING:
    from persianmind.data.read.dataset import TokenDataset


def shard_folders(folder: Path) -> list[Path]:
    """The folder itself, or those directly inside that hold a manifest."""
    from persianmind.data.manifest import MANIFEST

    inside = sorted(path.parent for path in folder.glob(f"*/{MANIFEST}"))
    return inside if inside and not (folder / MANIFEST).is_file() else [folder]


def sequence_documents(dataset: TokenDataset, index: int, tokenizer_dir: Path | None) -> dict[str, Any]:
    """The documents of one sequence, as text where a tokenizer is given."""
    from persianmind.tokenizer import FolderTokenizer

    if not 0 <= index < len(dataset):
        raise RecipeError(f"--sequence {index}: {dataset.folder} has the sequences 0 to {len(dataset) - 1}")
    tokenizer = None if tokenizer_dir is None else FolderTokenizer(tokenizer_dir)
    if tokenizer is not None and tokenizer.fingerprint() != dataset.manifest.fingerprints.tokenizer:
        raise RecipeError(f"{tokenizer_dir} is not the tokenizer that {dataset.folder} was built with")
    sequence = dataset.sequence(index)
    documents, start = [], 0
    for length in dataset.doc_lengths(index).tolist():
        ids = sequence.input_ids[start : start + length].tolist()
        targets = int((sequence.labels[start : start + length] >= 0).sum())
        text = " ".join(map(str, ids)) if tokenizer is None else tokenizer.decode(ids)
        documents.append({"tokens": length, "targets": targets, "text": text})
        start += length
    return {"sequence": index, "documents": documents, "padding": len(sequence.input_ids) - start}
