"""A base whose dtype is not the run's is loaded tensor by tensor: the host holds no copy of the model."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from tests.support.launch import ROOT

pytestmark = [pytest.mark.more, pytest.mark.integration]

LARGEST_MB = 32_000 * 2_048 * 2 / 1e6
MODEL_MB = 2_000  # 1.1 billion parameters
SCRIPT = """
import sys
from pathlib import Path
import torch
from transformers import AutoModelForCausalLM
from persianmind.model import attention
from persianmind.model.adapted import load_base
from persianmind.recipe.loading import load_recipe
from tests.support.memory import AnonymousPeak

folder = Path(sys.argv[1])
with AnonymousPeak() as peak:
    if sys.argv[2] == "ours":
        recipe = load_recipe("tiny", ["train.precision=bf16"])
        model = load_base(folder, recipe, torch.device("meta"))
    else:  # the whole model converted on the host, then moved
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
        model.to("meta")
assert {str(value.device) for value in model.parameters()} == {"meta"}
assert {value.dtype for value in model.parameters()} == {torch.bfloat16}
print(peak.mb)
"""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shape of a 1B model, stored in fp16 as Llama 2 is."""
    folder: Path = tmp_path_factory.mktemp("base") / "1b"
    config = LlamaConfig(
        vocab_size=32_000,
        hidden_size=2_048,
        intermediate_size=5_632,
        num_hidden_layers=22,
        num_attention_heads=32,
        num_key_value_heads=4,
    )
    with torch.device("meta"):
        model = LlamaForCausalLM(config).to(torch.float16)
    model.to_empty(device="cpu").save_pretrained(folder)
    return folder


def loading_mb(base: Path, how: str) -> float:
    """Anonymous memory that one process takes for it, at most."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(base), how],
        capture_output=True, text=True, cwd=ROOT, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return float(done.stdout)


def test_a_rank_that_loads_onto_an_imitated_gpu_holds_two_tensors_at_most(base: Path) -> None:
    assert loading_mb(base, "ours") < 2 * LARGEST_MB + 200


def test_control_the_ordinary_way_holds_the_whole_model(base: Path) -> None:
    assert loading_mb(base, "ordinary") > MODEL_MB
