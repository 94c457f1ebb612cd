"""What a Ray worker sets before Ray Train makes its process group."""

from __future__ import annotations

import os
from typing import Any

import pytest

from persianmind.cluster import worker
from persianmind.cluster.worker import InterfaceTorchConfig, prepare_worker


class Calls:
    """A worker group and a backend that only record."""

    def __init__(self) -> None:
        self.made: list[tuple[Any, ...]] = []

    def execute(self, function: Any, *arguments: Any) -> None:
        self.made.append((function.__name__, *arguments))

    def prepare_environment(self) -> None:
        self.made.append(("environment", os.environ["DS_ACCELERATOR"]))

    def prepare_group(self, ranks: object, hang_timeout_s: float) -> None:
        self.made.append(("group", ranks, hang_timeout_s))


@pytest.mark.parametrize(("backend", "device"), [("nccl", "cuda"), ("gloo", "cpu")])
def test_workers_are_prepared_before_the_group_is_made(
    backend: str, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = Calls()
    config = InterfaceTorchConfig(backend=backend, timeout_s=900, hang_timeout_s=600.0)
    above = worker._backend_class().__mro__[1]
    monkeypatch.setattr(above, "on_start", lambda *_: calls.made.append(("group made",)))
    config.backend_cls().on_start(calls, config)
    assert calls.made == [("prepare_worker", device, 600.0), ("group made",)]


def test_a_worker_trains_on_what_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it sees: workers without a GPU also run on machines that have some."""
    calls = Calls()
    monkeypatch.setenv("DS_ACCELERATOR", "cuda")
    monkeypatch.setattr(worker, "use_rays_interface", lambda: calls.made.append(("interface",)))
    monkeypatch.setattr(worker, "backend", lambda: calls)
    prepare_worker("cpu", 600.0)
    assert calls.made == [("interface",), ("environment", "cpu"), ("group", None, 600.0)]
