"""One folder to talk to, for all tests of chat. Read only."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chat.helpers import model_folder


@pytest.fixture(scope="package")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_folder(tmp_path_factory.mktemp("chat") / "model")
