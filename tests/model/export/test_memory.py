"""Memory of an export does not grow with the number of layers: the host holds the tables and one weight."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.launch import ROOT

pytestmark = [pytest.mark.more, pytest.mark.integration]

VOCAB, ADDED, HIDDEN, INTERMEDIATE = 32_000, 9_510, 2_048, 5_632
TABLES_MB = 2 * (VOCAB + ADDED) * HIDDEN * 2 / 1e6
LARGEST_MB = (VOCAB + ADDED) * HIDDEN * 2 / 1e6
# A base of that shape in fp16, adapters on every projection, exported in bf16; anonymous memory beyond what
# the imports hold. "whole" merges as a model in memory does: the control.
SCRIPT = """
import sys
from pathlib import Path
import torch, peft
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig
from persianmind.model.export.merged import MergedTensors
from persianmind.model.export.trained import TrainedWeights
from persianmind.model.export.writer import write_safetensors, write_weights
from persianmind.recipe import Adapter
from tests.support.memory import AnonymousPeak

folder, how = Path(sys.argv[1]), sys.argv[2]
layers, vocab, added, hidden, intermediate = map(int, sys.argv[3:])
config = LlamaConfig(vocab_size=vocab, hidden_size=hidden, intermediate_size=intermediate,
                     num_hidden_layers=layers, num_attention_heads=32, num_key_value_heads=4)
base = folder / "base"
config.save_pretrained(base)
with torch.device("meta"):
    model = AutoModelForCausalLM.from_config(config)
shapes = {name: tuple(value.shape) for name, value in model.named_parameters()}
write_safetensors(base / "model.safetensors", shapes, torch.float16,
                  lambda name: torch.zeros(shapes[name], dtype=torch.float16))
tensors = {}
for name, module in model.named_modules():
    if isinstance(module, nn.Linear) and "layers" in name:
        place = f"causal_lm.{name}"
        tensors[f"{place}.lora_A.default.weight"] = torch.zeros(8, module.in_features, dtype=torch.bfloat16)
        tensors[f"{place}.lora_B.default.weight"] = torch.zeros(module.out_features, 8, dtype=torch.bfloat16)
for name in ("model.embed_tokens", "lm_head"):
    tensors[f"causal_lm.{name}.table.new_AD"] = torch.zeros(added, hidden, dtype=torch.bfloat16)
trained = TrainedWeights(tensors, Adapter(), vocab)

with AnonymousPeak() as peak:
    merged = MergedTensors(base, trained, dtype=torch.bfloat16)
    if how == "whole":
        kept = {name: merged.load(name) for name in merged.shapes()}
        write_safetensors(folder / "out.safetensors", merged.shapes(), torch.bfloat16, kept.pop)
    else:
        write_weights(folder, merged, torch.bfloat16)
print(peak.mb)
"""


def export_mb(folder: Path, how: str, layers: int) -> float:
    """Anonymous memory that one process takes for the export, at most."""
    shape = map(str, (layers, VOCAB, ADDED, HIDDEN, INTERMEDIATE))
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(folder), how, *shape],
        capture_output=True, text=True, cwd=ROOT, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    print(how, layers, done.stdout)
    return float(done.stdout)


@pytest.fixture(scope="module")
def ours_mb(tmp_path_factory: pytest.TempPathFactory) -> dict[int, float]:
    """By number of layers."""
    return {layers: export_mb(tmp_path_factory.mktemp("ours"), "ours", layers) for layers in (8, 16)}


def test_peak_is_the_same_for_8_and_16_layers(ours_mb: dict[int, float]) -> None:
    assert abs(ours_mb[16] - ours_mb[8]) < 100
    assert max(ours_mb.values()) < TABLES_MB + 2 * LARGEST_MB + 800


def test_control_a_whole_model_in_memory_holds_its_layers(ours_mb: dict[int, float], tmp_path: Path) -> None:
    assert export_mb(tmp_path, "whole", 8) - ours_mb[8] > 500
