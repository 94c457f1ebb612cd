"""What training needs Ray Train to do differently. The only place that knows its insides.

Which failures are worth another attempt: a lost process or node is; a mistake in the recipe, a failed
self-test or a stop that was asked for comes back at every attempt.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

from ray.exceptions import RayError
from ray.train import FailureConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer

from persianmind.common.errors import (
    CheckpointWriteError,
    ClusterError,
    CollectiveError,
    GpuFaultError,
    PersianMindError,
    RankUnreachableError,
    RunLockedError,
)

try:
    from ray.train.v2._internal.exceptions import RayTrainError
    from ray.train.v2._internal.execution.failure_handling import (
        DefaultFailurePolicy,
        FailureDecision,
    )
except ImportError as error:  # Ray moved its insides: say which version is known to work
    import ray

    raise ClusterError(
        f"Ray {ray.__version__} is built differently from what this project knows ({error}); install the "
        "version in constraints.txt"
    ) from None

# Not mistakes: a dead peer ends a save or a start, a network file system holds a dead node's lock for some
# time, and a GPU that failed may work again, or another node take its place.
WORTH_RETRYING = (CheckpointWriteError, RankUnreachableError, RunLockedError, GpuFaultError)


def named_errors(failed: Exception) -> dict[int, PersianMindError] | None:
    """Named errors by rank, or None when a rank was lost or none gave one.

    Beside a rank that ended with a named error others end with broken connections, NCCL's (which have a name)
    among them; those say nothing.
    """
    failures = getattr(failed, "worker_failures", None) or {}
    # Older Rays hand on the wrapped error, newer ones what was raised in our function.
    causes = {rank: getattr(error, "_base_exc", error) for rank, error in failures.items()}
    if any(isinstance(cause, RayError | RayTrainError) for cause in causes.values()):
        return None  # Ray's own errors: a dead process or node
    named = {rank: cause for rank, cause in causes.items() if isinstance(cause, PersianMindError)}
    return {rank: cause for rank, cause in named.items() if not isinstance(cause, CollectiveError)} or None


class RestartBudget(DefaultFailurePolicy):  # type: ignore[misc]
    """Ray's restart budget, not spent on what another attempt cannot change."""

    def make_decision(self, training_failed_error: Any) -> Any:
        causes = named_errors(training_failed_error)
        if causes and not any(isinstance(cause, WORTH_RETRYING) for cause in causes.values()):
            return FailureDecision.RAISE
        return super().make_decision(training_failed_error)


class ElasticTrainer(TorchTrainer):  # type: ignore[misc]
    """TorchTrainer with the restart budget, and with signals that ask for a stop instead of aborting."""

    def __init__(
        self,
        worker: Callable[[dict[str, Any]], None],
        config: dict[str, Any],
        *,
        on_signal: Callable[[], None],
        torch_config: TorchConfig,
        scaling_config: ScalingConfig,
        run_config: Any,
    ) -> None:
        super().__init__(
            worker,
            train_loop_config=config,
            torch_config=torch_config,
            scaling_config=scaling_config,
            run_config=run_config,
        )
        self._on_signal = on_signal

    def _initialize_and_run_controller(self, **arguments: Any) -> Any:
        failure: FailureConfig = self.run_config.failure_config
        arguments["failure_policy"] = RestartBudget(failure)
        return super()._initialize_and_run_controller(**arguments)

    def _register_sigint_handler(self, controller: Any) -> None:
        """The first SIGINT or SIGTERM asks for a stop; a second one aborts at once."""
        asked = False

        def handle(number: int, frame: object) -> None:
            nonlocal asked
            if asked:
                raise SystemExit(128 + number)
            asked = True
            self._on_signal()

        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, handle)
