"""What a folder of token shards says about itself, and the check that it tells the truth."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypeVar

from pydantic import ConfigDict, Field, ValidationError

from persianmind.common.bounded import BoundedModel
from persianmind.common.checksum import hash_file, read_checked, write_checked
from persianmind.common.errors import DamagedFileError, DataError, PersianMindError
from persianmind.common.paths import resolve_inside
from persianmind.recipe.text import SourceKind
from persianmind.text.sources.listing import LeftOut

MANIFEST = "manifest.json"
BUILDING = "building.json"


class _Closed(BoundedModel):
    model_config = ConfigDict(extra="forbid")


class ShardEntry(_Closed):
    """One shard file. `hash`: xxh3-128 of its bytes."""

    file: str
    sequences: int
    tokens: int
    bytes: int
    hash: str


class Fingerprints(_Closed):
    """What the shards depend on. Two builds with equal fingerprints give the same bytes."""

    source: str
    tokenizer: str
    options: str


class FilterReport(_Closed):
    """What one quality filter dropped: how many documents, and a few of them."""

    count: int
    samples: list[dict[str, str]]


class Manifest(_Closed):
    """Counts of a finished build.

    tokens: positions filled; fill: tokens / (sequences x seq_len); targets: tokens that are loss targets;
    characters, utf8_bytes: of the kept documents' text; documents_cut: documents longer than a sequence (cut
    into pieces, nothing lost); tokens_lost: tokens of kept documents that are in no sequence, measured;
    rejected: bad records by reason; dropped: documents by quality filter; left_out: what kept dialogues held
    beside what is trained on, by name; damaged_bytes: the sizes of the damaged files, as stored.
    """

    format: Literal[1] = 1
    source: str
    uris: list[str]
    kind: SourceKind
    language: str
    licence: str
    seq_len: int
    dtype: Literal["uint16", "uint32"]
    vocab_size: int
    bos_id: int | None
    eos_id: int
    pad_id: int
    sequences: int
    tokens: int
    targets: int
    characters: int
    utf8_bytes: int | None = None
    fill: float
    documents: int
    documents_cut: int
    documents_held_out: int
    tokens_lost: int
    records_read: int
    rejected: dict[str, int]
    damaged_files: list[str]
    damaged_bytes: int = 0
    files_left_out: list[LeftOut] = Field(default_factory=list)
    dropped: dict[str, FilterReport]
    left_out: dict[str, int] = Field(default_factory=dict)
    fingerprints: Fingerprints
    shards: list[ShardEntry]


class Building(_Closed):
    """What readers may use of a build that is not done: whole shards that an interrupted build keeps."""

    format: Literal[1] = 1
    fingerprints: Fingerprints
    shards: list[ShardEntry]


M = TypeVar("M", Manifest, Building)


def write_data_manifest(folder: Path, manifest: Manifest) -> None:
    """Writes the manifest whole, with its checksum; the list of an unfinished build is then gone."""
    write_checked(folder / MANIFEST, manifest.model_dump(mode="json"))
    (folder / BUILDING).unlink(missing_ok=True)


def write_building(folder: Path, building: Building) -> None:
    """Publishes the shards so far, whole, with a checksum."""
    write_checked(folder / BUILDING, building.model_dump(mode="json"))


def read_data_manifest(folder: Path) -> Manifest:
    """Reads and checks the manifest itself (not yet the shards).

    Raises:
        DataError: it is missing, damaged, or was not written by this program.
    """
    try:
        return _read(folder / MANIFEST, Manifest)
    except FileNotFoundError:
        raise DataError(
            f"{folder} holds no finished token shards ({MANIFEST} is missing); build them first"
        ) from None


def read_building(folder: Path) -> Building | None:
    """The shards published so far by an unfinished build; None where there are none.

    Raises:
        DataError: the list is damaged, or was not written by this program.
    """
    try:
        return _read(folder / BUILDING, Building)
    except FileNotFoundError:  # never there, or the build was finished a moment ago
        return None


def shard_path(folder: Path, entry: ShardEntry) -> Path:
    """Path of a shard inside its folder.

    Raises:
        DataError: the manifest names a path outside the folder or through a link.
    """
    try:
        return resolve_inside(folder, entry.file)
    except PersianMindError as error:
        raise DataError(str(error)) from None


def verify_shard(folder: Path, entry: ShardEntry) -> Path:
    """Checks one shard file's size and hash and returns its path.

    Raises:
        DataError: the file is missing, of another size, or damaged; the message names it.
    """
    path = shard_path(folder, entry)
    if not path.is_file():
        raise DataError(f"{path} is missing; delete {folder} and build again")
    if path.stat().st_size != entry.bytes or hash_file(path) != entry.hash:
        raise damaged_shard(folder, path)
    return path


def damaged_shard(folder: Path, path: Path) -> DataError:
    """The error for a shard that is not as it was written."""
    return DataError(
        f"{path} is damaged (its bytes do not match the manifest); delete {folder} and build again"
    )


def _read(path: Path, kind: type[M]) -> M:
    try:
        return kind.model_validate(read_checked(path))
    except DamagedFileError:
        raise DataError(
            f"{path} was changed or damaged after it was written; delete {path.parent} and build again"
        ) from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise DataError(f"{path}: {place}: {first['msg']}; was it written by another version?") from None
