"""Where a base model comes from and under which licence, as far as its own folder says."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from persianmind.common.atomic import write_bytes
from persianmind.common.errors import UsageError
from persianmind.model.bases import GGUF_ORIGINS, read_config

MAX_TEXT_BYTES = 1 << 20  # of a card or a licence
UNKNOWN_LICENCE = "unknown"  # one of the Hub's own identifiers
_NOTICE = re.compile(r"(licen[cs]e|notice|use_policy|copying)([-_.].*)?", re.IGNORECASE)
_HUB_LICENCE = re.compile(r"[a-z0-9][a-z0-9.+-]{0,63}")
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Licence:
    """A licence as the Hub has it. id: one of its identifiers; "other" has a name, and a link (a file of the
    folder, or https). said_by: what it was read from; "" where it is unknown."""

    id: str = UNKNOWN_LICENCE
    name: str | None = None
    link: str | None = None
    said_by: str = ""

    @property
    def known(self) -> bool:
        """Whether anything states it."""
        return bool(self.said_by)


@dataclass(frozen=True, slots=True)
class BaseOrigin:
    """hub_id: owner/name of the base on the Hub, None where nothing reliable names it. notices: its licence
    and notice files."""

    hub_id: str | None
    licence: Licence
    notices: tuple[Path, ...]


def base_origin(base: str, folder: Path, stated_id: str | None = None) -> BaseOrigin:
    """What is known of a base model.

    Args:
        base: as the recipe names it.
        folder: where it lies.
        stated_id: its name on the Hub, where the user gives it.

    Raises:
        UsageError: `stated_id` is not of the form owner/name.
    """
    card = _front_matter(folder)
    notices = tuple(notice_files(folder))
    if stated_id is not None:
        check_hub_name(stated_id)
    if base.startswith("package://"):
        named, licence = GGUF_ORIGINS[base.removeprefix("package://")]
        return BaseOrigin(stated_id or named, Licence(licence, said_by="the page of its package"), notices)
    hub_id = stated_id or _cached_id(folder) or _downloaded_id(folder, card)
    return BaseOrigin(hub_id, _licence(card, notices, hub_id), notices)


def check_hub_name(name: str) -> None:
    """Refuses what cannot be a repository's name.

    Raises:
        UsageError: it is not of the form owner/name.
    """
    if not is_hub_name(name):
        raise UsageError(f"{name!r} is no name on the Hub; give owner/name, such as ana/llama-fa")


def is_hub_name(name: str) -> bool:
    """Whether `name` has the form owner/name, by the Hub's own rule."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return "/" in name


def notice_files(folder: Path) -> Iterator[Path]:
    """The licence and notice files at the top of a base's folder, by name.

    Links that lead out of the folder (or, in the Hub's cache, out of the repository's part of it) are left
    out with a warning: what they show is not the base's.
    """
    cached = folder.parent.name == "snapshots" and folder.parent.parent.name.startswith("models--")
    home = (folder.parent.parent if cached else folder).resolve()
    for path in sorted(folder.iterdir()):
        if not _NOTICE.fullmatch(path.name) or not path.is_file():
            continue
        if not path.resolve().is_relative_to(home):
            logger.warning(f"{path} links to another folder and is not copied; copy the file itself there")
        elif path.stat().st_size > MAX_TEXT_BYTES:
            logger.warning(f"{path} is larger than 1 MiB and is not copied; is it a licence?")
        else:
            yield path


def copy_notices(origin: BaseOrigin, export: Path) -> list[str]:
    """Copies licence and notice files into `export`, byte for byte; returns their names."""
    for path in origin.notices:
        write_bytes(export / path.name, path.read_bytes())
    return [path.name for path in origin.notices]


def _front_matter(folder: Path) -> dict[str, Any]:
    """The metadata of the folder's own card; {} where it has none that can be read."""
    import yaml
    from huggingface_hub.repocard import metadata_load

    card = folder / "README.md"
    if not card.is_file() or card.stat().st_size > MAX_TEXT_BYTES:
        return {}
    try:
        return dict(metadata_load(card) or {})
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        logger.warning(f"{card} has metadata that cannot be read ({type(error).__name__}); they are not used")
        return {}


def _cached_id(folder: Path) -> str | None:
    """The name under which the Hub's cache holds the folder: models--owner--name/snapshots/REVISION."""
    name = folder.parent.parent.name
    if folder.parent.name != "snapshots" or not name.startswith("models--"):
        return None
    hub_id = name.removeprefix("models--").replace("--", "/")
    return hub_id if is_hub_name(hub_id) else None


def _downloaded_id(folder: Path, card: dict[str, Any]) -> str | None:
    """The `_name_or_path` of a folder that was downloaded as a whole.

    The key says where whoever saved the model had loaded it from: often another model, or a path that looks
    like owner/name. It names this one only where the folder has a card, as a repository of the Hub has, and
    the key ends in the folder's own name.
    """
    name = read_config(folder).get("_name_or_path")
    if not card or not isinstance(name, str) or not is_hub_name(name) or Path(name).exists():
        return None
    return name if name.partition("/")[2] == folder.resolve().name else None


def _licence(card: dict[str, Any], notices: tuple[Path, ...], hub_id: str | None) -> Licence:
    stated = card.get("license")
    if isinstance(stated, str) and _HUB_LICENCE.fullmatch(stated) and stated != UNKNOWN_LICENCE:
        name = card.get("license_name")
        link = _link(card.get("license_link"), notices, hub_id)
        return Licence(stated, _slug(name) if isinstance(name, str) else None, link, "the base's card")
    if stated and stated != UNKNOWN_LICENCE:
        words = stated if isinstance(stated, list) else [stated]
        return Licence("other", _slug(" or ".join(map(str, words))), None, "the base's card")
    for path in notices:
        if path.name.lower().startswith("licen"):
            return _of_text(path)
    return Licence()


def _of_text(path: Path) -> Licence:
    """By the title alone: whoever needs certainty reads the file, which is copied."""
    lines = [line.strip() for line in path.read_text(encoding="utf-8", errors="replace").splitlines()]
    lines = [line for line in lines if line]
    by = f"the title of {path.name}"
    if lines[:1] == ["Apache License"] and lines[1:2] == ["Version 2.0, January 2004"]:
        return Licence("apache-2.0", said_by=by)
    if lines[:1] in (["MIT License"], ["The MIT License (MIT)"]):
        return Licence("mit", said_by=by)
    return Licence("other", _slug(lines[0]) if lines else None, path.name, by)


def _slug(text: str) -> str | None:
    """As the Hub wants `license_name`: small letters, digits, dots and dashes."""
    return re.sub(r"[^a-z0-9.]+", "-", text.lower())[:60].strip("-.") or None


def _link(link: object, notices: tuple[Path, ...], hub_id: str | None) -> str | None:
    """A link that leads somewhere from the export too: https, or a file that is copied."""
    if not isinstance(link, str):
        return None
    if re.fullmatch(r"https://[\w.-]+(/[\w./#?=&%+~-]*)?", link, re.ASCII):
        return link
    if link in [path.name for path in notices]:
        return link
    on_hub = hub_id is not None and re.fullmatch(r"[\w.-]+", link, re.ASCII)
    return f"https://huggingface.co/{hub_id}/blob/main/{link}" if on_hub else None
