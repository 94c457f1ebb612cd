"""What training needs Ray Train to do differently. The only place that knows its insides.

Which failures are worth another attempt: a lost process or node is; a mistake in the recipe, a failed
self-test or a stop that was asked for comes back at every attempt.

Reservations: Ray keeps the machines of a run reserved under the run's id, and those of a controller that was
killed for RESERVATION_S more. Under an id of our own the same run takes its reservation over at once.
"""

from __future__ import annotations

import contextlib
import logging
import signal
from collections.abc import Callable
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError
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
from persianmind.common.poll import spaced_out

try:
    from ray.data._internal.cluster_autoscaler.default_autoscaling_coordinator import (
        _AutoscalingCoordinatorActor,
        get_or_create_autoscaling_coordinator,
    )
    from ray.train.v2._internal.exceptions import RayTrainError
    from ray.train.v2._internal.execution.failure_handling import (
        DefaultFailurePolicy,
        FailureDecision,
    )
    from ray.train.v2._internal.execution.scaling_policy import NoopDecision
    from ray.train.v2._internal.execution.scaling_policy.autoscaling_coordinator_client import (
        AUTOSCALING_REQUESTS_EXPIRE_TIME_S,
        AUTOSCALING_REQUESTS_GET_TIMEOUT_S,
    )
    from ray.train.v2._internal.execution.scaling_policy.elastic import ElasticScalingPolicy
except ImportError as error:  # Ray moved its insides: say which version is known to work
    raise ClusterError(
        f"Ray {ray.__version__} is built differently from what this project knows ({error}); install the "
        "version in constraints.txt"
    ) from None

# Not mistakes: a dead peer ends a save or a start, a network file system holds a dead node's lock for some
# time, and a GPU that failed may work again, or another node take its place.
WORTH_RETRYING = (CheckpointWriteError, RankUnreachableError, RunLockedError, GpuFaultError)
RESERVATION_S = AUTOSCALING_REQUESTS_EXPIRE_TIME_S + _AutoscalingCoordinatorActor.TICK_INTERVAL_S
logger = logging.getLogger(__name__)


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


class AudibleScalingPolicy(ElasticScalingPolicy):  # type: ignore[misc]
    """Ray's elastic policy, which waits for machines without a word to whoever follows the job."""

    _say: Callable[[], None] | None = None

    def make_decision_for_non_running_worker_group(self) -> Any:
        decision = super().make_decision_for_non_running_worker_group()
        waits = isinstance(decision, NoopDecision)
        self._say = (self._say or spaced_out(self._explain)) if waits else None
        if self._say is not None:
            self._say()
        return decision

    def _explain(self, waited_s: float) -> None:
        least = self.scaling_config.min_workers
        logger.warning(
            f"waits for machines for {least} worker(s), {waited_s:.0f} s: none is free, or Ray still holds "
            f"those of another run that was killed, which it does for up to {RESERVATION_S:.0f} s"
        )


class ElasticTrainer(TorchTrainer):  # type: ignore[misc]
    """TorchTrainer with the restart budget, and with signals that ask for a stop instead of aborting.

    run_id: the same whenever the same run is taken up again, another for every other.
    """

    def __init__(
        self,
        worker: Callable[[dict[str, Any]], None],
        config: dict[str, Any],
        *,
        on_signal: Callable[[], None],
        run_id: str,
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
        self._run_id = run_id

    def _initialize_and_run_controller(self, **arguments: Any) -> Any:
        """Raises RayActorError where the controller was killed, its reservation given back."""
        failure: FailureConfig = self.run_config.failure_config
        arguments["failure_policy"] = RestartBudget(failure)
        if isinstance(arguments["scaling_policy"], ElasticScalingPolicy):
            arguments["scaling_policy"] = AudibleScalingPolicy(self.scaling_config)
        # A frozen class that takes no id; the reservation is made under this one.
        object.__setattr__(arguments["train_run_context"], "run_id", self._run_id)
        try:
            return super()._initialize_and_run_controller(**arguments)
        except RayActorError:
            self._release_reservation()
            raise

    def _release_reservation(self) -> None:
        with contextlib.suppress(RayError):  # it ends by itself, later
            cancelled = get_or_create_autoscaling_coordinator().cancel_request.remote(f"train-{self._run_id}")
            ray.get(cancelled, timeout=AUTOSCALING_REQUESTS_GET_TIMEOUT_S)

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
