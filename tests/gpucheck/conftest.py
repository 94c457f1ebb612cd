"""A part's setting and findings, in this process."""

from __future__ import annotations

from pathlib import Path

import pytest

from persianmind.gpucheck.findings import Findings
from persianmind.gpucheck.setting import PartSetting


@pytest.fixture
def small(tmp_path: Path) -> PartSetting:
    """A small check's, with a scratch folder that is there."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    return PartSetting(small=True, folder=folder, limit_s=60)


@pytest.fixture
def findings(tmp_path: Path) -> Findings:
    return Findings(tmp_path / "findings.json")
