"""Bad input ends in one line with nothing written; report and plan say what the tokenizers do."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from persianmind.common.errors import (
    EmptyCorpusError,
    PersianMindError,
    SourceError,
    UsageError,
    VocabError,
)
from persianmind.language.persian import PROFILE as PERSIAN
from persianmind.launch.vocab_commands import app
from persianmind.vocab.build import build_vocab, read_corpus
from persianmind.vocab.expansion import load_expansion
from persianmind.vocab.families import open_base
from persianmind.vocab.pieces import learn_exactly
from persianmind.vocab.report import fertility_svg, make_report
from persianmind.vocab.texts import read_texts
from tests.vocab.helpers import NEW_TOKENS, package_texts, variant


@pytest.fixture(scope="session")
def text_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "fa.jsonl"
    lines = [json.dumps({"text": text}, ensure_ascii=False) for text in package_texts()]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def run_command(*arguments: object) -> Any:
    """Runs a command; an error of ours propagates, as the console script's guard expects."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if isinstance(result.exception, PersianMindError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def as_unigram(tree: dict[str, Any]) -> None:
    tree["model"] = {"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], ["a", -1.0]]}


def as_word_piece(tree: dict[str, Any]) -> None:
    tree["model"] = {"type": "WordPiece", "unk_token": "x", "vocab": {"x": 0}}


def as_metaspace(tree: dict[str, Any]) -> None:
    tree["pre_tokenizer"] = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always"}


@pytest.mark.parametrize(
    ("change", "message"),
    [(as_unigram, "Unigram"), (as_word_piece, "WordPiece"), (as_metaspace, "tokenizer.model beside")],
)
def test_tokenizers_of_another_kind(
    change: Callable[[dict[str, Any]], None], message: str, smollm2: Path, tmp_path: Path
) -> None:
    base = variant(smollm2, tmp_path / "base", change)
    with pytest.raises(VocabError, match=message):
        build_vocab(base, lambda: iter(package_texts()), tmp_path / "out", new_tokens=10, profile=PERSIAN)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model_type": "unigram", "normalization_rule_name": "identity"}, "Unigram"),
        ({"model_type": "bpe", "normalization_rule_name": "nmt_nfkc", "byte_fallback": True}, "ZWNJ"),
        ({"model_type": "bpe", "normalization_rule_name": "identity"}, "byte fallback"),
    ],
)
def test_sentencepiece_models_that_cannot_be_exact(
    options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    import sentencepiece

    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(package_texts()[:60]),
        model_prefix=str(tmp_path / "m"),
        vocab_size=400,
        remove_extra_whitespaces=False,
        minloglevel=2,
        **options,
    )
    with pytest.raises(VocabError, match=message):
        open_base(tmp_path / "m.model")


def test_bases_that_are_not_there_or_damaged(smollm2: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "junk.model").write_bytes(b"\xff\x00 not a model")
    damaged = variant(smollm2, tmp_path / "damaged", lambda tree: None)
    (damaged / "tokenizer.json").write_bytes((damaged / "tokenizer.json").read_bytes()[:5_000])
    no_merges = variant(smollm2, tmp_path / "no-merges", lambda tree: tree["model"].pop("merges"))
    places = {
        tmp_path / "nowhere": "no base tokenizer",
        tmp_path / "empty": "no tokenizer folder",
        tmp_path / "junk.model": "cannot be read",
        damaged: "not valid JSON",
        no_merges: "cannot be read",
    }
    for place, message in places.items():
        with pytest.raises(VocabError, match=message):
            open_base(place)


def test_nothing_is_overwritten(smollm2: Path, tmp_path: Path) -> None:
    (tmp_path / "keep").write_text("mine")
    with pytest.raises(VocabError, match="exists"):
        build_vocab(smollm2, lambda: iter(package_texts()), tmp_path, new_tokens=10, profile=PERSIAN)
    assert [path.name for path in tmp_path.iterdir()] == ["keep"]


@pytest.mark.parametrize("documents", [[], [""], ["only English here", "print(1)"]])
def test_text_without_persian(documents: list[str], smollm2: Path, tmp_path: Path) -> None:
    with pytest.raises(EmptyCorpusError, match="holds no Persian word"):
        build_vocab(smollm2, lambda: iter(documents), tmp_path / "out", new_tokens=10, profile=PERSIAN)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("more", [{"new_tokens": 5_000}, {"new_tokens": 0, "train_size": 5_000}])
def test_more_than_the_text_supports(more: dict[str, int], smollm2: Path, tmp_path: Path) -> None:
    with pytest.raises(VocabError, match="the text supports"):
        build_vocab(smollm2, lambda: iter(package_texts()[:20]), tmp_path / "out", **more, profile=PERSIAN)  # type: ignore
    assert not (tmp_path / "out").exists()


def test_the_number_it_says_the_text_supports_is_right(smollm2: Path, tmp_path: Path) -> None:
    base = open_base(smollm2)
    units = read_corpus(base, lambda: iter(package_texts()[:20]), PERSIAN).units
    with pytest.raises(VocabError) as caught:
        learn_exactly(base, units, 5_000, PERSIAN)
    most = int(str(caught.value).split("supports ")[1].split()[0])
    assert len(learn_exactly(base, units, most, PERSIAN).pieces) == most
    with pytest.raises(VocabError):
        learn_exactly(base, units, most + 1, PERSIAN)


def test_a_bpe_too_small_for_its_own_characters(smollm2: Path, tmp_path: Path) -> None:
    with pytest.raises(VocabError, match="no space"):
        build_vocab(
            smollm2,
            lambda: iter(package_texts()),
            tmp_path / "out",
            new_tokens=0,
            train_size=270,
            profile=PERSIAN,
        )


def test_a_second_pad_token(built: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(VocabError, match="already has"):
        build_vocab(
            built["mistral"],
            lambda: iter(()),
            tmp_path / "out",
            new_tokens=0,
            pad_token=True,
            profile=PERSIAN,
        )


def test_text_that_is_not_utf8(smollm2: Path, tmp_path: Path) -> None:
    (tmp_path / "fa.txt").write_bytes("كتاب عربي\n".encode("cp1256") * 50 + "متن فارسی\n".encode())
    with pytest.raises(SourceError, match=r"50 of 51 records are bad"):
        run_command("build", "--base", smollm2, "--text", tmp_path / "fa.txt", "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_path_that_names_nothing(smollm2: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="nowhere"):
        run_command(
            "build", "--base", smollm2, "--text", tmp_path / "nowhere.jsonl", "--out", tmp_path / "out"
        )


def test_build_command(smollm2: Path, text_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    found = run_command(
        "build", "--base", smollm2, "--text", text_file, "--out", out, "--language", "fa",
        "--new-tokens", 50, "--pad-token", "--json",
    )  # fmt: skip
    assert (found["added"], found["pad_id"], found["size"]) == (51, 49_202, 49_203)
    assert found["fertility_after"] < found["fertility_before"]
    assert load_expansion(out).size == found["size"]


def test_report(bases: dict[str, Path], built: dict[str, Path], text_file: Path, tmp_path: Path) -> None:
    poem = tmp_path / "poem.txt"
    poem.write_text("الا یا ایها الساقی\nabc def ghi\n", encoding="utf-8")
    svg = tmp_path / "fertility.svg"
    found = run_command(
        "report", "--base", bases["smollm2"], "--expanded", built["smollm2"],
        "--text", text_file, "--text", poem, "--plot", svg, "--json",
    )  # fmt: skip
    whole, small = found["files"]
    base, expanded = open_base(bases["smollm2"]), open_base(built["smollm2"])
    lines = ["الا یا ایها الساقی", "abc def ghi"]
    assert small["words"] == 7
    for name, tokenizer in (("base", base), ("expanded", expanded)):
        tokens = sum(map(len, tokenizer.encode(lines)))
        assert small[name]["tokens"] == tokens
        assert small[name]["tokens_per_word"] == pytest.approx(tokens / 7, abs=1e-4)
        assert small[name]["characters_per_token"] == pytest.approx(sum(map(len, lines)) / tokens, abs=1e-4)
    assert found["total"]["base"]["tokens"] == whole["base"]["tokens"] + small["base"]["tokens"]
    assert whole["expanded"]["whole_words"] > 0.3 > whole["base"]["whole_words"]
    assert found["added"] == NEW_TOKENS and found["unreachable"] == []
    assert len(found["unused"]) < 0.1 * NEW_TOKENS
    assert svg.read_text().count("<rect") == 6 and "script" not in svg.read_text()


def test_report_sees_unused_and_unreachable_pieces(
    bases: dict[str, Path], built: dict[str, Path], tmp_path: Path
) -> None:
    lost = variant(built["smollm2"], tmp_path / "lost", lambda tree: tree["model"]["merges"].pop())
    report = make_report(
        open_base(bases["smollm2"]), open_base(lost), {"<a>": lambda: iter(["سلام بر تو"])}, PERSIAN
    )
    assert len(report.unreachable) == 1
    assert NEW_TOKENS - 4 < len(report.unused) < NEW_TOKENS
    assert "&lt;a&gt;" in fertility_svg(report)
    with pytest.raises(VocabError, match="not made from this base"):
        make_report(open_base(bases["mistral"]), open_base(lost), {}, PERSIAN)
    with pytest.raises(VocabError, match="not made from this base"):
        make_report(open_base(bases["llama-3-like"]), open_base(lost), {}, PERSIAN)


def test_plan_command(smollm2: Path, text_file: Path) -> None:
    arguments = ("plan", "--base", smollm2, "--text", text_file)
    found = run_command(
        *arguments, "--sizes", "50,100", "--hidden", 64, "--parameters", 10**6, "--tied", "--json"
    )
    assert [choice["added_parameters"] for choice in found["choices"]] == [0, 50 * 64, 100 * 64]
    for bad in ("a,b", "0,5", "-3"):
        with pytest.raises(VocabError, match="whole numbers"):
            run_command(*arguments, f"--sizes={bad}", "--json")
    with pytest.raises(VocabError, match="together"):
        run_command(*arguments, "--hidden", 64, "--json")
    for given in (("plan",), ("plan", "--base", smollm2), ("plan", "tiny", "--base", smollm2)):
        with pytest.raises(UsageError, match="give a recipe"):
            run_command(*given, "--json")


def test_texts_are_normalised_and_can_be_read_twice(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("كتابي\nمي‌روم\n", encoding="utf-8")
    texts = read_texts([str(path)], profile=PERSIAN)
    assert list(texts()) == list(texts()) == ["کتابی", "می‌روم"]


def test_help_loads_nothing_heavy() -> None:
    script = (
        "import sys; from persianmind.launch.vocab_commands import app\n"
        "heavy = {'torch', 'transformers', 'tokenizers', 'sentencepiece', 'numpy'} & set(sys.modules)\n"
        "sys.exit(f'loads {heavy}' if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
