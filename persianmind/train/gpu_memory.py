"""A GPU that is out of memory, as one line: what was asked for, what there is, and what to set, in order of
effect."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator

from persianmind.common.errors import GpuMemoryError
from persianmind.recipe import Recipe

GIB = float(1 << 30)
MIN_CHUNK_TOKENS, MIN_SEQ_LEN, MIN_RANK = 128, 512, 8
_SIZE = r"([\d.]+ (?:bytes|[KMGT]iB))"
# As torch's allocator words it (c10/cuda/CUDACachingAllocator.cpp).
_NUMBERS = {
    "asked": rf"Tried to allocate {_SIZE}",
    "gpu": r"GPU (\d+)",
    "total": rf"total capacity of {_SIZE}",
    "free": rf"of which {_SIZE} is free",
    "allocated": rf"Of the allocated memory {_SIZE} is allocated by PyTorch",
    "cached": rf"and {_SIZE} is reserved by PyTorch but unallocated",
}
_OTHERS = re.compile(rf"Process (\d+) has {_SIZE} memory in use")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether this says that a GPU has no memory left; torch is not imported."""
    text = str(error)
    if any(kind.__name__ == "OutOfMemoryError" for kind in type(error).__mro__):
        return True
    return "CUDA" in text and ("out of memory" in text or "CUBLAS_STATUS_ALLOC_FAILED" in text)


def memory_error(error: BaseException, recipe: Recipe) -> GpuMemoryError:
    """The one line."""
    text = str(error)
    found = {name: match[1] for name, pattern in _NUMBERS.items() if (match := re.search(pattern, text))}
    numbers = {**_read_now(), **found}
    gpu = f"GPU {numbers['gpu']}" if "gpu" in numbers else "a GPU"
    said = [
        f"{numbers['asked']} asked for" if "asked" in numbers else "",
        f"{numbers['free']} free" + (f" of {numbers['total']}" if "total" in numbers else "")
        if "free" in numbers
        else "",
        f"{numbers['allocated']} allocated" if "allocated" in numbers else "",
        f"peak {numbers['peak']}" if "peak" in numbers else "",
        *(f"process {pid} holds {size}" for pid, size in _OTHERS.findall(text)),
    ]
    details = ", ".join(part for part in said if part)
    free = [*_outside(text, numbers), *_free_knobs(recipe)]
    fixed = list(_fixed_knobs(recipe))
    parts = [
        f"what helps most first: {', '.join(free)}, and the same command goes on" if free else "",
        f"in another --output also {', '.join(fixed)}" if fixed else "",
    ]
    advice = "; ".join(filter(None, parts)) or (
        "the recipe is at its smallest: take a smaller base or a larger GPU (`persianmind plan`)"
    )
    return GpuMemoryError(f"{gpu} is out of memory ({details or 'no numbers given'}); {advice}")


def _read_now() -> dict[str, str]:
    """What torch itself knows, where it is loaded and has touched a GPU."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return {}
    try:
        free, total = torch.cuda.mem_get_info()
        read = {"free": free, "total": total, "peak": torch.cuda.max_memory_allocated()}
        index = torch.cuda.current_device()
    except RuntimeError:  # a GPU that failed answers nothing
        return {}
    return {"gpu": str(index), **{name: f"{size / GIB:.2f} GiB" for name, size in read.items()}}


def _outside(text: str, numbers: dict[str, str]) -> Iterator[str]:
    """What is no key of the recipe."""
    if others := [pid for pid, _ in _OTHERS.findall(text)]:
        yield f"end the other program(s) on this GPU (pid {', '.join(others)})"
    set_already = "expandable_segments" in "".join(
        os.environ.get(name, "") for name in ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")
    )
    unused, asked = (_bytes(numbers.get(name, "0 bytes")) for name in ("cached", "asked"))
    if unused > asked > 0 and not set_already:  # there is room, in pieces that are too small
        yield "PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True"


def _free_knobs(recipe: Recipe) -> Iterator[str]:
    """Keys that take less memory than they do now and may change in a run, in order of effect."""
    train = recipe.train
    if train.micro_batch_size > 1:
        yield "train.micro_batch_size=1"
    if train.gradient_checkpointing != "full":
        yield "train.gradient_checkpointing=full"
    if train.loss_chunk_tokens > MIN_CHUNK_TOKENS:
        yield f"train.loss_chunk_tokens={MIN_CHUNK_TOKENS}"


def _fixed_knobs(recipe: Recipe) -> Iterator[str]:
    """The same, of keys that make it another run."""
    if recipe.train.quantize != "nf4":
        yield "train.quantize=nf4"
    for place, length in recipe.seq_len_keys().items():
        if length == recipe.longest_seq_len > MIN_SEQ_LEN:
            yield f"{place}={max(MIN_SEQ_LEN, length // 2)}"
    if recipe.adapter.rank > MIN_RANK:
        yield f"adapter.rank={MIN_RANK}"
    if recipe.vocab.train_embeddings == "all":
        yield "vocab.train_embeddings=new"


def _bytes(size: str) -> float:
    number, unit = size.split()
    return float(number) * 1024.0 ** ["bytes", "KiB", "MiB", "GiB", "TiB"].index(unit)
