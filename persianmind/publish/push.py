"""Uploading an exported folder to the Hub, by the user's own login."""

from __future__ import annotations

import glob
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from persianmind.common.errors import ExportError, PushError
from persianmind.publish.card import CARD
from persianmind.publish.manifest import MANIFEST, ExportManifest, export_damage, read_export_manifest
from persianmind.publish.origin import check_hub_name

if TYPE_CHECKING:
    from huggingface_hub import HfApi

# Merged weights of an earlier upload under other names go: transformers takes model.safetensors before the
# shards of an index, and would load the old model.
STALE = ["model.safetensors", "model.safetensors.index.json", "model-?????-of-?????.safetensors"]
logger = logging.getLogger(__name__)


def push(folder: Path, repo_id: str, *, private: bool = True, api: HfApi | None = None) -> str:
    """Uploads what the folder's manifest lists, and nothing else; a repeated call goes on where it stopped.

    Args:
        folder: an export with its model card.
        repo_id: owner/name. It is created where it does not exist.
        private: whether only its owner may see it. An existing repository keeps what it is, and a public one
            is refused.
        api: in place of the Hub that huggingface_hub knows.

    Returns:
        The address of the repository.

    Raises:
        UsageError: `repo_id` is not of the form owner/name.
        ExportError: the folder is not a whole export, or has no card.
        PushError: not logged in, not allowed, or the Hub cannot be reached.
    """
    check_hub_name(repo_id)
    manifest = _whole(folder)
    hub = _logged_in() if api is None else api
    with _hub_errors(folder, repo_id):
        url = str(hub.create_repo(repo_id, private=private, exist_ok=True))
        _check_visibility(hub, repo_id, private)
        hub.upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            commit_message="Upload by PersianMind",
            allow_patterns=[glob.escape(name) for name in (*manifest.files, MANIFEST)],
            delete_patterns=STALE if manifest.kind == "hf" else None,
        )
    return url


def check_push(repo_id: str) -> None:
    """What can be known before a model is exported: the form of the name, and that there is a login.

    Raises:
        UsageError: `repo_id` is not of the form owner/name.
        PushError: not logged in.
    """
    check_hub_name(repo_id)
    _logged_in()


def _whole(folder: Path) -> ExportManifest:
    """The manifest, once every byte was compared with it."""
    manifest = read_export_manifest(folder)
    if problems := export_damage(folder):
        raise ExportError(f"{folder} is not uploaded: {problems[0]} ({len(problems)} in all); export again")
    if CARD not in manifest.files:
        raise ExportError(f"{folder} is not uploaded: it has no model card ({CARD}); export again")
    return manifest


def _logged_in() -> HfApi:
    from huggingface_hub import HfApi, get_token

    if get_token() is None:
        raise PushError("not logged in to the Hub; run `hf auth login` (a token with the right to write)")
    return HfApi()


def _check_visibility(hub: HfApi, repo_id: str, private: bool) -> None:
    """The Hub leaves a repository that exists as it is, whatever it was asked for."""
    is_private = hub.repo_info(repo_id).private
    if private and not is_private:
        raise PushError(
            f"{repo_id} exists and everybody can see it; give --public if that is meant, or another name"
        )
    if is_private and not private:
        logger.warning(f"{repo_id} exists and stays private; its settings on the Hub make it public")


@contextmanager
def _hub_errors(folder: Path, repo_id: str) -> Iterator[None]:
    """What the Hub and the way to it fail with, as one line each."""
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled
    from huggingface_hub.errors import HTTPError as TransportError  # type: ignore[attr-defined]

    again = "the same command goes on where it stopped"
    try:
        yield
    except OfflineModeIsEnabled:
        raise PushError("HF_HUB_OFFLINE is set, so nothing is uploaded; unset it") from None
    except HfHubHTTPError as error:
        reason = " ".join((error.server_message or str(error)).split())[:200]
        if error.response.status_code == 401:
            raise PushError("the Hub does not accept this login; run `hf auth login --force`") from None
        if error.response.status_code in (403, 404):
            raise PushError(
                f"this login may not write to {repo_id} ({reason}); use a token with the right to write, or "
                "your own name as the owner"
            ) from None
        raise PushError(f"the Hub refused {repo_id}: {reason}; {again}") from None
    except ValueError as error:  # the Hub's verdict on the card's metadata
        raise PushError(f"the Hub refused {folder / CARD}: {' '.join(str(error).split())[:200]}") from None
    except (TransportError, OSError, RuntimeError) as error:  # the last by hf_xet, whatever happened
        reason = " ".join(str(error).split())[:200]
        raise PushError(f"the way to the Hub failed ({reason}); {again}") from None
