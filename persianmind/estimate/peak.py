"""A rank's memory through a step, and the moment when it is highest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from persianmind.estimate.assumptions import CUBLAS, DeviceReserve, device_reserve
from persianmind.estimate.static import ResidentBytes, StepBytes
from persianmind.estimate.trace import MicroBatchTrace

# Kinds beside those of ResidentBytes, each 0 where it is not held at the highest moment.
CHANGING = (
    "fp32_accumulators", "activations", "gradients", "reduce_buckets", "reduce_copies", "gradient_partition",
    "update_temporaries",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class DevicePeak:
    """bytes: by kind, at the moment `phase`, when most is held. phases: what each moment holds. reserve: what
    the device needs beside tensors."""

    bytes: Mapping[str, int]
    phases: Mapping[str, int]
    phase: str
    reserve: DeviceReserve

    @property
    def allocated(self) -> int:
        """Bytes in tensors."""
        return self.phases[self.phase]

    @property
    def with_reserve(self) -> int:
        """What the device must have."""
        return self.allocated + self.reserve.total


def device_peak(
    resident: ResidentBytes,
    step: StepBytes,
    trace: MicroBatchTrace,
    *,
    accumulation: int,
    on_gpu: bool,
) -> DevicePeak:
    """The highest of three moments of a step.

    micro_batch: forward and backward of a late micro-batch, over the sums of those before. exchange: the
    sums, the gradients made of them, DeepSpeed's buckets. update: norm, clipping and AdamW over this rank's
    part.

    Args:
        accumulation: micro-batches of a step; the first has no sums beside it.
    """
    held: dict[str, int] = asdict(resident)
    held["cublas_workspace"] = int(CUBLAS.value) if on_gpu else 0
    moments: dict[str, dict[str, int]] = {
        "micro_batch": {
            "fp32_accumulators": step.fp32_accumulators if accumulation > 1 else 0,
            "activations": trace.peak_bytes - trace.gradient_bytes,
            "gradients": trace.gradient_bytes,
        },
        "exchange": {"fp32_accumulators": step.fp32_accumulators, **step.reduction},
        "update": {
            "gradient_partition": step.gradient_partition,
            "update_temporaries": step.update - step.gradient_partition,
        },
    }
    base = sum(held.values())
    phases = {name: base + sum(values.values()) for name, values in moments.items()}
    phase = max(phases, key=lambda name: phases[name])
    kinds = held | dict.fromkeys(CHANGING, 0) | moments[phase]
    reserve = device_reserve(phases[phase] - base) if on_gpu else DeviceReserve(0, 0, 0)
    return DevicePeak(kinds, phases, phase, reserve)
