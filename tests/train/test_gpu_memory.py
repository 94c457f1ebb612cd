"""A GPU out of memory as one line: the numbers and the knobs; the GPU is imitated."""

from __future__ import annotations

import pytest

from persianmind.recipe import Recipe
from persianmind.run.identity import FIXED
from persianmind.run.keys import KEYS
from persianmind.train import gpu_memory
from tests.model.helpers import make_recipe
from tests.train.gpu_texts import ADVICE, MEMORY, NCCL, OTHERS, PIECES, ROOMY, SETTINGS, line

torch = pytest.importorskip("torch")


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)


def test_imitated_out_of_memory_has_the_numbers_and_the_knobs_in_order_of_effect() -> None:
    said = line(torch.OutOfMemoryError(MEMORY), make_recipe(**ROOMY))
    assert said == (
        "GPU 2 is out of memory (576.00 MiB asked for, 370.69 MiB free of 23.64 GiB, 21.89 GiB allocated); "
        "what helps most first: train.micro_batch_size=1, train.gradient_checkpointing=full, "
        "train.loss_chunk_tokens=128, and the same command goes on; in another --output also "
        "train.quantize=nf4, data.seq_len=1024, adapter.rank=8, vocab.train_embeddings=new"
    )


def _knobs(recipe: Recipe) -> list[str]:
    return [*gpu_memory._free_knobs(recipe), *gpu_memory._fixed_knobs(recipe)]


def test_imitated_out_of_memory_names_no_knob_that_is_set() -> None:
    said = line(torch.OutOfMemoryError(MEMORY))
    assert "train." not in said and "at its smallest" in said and "370.69 MiB free" in said


def test_every_knob_is_a_key_of_the_recipe_and_takes_effect() -> None:
    """Applied one after the other, the knobs lead to a recipe for which none is left."""
    recipe = make_recipe(**ROOMY)
    knobs = _knobs(recipe)
    assert all(KEYS[one.split("=")[0]] not in FIXED for one in gpu_memory._free_knobs(recipe))
    assert all(KEYS[one.split("=")[0]] in FIXED for one in gpu_memory._fixed_knobs(recipe))
    while knobs:
        key, value = knobs[0].split("=")
        section, name = key.split(".")
        changed = {**recipe.model_dump()[section], name: int(value) if value.isdigit() else value}
        recipe = Recipe.model_validate({**recipe.model_dump(), section: changed})
        left = _knobs(recipe)
        assert left == knobs[1:] or left[0].startswith("data.seq_len")  # halved more than once
        knobs = left


def test_imitated_out_of_memory_names_the_longest_stage() -> None:
    stages = [
        {"name": name, "sources": {"a": 1.0}, "tokens": 1, "seq_len": length}
        for name, length in (("one", None), ("two", 4096))
    ]
    said = line(torch.OutOfMemoryError(MEMORY), make_recipe(**ROOMY | {"stages": stages}))
    assert "stages.1.seq_len=2048" in said and "data.seq_len" not in said


def test_imitated_out_of_memory_names_other_programs_first() -> None:
    said = line(torch.OutOfMemoryError(OTHERS), make_recipe(**ROOMY))
    assert "process 16335 holds 15.34 GiB" in said
    assert "first: end the other program(s) on this GPU (pid 16335), train.micro_batch_size=1" in said


def test_imitated_fragmentation_is_named_unless_segments_expand(monkeypatch: pytest.MonkeyPatch) -> None:
    expand = "PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True"
    assert expand in line(torch.OutOfMemoryError(PIECES))
    assert expand not in line(torch.OutOfMemoryError(MEMORY))
    monkeypatch.setenv("PYTORCH_ALLOC_CONF", "expandable_segments:True")
    assert expand not in line(torch.OutOfMemoryError(PIECES))


@pytest.mark.parametrize(
    "error",
    [
        torch.AcceleratorError("CUDA error: out of memory" + ADVICE),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        torch.distributed.DistBackendError(
            NCCL.format(
                kind="unhandled cuda error",
                interpreted="ncclUnhandledCudaError: Call to CUDA function failed.",
                last="Cuda failure 2 'out of memory'",
            )
        ),
    ],
)
def test_imitated_memory_errors_without_numbers_take_those_of_torch(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    gib = 1 << 30
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (gib // 4, 24 * gib))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 22 * gib)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    assert line(error).startswith("GPU 1 is out of memory (0.25 GiB free of 24.00 GiB, peak 22.00 GiB); ")
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    assert line(error).startswith("a GPU is out of memory (no numbers given); ")
