from __future__ import annotations

from pathlib import Path

import pytest

from tests.data.helpers import make_bpe, make_metaspace


@pytest.fixture(scope="session")
def bpe_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bpe(tmp_path_factory.mktemp("tokenizers") / "bpe")


@pytest.fixture(scope="session")
def metaspace_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_metaspace(tmp_path_factory.mktemp("tokenizers") / "metaspace")
