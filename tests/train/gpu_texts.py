"""Texts of real GPU errors, and recipes with and without room to save memory."""

from __future__ import annotations

from typing import Any

from persianmind.recipe import Recipe
from persianmind.train.gpu_errors import named_gpu_error
from tests.model.helpers import make_recipe

MEMORY = (
    "CUDA out of memory. Tried to allocate 576.00 MiB. GPU 2 has a total capacity of 23.64 GiB of which "
    "370.69 MiB is free. Including non-PyTorch memory, this process has 22.55 GiB memory in use. Of the "
    "allocated memory 21.89 GiB is allocated by PyTorch, and 77.08 MiB is reserved by PyTorch but "
    "unallocated. If reserved but unallocated memory is large try setting "
    "PYTORCH_ALLOC_CONF=expandable_segments:True to avoid fragmentation.  See documentation for "
    "Memory Management  (https://pytorch.org/docs/stable/notes/cuda.html#environment-variables)"
)
OTHERS = MEMORY.replace("Including non", "Process 16335 has 15.34 GiB memory in use. Including non")
PIECES = MEMORY.replace("77.08 MiB is reserved", "6.08 GiB is reserved")
ADVICE = (
    "\nCUDA kernel errors might be asynchronously reported at some other API call, so the stacktrace below "
    "might be incorrect.\nFor debugging consider passing CUDA_LAUNCH_BLOCKING=1\nCompile with "
    "`TORCH_USE_CUDA_DSA` to enable device-side assertions.\n"
)
NCCL = (
    "NCCL error in: /pytorch/torch/csrc/distributed/c10d/NCCLUtils.cpp:94, {kind} (run with NCCL_DEBUG=INFO "
    "for details), NCCL version 2.28.9\n{interpreted}\nLast error:\n{last}"
)
ROOMY: dict[str, Any] = {
    "data": {"seq_len": 2048},
    "adapter": {"rank": 16},
    "vocab": {"train_embeddings": "all"},
    "train": {"precision": "bf16", "micro_batch_size": 4, "gradient_checkpointing": "off"},
}
TIGHT: dict[str, Any] = {
    "data": {"seq_len": 512},
    "adapter": {"rank": 8},
    "train": {
        "precision": "bf16",
        "quantize": "nf4",
        "loss_chunk_tokens": 128,
        "gradient_checkpointing": "full",
    },
}
SETTINGS = (
    "PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF",
    "NCCL_P2P_DISABLE", "NCCL_IB_DISABLE", "NCCL_SOCKET_IFNAME",
)  # fmt: skip


def line(error: BaseException, recipe: Recipe | None = None) -> str:
    named = named_gpu_error(error, recipe or make_recipe(**TIGHT))
    assert named is not None
    assert len(str(named).splitlines()) == 1
    return str(named)
