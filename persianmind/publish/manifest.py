"""The manifest of an exported folder: every file with size and hash, and what the export was made from."""

from __future__ import annotations

from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, Field, ValidationError

from persianmind.common.bounded import BoundedModel
from persianmind.common.checksum import hash_file, read_checked, write_checked
from persianmind.common.errors import DamagedFileError, ExportError, PersianMindError
from persianmind.common.paths import resolve_inside
from persianmind.recipe.language import ProfileSpec
from persianmind.recipe.text import Normalise
from persianmind.run.records import ExportResult

MANIFEST = "manifest.json"


class ExportedFile(BoundedModel):
    """One file: its size, and xxh3-128 of its bytes."""

    model_config = ConfigDict(extra="forbid")
    size_bytes: int
    hash: str


class ExportManifest(BoundedModel):
    """manifest.json of an export.

    kind: the format of the weights. step, stage: of the run that was exported; weights: a hash over what it
    had trained. dtype, pad_vocab_to_multiple: of the merged weights, None of other formats. check: what was
    compared before the folder appeared, None for formats that have no check of their own. languages,
    normalise, profiles: of the text that was trained on, so that what is typed can be given its spelling.
    """

    model_config = ConfigDict(extra="forbid")
    format: Literal[1] = 1
    kind: Literal["hf", "adapter", "gguf"]
    recipe: str
    step: int
    stage: str | None
    weights: str = ""
    dtype: str | None = None
    pad_vocab_to_multiple: int | None = None
    adapter_scale: float
    base_fingerprint: str
    tokenizer_fingerprint: str
    persianmind: str
    written_at: str
    check: ExportResult | None
    languages: list[str] = Field(default_factory=list)
    normalise: Normalise = Normalise()
    profiles: dict[str, ProfileSpec] = Field(default_factory=dict)
    files: dict[str, ExportedFile]


def write_export_manifest(folder: Path, **facts: Any) -> ExportManifest:
    """Hashes every file of `folder` and writes the manifest over them.

    Args:
        folder: the exported folder.
        **facts: the fields of `ExportManifest` but for `files`, `persianmind` and `written_at`.
    """
    names = [path.name for path in sorted(folder.iterdir()) if path.is_file() and path.name != MANIFEST]
    files = {name: _exported_file(folder / name) for name in names}
    manifest = ExportManifest(
        **facts,
        persianmind=version("persianmind"),
        written_at=datetime.now(UTC).isoformat(timespec="seconds"),
        files=files,
    )
    write_checked(folder / MANIFEST, manifest.model_dump(mode="json"))
    return manifest


def add_to_export_manifest(folder: Path, name: str) -> None:
    """Takes one file, new or written anew, into the manifest. The others keep the hashes of when they were
    written: what was damaged since does not become right."""
    manifest = read_export_manifest(folder)
    files = {**manifest.files, name: _exported_file(folder / name)}
    write_checked(folder / MANIFEST, manifest.model_copy(update={"files": files}).model_dump(mode="json"))


def read_export_manifest(folder: Path) -> ExportManifest:
    """Reads the manifest; the files are not looked at yet.

    Raises:
        ExportError: it is missing or damaged.
    """
    path = folder / MANIFEST
    try:
        return ExportManifest.model_validate(read_checked(path, "export again"))
    except FileNotFoundError:
        raise ExportError(
            f"{folder} is no export of ours: it holds no {MANIFEST}; give another folder, or move "
            "it away where a run is to export anew"
        ) from None
    except DamagedFileError as error:
        raise ExportError(str(error)) from None
    except ValidationError as error:
        raise ExportError(
            f"{path} is of another version ({error.errors()[0]['msg']}); export again"
        ) from None


def export_damage(folder: Path) -> list[str]:
    """What differs from the manifest: missing, foreign and changed files; empty where all is as written.

    Raises:
        ExportError: the manifest itself cannot be used.
    """
    manifest = read_export_manifest(folder)
    problems = changed_files(folder, manifest)
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if not path.is_dir() and name != MANIFEST and name not in manifest.files:
            problems.append(f"{path} is not in the manifest")
    return problems


def require_whole_export(folder: Path) -> None:
    """Before an export is used; files that somebody put beside it do no harm.

    Raises:
        ExportError: the manifest cannot be used, or a file is missing or damaged; the message names it.
    """
    if problems := changed_files(folder, read_export_manifest(folder)):
        raise ExportError(f"{problems[0]} ({len(problems)} in all); delete {folder} and export again")


def changed_files(folder: Path, manifest: ExportManifest) -> list[str]:
    """The files of the manifest that are missing or changed, each as a sentence."""
    problems = []
    for name, entry in manifest.files.items():
        try:
            path = resolve_inside(folder, name)
        except PersianMindError as error:
            problems.append(str(error))
            continue
        if not path.is_file():
            problems.append(f"{path} is missing")
        elif path.stat().st_size != entry.size_bytes or hash_file(path) != entry.hash:
            problems.append(f"{path} is damaged: its bytes are not those that were written")
    return problems


def _exported_file(path: Path) -> ExportedFile:
    return ExportedFile(size_bytes=path.stat().st_size, hash=hash_file(path))
