"""latest.json: which checkpoint was committed last. A convenience for people, never followed as a path."""

from __future__ import annotations

import logging
from pathlib import Path

from persianmind.checkpoint.group import describe
from persianmind.checkpoint.retention import checkpoint_folders
from persianmind.common.checksum import read_checked, write_checked
from persianmind.common.errors import DamagedFileError

POINTER = "latest.json"
logger = logging.getLogger(__name__)


def write_pointer(root: Path, folder: str, step: int, sequence: int) -> None:
    """Says that `folder` is the newest; where that cannot be written, the log says so."""
    try:  # the checkpoint is committed by now
        write_checked(root / POINTER, {"folder": folder, "step": step, "sequence": sequence})
    except OSError as error:
        logger.warning(f"{root / POINTER} could not be written: {describe(error)}")


def read_pointer(root: Path) -> str | None:
    """The folder name in it, if it is one of ours. A damaged one is said in the log."""
    try:
        name = read_checked(root / POINTER, "the next save writes it again").get("folder")
    except FileNotFoundError:
        return None
    except DamagedFileError as error:
        logger.warning(str(error))
        return None
    return name if name in {folder.name for folder in checkpoint_folders(root)} else None
