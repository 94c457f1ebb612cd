"""The machines that Ray keeps for a killed run: its next attempt has them at once, another run is told."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from ray.data._internal.cluster_autoscaler.default_autoscaling_coordinator import (
    ResourceRequestPriority,
    _AutoscalingCoordinatorActor,
)
from ray.exceptions import ActorDiedError
from ray.train.v2._internal.execution.scaling_policy import NoopDecision, ResizeDecision
from ray.train.v2._internal.execution.scaling_policy.elastic import ElasticScalingPolicy

from persianmind.cluster import policies
from persianmind.cluster.policies import RESERVATION_S, AudibleScalingPolicy, ElasticTrainer
from persianmind.common import poll
from tests.common.test_poll import Clock

NODES = [{"Alive": True, "NodeID": name, "Resources": {"CPU": 1.0}} for name in ("a", "b")]
BUNDLES = [{"CPU": 1.0}, {"CPU": 1.0}]


class Coordinator:
    """Ray's own, outside a cluster, with a clock of ours."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.actor = _AutoscalingCoordinatorActor(lambda: self.now_s, lambda *_, **__: None, lambda: NODES)

    def ask(self, run_id: str) -> int:
        """On how many nodes this run has a place, once it has asked."""
        self.actor.request_resources(
            requester_id=f"train-{run_id}",
            resources=BUNDLES,
            expire_after_s=policies.AUTOSCALING_REQUESTS_EXPIRE_TIME_S,
            priority=ResourceRequestPriority.HIGH,
        )
        return len(self.actor.get_reserved_resources(f"train-{run_id}"))

    def tick(self, run_id: str) -> int:
        """The same after its next periodical look."""
        return len(self.actor.get_reserved_resources(f"train-{run_id}", recompute=True))


def test_the_same_run_takes_its_reservation_over_and_another_waits_as_long_as_is_said() -> None:
    ray = Coordinator()
    assert ray.ask("one") == 2
    # Its controller is killed here.
    assert ray.ask("one") == 2
    assert ray.ask("other") == 0
    ray.now_s = RESERVATION_S - 1 - _AutoscalingCoordinatorActor.TICK_INTERVAL_S
    assert ray.tick("other") == 0
    ray.now_s = RESERVATION_S - 1
    ray.ask("other")
    assert ray.tick("other") == 2
    ray.actor.cancel_request("train-other")
    assert ray.ask("third") == 2


def trainer(outcome: Any, monkeypatch: pytest.MonkeyPatch) -> tuple[ElasticTrainer, dict[str, Any]]:
    """One whose controller ends as said, and what it was started with."""
    seen: dict[str, Any] = {}

    def run(_: Any, **arguments: Any) -> Any:
        seen.update(arguments)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setattr(policies.TorchTrainer, "_initialize_and_run_controller", run)
    one = ElasticTrainer.__new__(ElasticTrainer)
    one._run_id = "of-this-folder"
    one.run_config = SimpleNamespace(failure_config=policies.FailureConfig())
    one.scaling_config = policies.ScalingConfig(num_workers=(1, 2))
    return one, seen


def test_the_controller_reserves_under_the_runs_own_id(monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.train.v2._internal.execution.context import TrainRunContext

    one, seen = trainer("done", monkeypatch)
    context = TrainRunContext(*[None] * 5)  # type: ignore[arg-type]
    elastic = ElasticScalingPolicy(one.scaling_config)
    assert context.run_id != "of-this-folder"
    assert one._initialize_and_run_controller(train_run_context=context, scaling_policy=elastic) == "done"
    assert seen["train_run_context"].run_id == "of-this-folder"
    assert isinstance(seen["scaling_policy"], AudibleScalingPolicy)


def test_a_killed_controllers_reservation_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    released: list[str] = []
    one, _ = trainer(ActorDiedError(), monkeypatch)
    monkeypatch.setattr(ElasticTrainer, "_release_reservation", lambda self: released.append(self._run_id))
    arguments = {"train_run_context": SimpleNamespace(), "scaling_policy": None}
    with pytest.raises(ActorDiedError):
        one._initialize_and_run_controller(**arguments)
    assert released == ["of-this-folder"]


def test_waiting_for_machines_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    monkeypatch.setattr(poll, "time", clock)
    decision: list[Any] = [NoopDecision()]
    monkeypatch.setattr(
        ElasticScalingPolicy, "make_decision_for_non_running_worker_group", lambda _: decision[0]
    )
    policy = AudibleScalingPolicy(policies.ScalingConfig(num_workers=(1, 2)))
    for _ in range(60):
        policy.make_decision_for_non_running_worker_group()
        clock.sleep(1)
    said = [record.message.split(", ")[1].split(":")[0] for record in caplog.records]
    assert said == ["0 s", "10 s", "30 s"]
    assert "up to 200 s" in caplog.text and "machines for 1 worker" in caplog.text
    decision[0] = ResizeDecision(2, {"CPU": 1})
    caplog.clear()
    policy.make_decision_for_non_running_worker_group()
    assert caplog.records == []
