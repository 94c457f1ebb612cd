"""transformers 4 loads an export, and computes what transformers 5 computes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support import transformers4
from tests.support.corpus import TEXT_NAMES, sample_documents
from tests.support.exports import hand_made_export
from tests.support.transformers4 import run_in_transformers4

pytestmark = pytest.mark.more

IDS_AND_LOGITS = """
import torch
from pathlib import Path
folder, texts, logits = sys.argv[1:]
tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
model = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in json.loads(Path(texts).read_text())]
messages = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "there"}]
with torch.no_grad():
    torch.save(model(input_ids=torch.tensor([ids[0][:256]])).logits, logits)
answer(
    ids=ids, rope_theta=model.config.rope_theta, tokenizer=type(tokenizer).__name__,
    chat=tokenizer.apply_chat_template(messages), dtype=str(model.dtype),
)
"""


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return [text for name in TEXT_NAMES for text in sample_documents(name)[:50]] + ["1\u200c2\n\n 😀 x"]


def under_4(folder: Path, texts: list[str], tmp_path: Path) -> tuple[dict[str, Any], torch.Tensor]:
    (tmp_path / "texts.json").write_text(json.dumps(texts), encoding="utf-8")
    facts = run_in_transformers4(IDS_AND_LOGITS, folder, tmp_path / "texts.json", tmp_path / "logits.pt")
    return facts, torch.load(tmp_path / "logits.pt", weights_only=True)


def under_5(folder: Path, ids: list[int]) -> torch.Tensor:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    with torch.no_grad():
        logits: torch.Tensor = model(input_ids=torch.tensor([ids])).logits
    return logits


def set_rope_theta(folder: Path, theta: float, *, old_key: bool) -> None:
    """Another base of the rotation than transformers 4 takes by itself (10,000)."""
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["rope_parameters"]["rope_theta"] = theta
    config["rope_theta"] = theta
    if not old_key:
        del config["rope_theta"]
    path.write_text(json.dumps(config), encoding="utf-8")


def test_ids_prompts_and_logits_are_the_same(tmp_path: Path, texts: list[str]) -> None:
    from transformers import AutoTokenizer

    folder = hand_made_export(tmp_path / "export")
    set_rope_theta(folder, 500_000.0, old_key=True)
    facts, logits = under_4(folder, texts, tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert facts["ids"] == [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    messages = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "there"}]
    assert facts["chat"] == list(tokenizer.apply_chat_template(messages)["input_ids"])
    assert facts["rope_theta"] == 500_000.0 and facts["dtype"] == "torch.float32"
    assert (logits - under_5(folder, facts["ids"][0][:256])).abs().max() < 1e-5


def test_control_without_the_old_key_it_computes_something_else_in_silence(
    tmp_path: Path, texts: list[str]
) -> None:
    folder = hand_made_export(tmp_path / "export")
    set_rope_theta(folder, 500_000.0, old_key=False)
    facts, logits = under_4(folder, texts[:1], tmp_path)
    assert facts["rope_theta"] == 10_000.0
    assert (logits - under_5(folder, facts["ids"][0][:256])).abs().max() > 1e-3


def test_control_a_class_that_only_transformers_5_knows_is_refused(tmp_path: Path) -> None:
    folder = hand_made_export(tmp_path / "export")
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**config, "tokenizer_class": "TokenizersBackend"}), encoding="utf-8")
    with pytest.raises(RuntimeError, match="Tokenizer class TokenizersBackend does not exist"):
        run_in_transformers4("transformers.AutoTokenizer.from_pretrained(sys.argv[1])\nanswer()", folder)


def test_where_it_is_not_installed_it_says_how(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transformers4, "FOLDER", tmp_path)
    with pytest.raises(RuntimeError, match="`make setup` installs it"):
        run_in_transformers4("answer()")
