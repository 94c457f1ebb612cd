"""Which of torch's AdamW kernels updates the weights: none of them needs a CUDA toolkit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def adamw_kernel(device: torch.device) -> Mapping[str, bool]:
    """Arguments of torch.optim.AdamW: one kernel for moments and weights on a GPU; elsewhere the loops over
    lists of tensors, of the same bits as the plain loop and with fewer temporaries."""
    on_gpu = device.type != "cpu"
    return {"fused": on_gpu, "foreach": not on_gpu}


def keep_kernel(optimizer: torch.optim.Optimizer, device: torch.device) -> None:
    """Undoes what a checkpoint says of the kernel: it may come from another device, or from before there was
    a choice. The fused kernel reads the step counters on its device, the others on the host.

    Args:
        optimizer: torch's own, within DeepSpeed's.
    """
    kernel = adamw_kernel(device)
    for group in optimizer.param_groups:
        group.update(kernel)
    for state in optimizer.state.values():
        step: Any = state.get("step")
        if step is not None:
            state["step"] = step.to(device if kernel["fused"] else "cpu")
