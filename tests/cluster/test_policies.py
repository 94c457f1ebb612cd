"""Which failures are worth another attempt."""

from __future__ import annotations

from persianmind.common.errors import (
    CheckpointWriteError,
    CollectiveError,
    GpuFaultError,
    GpuMemoryError,
    RecipeError,
    RunInterruptedError,
)


def test_policies_tell_mistakes_from_lost_workers() -> None:
    """Failures as this Ray itself wraps what its workers ended with."""
    from ray.exceptions import ActorDiedError
    from ray.train import FailureConfig
    from ray.train.v2._internal.exceptions import UserExceptionWithTraceback, WorkerHealthCheckFailedError
    from ray.train.v2._internal.execution.failure_handling import FailureDecision
    from ray.train.v2._internal.execution.worker_group.poll import WorkerGroupPollStatus, WorkerStatus

    from persianmind.cluster.driver import explain_failure
    from persianmind.cluster.policies import RestartBudget, named_errors

    def failed(*errors: Exception) -> Exception:
        statuses = {rank: WorkerStatus(False, error) for rank, error in enumerate(errors)}
        error: Exception = WorkerGroupPollStatus(statuses).get_worker_group_error()
        return error

    mistake = UserExceptionWithTraceback(RecipeError("x"), "")
    stop = UserExceptionWithTraceback(RunInterruptedError("x"), "")
    full = UserExceptionWithTraceback(CheckpointWriteError("x"), "")
    broken = UserExceptionWithTraceback(RuntimeError("Connection closed by peer"), "")
    sick = WorkerHealthCheckFailedError("gone", ActorDiedError())
    nccl = UserExceptionWithTraceback(CollectiveError("NCCL: remote process exited"), "")
    memory = UserExceptionWithTraceback(GpuMemoryError("GPU 0 is out of memory"), "")
    named = {
        (mistake,): [0],
        (broken, mistake): [1],
        (stop, stop): [0, 1],
        (broken, broken): None,
        (nccl, nccl): None,  # a peer or a link was lost
        (nccl, memory): [1],
        (nccl, mistake): [1],
        (mistake, sick): None,
        (ActorDiedError(), mistake): None,
    }
    for errors, ranks in named.items():
        found = named_errors(failed(*errors))
        assert (None if found is None else sorted(found)) == ranks
        decision = RestartBudget(FailureConfig(max_failures=3)).make_decision(failed(*errors))
        assert decision == (FailureDecision.RETRY if ranks is None else FailureDecision.RAISE)
    fault = UserExceptionWithTraceback(GpuFaultError("fallen off the bus"), "")
    for retried in (full, fault):
        decision = RestartBudget(FailureConfig(max_failures=3)).make_decision(failed(retried))
        assert decision == FailureDecision.RETRY
    lost = explain_failure(failed(nccl, fault), 3)
    assert "last, rank 1 ended with: " in str(lost) and "fallen off the bus" in str(lost)
    assert named_errors(RuntimeError("no workers at all")) is None
