"""Process groups of their own give up after the watchdog, not after torch's half hour."""

from __future__ import annotations

from datetime import timedelta

import pytest
import torch.distributed

from persianmind.engine.ranks import Ranks, TorchGroup, collective_timeout_s


def test_an_own_group_waits_as_long_as_all_collectives_do(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    monkeypatch.setattr(torch.distributed, "new_group", lambda **options: asked.append(options["timeout"]))
    ranks = Ranks(0, 2, 0, 2)
    TorchGroup(ranks, own=True, timeout_s=collective_timeout_s(7200.0))
    TorchGroup(ranks, own=True)
    TorchGroup(ranks)
    assert asked == [timedelta(seconds=7500), None]
