"""Fake GPUs for a real meter process, and what it makes the parent log."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from tests.energy.ledgers import fake_nvml_environment

WATTS = [300.0, 310.0, 320.0, 330.0]


@pytest.fixture
def gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four fake GPUs for processes that are started from here; returns the control file."""
    control = tmp_path / "control.json"
    for name, value in fake_nvml_environment(control, WATTS).items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return control


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    """The log, also where an earlier test has configured it for a console."""
    monkeypatch.setattr(logging.getLogger("persianmind"), "propagate", True)
    return caplog
