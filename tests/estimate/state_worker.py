"""One rank of test_static.py: what DeepSpeed holds and allocates, beside the plan. Rank 0 writes to OUT."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from persianmind.engine.deepspeed.config import resolve_deepspeed_config
from persianmind.engine.deepspeed.engine import DeepSpeedEngine
from persianmind.engine.deepspeed.start import prepare_environment, start_distributed
from persianmind.engine.groups import GROUPS
from persianmind.engine.ranks import Ranks, ranks_from_environment
from persianmind.estimate.peak import device_peak
from persianmind.estimate.shapes import meta_model
from persianmind.estimate.static import resident_bytes, step_bytes
from persianmind.estimate.trace import trace_micro_batch
from persianmind.model.adapted import build_adapted
from persianmind.recipe.loading import load_recipe
from tests.estimate.real_models import packed, profiled_peak

VOCAB, ADDED, LENGTH = 96, 20_000, 32
CONFIG = {
    "model_type": "llama", "vocab_size": VOCAB, "hidden_size": 32, "intermediate_size": 48,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": False,
}  # fmt: skip
ZERO = {"stage": 2, "reduce_bucket_size": 200_000, "allgather_bucket_size": 200_000}


def main() -> None:
    """Both precisions over one process group."""
    prepare_environment()
    torch.set_num_threads(1)
    ranks = ranks_from_environment()
    seen = {}
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder) / "base"
        torch.manual_seed(0)  # before the group: within one, transformers writes on rank 0 alone
        AutoModelForCausalLM.from_config(AutoConfig.for_model(**CONFIG)).save_pretrained(base)
        start_distributed(ranks)
        for precision in ("bf16", "fp32"):
            seen[precision] = _case(precision, ranks, Path(folder))
    if ranks.rank == 0:
        Path(os.environ["OUT"]).write_text(json.dumps(seen), encoding="utf-8")
    os._exit(0)


def _case(precision: str, ranks: Ranks, folder: Path) -> dict[str, Any]:
    recipe = load_recipe(
        "tiny",
        [f"train.precision={precision}", f"data.seq_len={LENGTH}", "train.global_batch_size=4",
         "adapter.rank=3", "train.loss_chunk_tokens=16"],
    )  # fmt: skip
    model = build_adapted(folder / "base", recipe, [[1]] * ADDED, VOCAB)
    (folder / "ds.json").write_text(json.dumps({"zero_optimization": ZERO}), encoding="utf-8")
    config = resolve_deepspeed_config(folder / "ds.json", recipe, ranks.world_size)
    engine = DeepSpeedEngine(model, config, ranks)
    engine.set_rates(dict.fromkeys(GROUPS, 1e-3))
    batches = [packed(LENGTH, LENGTH)] * 2
    engine.step(batches)  # type: ignore[arg-type]
    zero = engine._deepspeed.optimizer
    bucket: dict[str, int] = {}
    setup = zero.setup_buckets

    def noting() -> None:
        setup()
        held = [one for each in zero.ipg_buckets.values() for one in each.buffer]
        bucket["bytes"] = sum(map(_bytes, held))

    zero.setup_buckets = noting
    measured = profiled_peak(lambda: engine.step(batches), folder / "trace.json")  # type: ignore[arg-type]
    planned_model = meta_model(recipe, CONFIG, VOCAB, ADDED)
    resident = resident_bytes(planned_model, ranks.world_size)
    step = step_bytes(planned_model, config, ranks.world_size, device="cpu")
    trace = trace_micro_batch(planned_model, 1, LENGTH, on_cpu=True)
    peak = device_peak(resident, step, trace, accumulation=2, on_gpu=False)
    states = list(zero.optimizer.state.values())
    held = {
        "flat": sum(map(_bytes, zero.bit16_groups_flat)),
        "masters": sum(map(_bytes, zero.single_partition_of_fp32_groups)),
        "moments": sum(_bytes(state[key]) for state in states for key in ("exp_avg", "exp_avg_sq")),
        "buckets": bucket["bytes"],
    }
    planned = {
        "flat": resident.new_embeddings + resident.adapters + resident.flat_padding,
        "masters": resident.masters,
        "moments": resident.moments,
        "buckets": step.reduction["reduce_buckets"],
    }
    engine.close()
    return {
        "held": held,
        "planned": planned,
        "measured_peak": measured,
        "planned_peak": peak.allocated - resident.total,
        "phases": peak.phases,
    }


def _bytes(value: torch.Tensor) -> int:
    return value.numel() * value.element_size()


if __name__ == "__main__":
    main()
