"""`persianmind data`: one JSON object, one line for every mistake, and no torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.data.helpers import make_bpe, sentences, write_jsonl

_RUN = """
import sys
from persianmind.common.console import run_guarded
from persianmind.data.commands import app
codes = []
code = run_guarded(lambda: codes.append(app(sys.argv[1:], standalone_mode=False)))
code = code or (codes[0] or 0)
print("torch" in sys.modules, file=sys.stderr)
sys.exit(code)
"""


def persianmind_data(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", _RUN, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def as_json(*arguments: str | Path, returncode: int = 0) -> dict[str, Any]:
    result = persianmind_data(*arguments, "--json")
    assert result.returncode == returncode, result.stderr
    assert result.stderr.splitlines()[-1] == "False", "the data package needs no torch"
    value: dict[str, Any] = json.loads(result.stdout)
    return value


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    records: list[dict[str, Any]] = [{"text": text} for text in sentences(60)]
    write_jsonl(folder / "a.jsonl", [*records[:30], {"text": None}])
    write_jsonl(folder / "b.jsonl", [*records[30:], records[3]])
    return folder


@pytest.fixture(scope="module")
def built(corpus: Path, bpe_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("built")
    # as a shell expands --source *.jsonl
    value = as_json(
        "build", "--source", *sorted(corpus.glob("*.jsonl")), "--tokenizer", bpe_dir, "--out", out,
        "--seq-len", "64", "data.sequences_per_shard=10",
    )  # fmt: skip
    assert value["documents"] == 60 and value["rejected"] == {"null_text": 1}
    assert value["dropped"] == {"exact_duplicate": 1} and value["tokens_lost"] == 0
    return out


def test_build_and_inspect_give_the_same_counts(built: Path) -> None:
    value = as_json("inspect", built)
    for key in (
        "sequences",
        "tokens",
        "fill",
        "documents",
        "documents_cut",
        "tokens_lost",
        "rejected",
        "sources",
    ):
        assert key in value
    assert value["sequences"] == value["sources"]["source"]["sequences"] > 10
    assert 0.8 < value["fill"] <= 1.0
    assert value["sources"]["source"]["seq_len"] == 64


def test_lengths_of_stages_are_built_and_told_apart(corpus: Path, bpe_dir: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "two.yaml"
    recipe.write_text(
        f"name: two\nbase: none\nsources: {{fa: {{uri: {corpus}/b.jsonl}}}}\ndata: {{seq_len: 64}}\n"
        "stages:\n  - {name: one, sources: {fa: 1.0}, epochs: 1}\n"
        "  - {name: two, sources: {fa: 1.0}, epochs: 1, seq_len: 32}\n",
        encoding="utf-8",
    )
    built = as_json("build", "--recipe", recipe, "--tokenizer", bpe_dir, "--out", tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {"fa", "fa@32"}
    assert {name: one["seq_len"] for name, one in built["sources"].items()} == {"fa@64": 64, "fa@32": 32}
    assert as_json("inspect", tmp_path / "out") == built
    one = as_json("inspect", tmp_path / "out" / "fa@32")
    assert [*one["sources"]] == ["fa"] and one["tokens"] == built["tokens"] / 2
    asked = ("stats", "--recipe", recipe, "--tokenizer", bpe_dir)
    found = [as_json(*asked, f"stages.1.seq_len={length}")["sources"]["fa"] for length in (32, 64)]
    assert found[0]["documents_over_seq_len"] > found[1]["documents_over_seq_len"]


def test_inspect_shows_a_sequence_as_text(built: Path, bpe_dir: Path) -> None:
    sequence = as_json("inspect", built / "source", "--sequence", "1", "--tokenizer", bpe_dir)
    assert sum(document["tokens"] for document in sequence["documents"]) + sequence["padding"] == 64
    assert any("<|endoftext|>" in document["text"] for document in sequence["documents"])
    shown = persianmind_data("inspect", built / "source", "--sequence", "1", "--tokenizer", bpe_dir)
    assert "--- document 0:" in shown.stdout and "--- padding:" in shown.stdout


def test_check_counts_and_writes_nothing(corpus: Path, tmp_path: Path) -> None:
    before = sorted(path.name for path in corpus.iterdir())
    value = as_json("check", "--source", corpus)
    finding = value["sources"]["source"]
    assert finding["records_read"] == 62 and finding["documents"] == 60
    assert finding["rejected"] == {"null_text": 1} and finding["dropped"] == {"exact_duplicate": 1}
    assert finding["verdict"] == "usable"
    assert finding["samples"]["null_text"][0]["place"] == "a.jsonl:31"
    assert sorted(path.name for path in corpus.iterdir()) == before
    strict = as_json("check", "--source", corpus, "data.max_bad_record_ratio=0.001", returncode=1)
    assert strict["sources"]["source"]["verdict"].startswith("too many bad records: 1 of 62")


def test_check_names_place_fields_fix_and_fails(tmp_path: Path) -> None:
    """Nothing usable: exit 1; each reason whole, with paths below the folder, in a pipe and as JSON."""
    inner = tmp_path / "set" / "deep"
    write_jsonl(inner / "a.jsonl", [{"txet": "سلام", "id": 1}] * 4)
    (inner / "b.jsonl").write_bytes('{"text": "سلام"}\n'.encode("cp1256") + b'{"text": "\x1b[2J\\u0000"}\n')
    found = persianmind_data("check", "--source", tmp_path / "set")
    assert found.returncode == 1 and "no usable document" in found.stdout
    lines = found.stdout.splitlines()
    missing = next(i for i, line in enumerate(lines) if "missing_field" in line)
    assert (
        "rejected 4: missing_field - there is no 'text' (did you mean 'txet'?); set text_field"
        in lines[missing]
    )
    assert lines[missing + 1].strip().startswith("deep/a.jsonl:1 (fields: id, txet): ")
    assert any("invalid_utf8 - convert the file" in line for line in lines)
    assert "deep/b.jsonl:1" in found.stdout and "\x1b" not in found.stdout
    finding = as_json("check", "--source", tmp_path / "set", returncode=1)["sources"]["source"]
    assert finding["samples"]["missing_field"][0]["fields"] == ["id", "txet"]
    assert not any("b'" in one["sample"] for kept in finding["samples"].values() for one in kept)


def test_tables_for_people(corpus: Path, built: Path) -> None:
    assert "usable" in persianmind_data("check", "--source", corpus).stdout
    assert "token shards" in persianmind_data("inspect", built).stdout


MISTAKES: list[tuple[list[str], str]] = [
    (["check"], "give either --recipe or one or more --source"),
    (["check", "--source", "{corpus}/none.jsonl"], "no such file"),
    (["check", "--source", "{corpus}", "data.seq_lenn=5"], "did you mean 'seq_len'"),
    (["check", "--recipe", "nonesuch"], "no recipe 'nonesuch'"),
    (["inspect", "{corpus}"], "build them first"),
    (["inspect", "{built}/source", "--sequence", "999999"], "has the sequences 0 to"),
    (["inspect", "{built}/source", "--sequence", "0", "--tokenizer", "{other}"], "is not the tokenizer"),
    (
        ["build", "--source", "{corpus}", "--tokenizer", "{corpus}", "--out", "{corpus}/x"],
        "no tokenizer.json",
    ),
]


@pytest.mark.parametrize(("arguments", "message"), MISTAKES, ids=[m[1] for m in MISTAKES])
def test_mistakes_are_one_line(
    arguments: list[str], message: str, corpus: Path, built: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    if "{other}" in arguments:
        make_bpe(other, vocab_size=400, seed=4)
    places = {"corpus": corpus, "built": built, "other": other}
    result = persianmind_data(*(argument.format(**places) for argument in arguments))
    lines = result.stderr.splitlines()[:-1]
    assert result.returncode == 2 and len(lines) == 1 and message in lines[0], result.stderr
    assert result.stdout == "" and not (corpus / "x").exists()


def test_what_is_held_out_is_written_once_beside_the_shards(
    corpus: Path, bpe_dir: Path, tmp_path: Path
) -> None:
    heldout = "heldout.sources=[source]", "heldout.ratio=0.3"
    arguments = ["--source", corpus, "--tokenizer", bpe_dir, "--out", tmp_path / "out", *heldout]
    value = as_json("build", *arguments)
    written = (tmp_path / "out" / "heldout" / "fa.jsonl").read_text(encoding="utf-8").splitlines()
    assert 5 < len(written) <= value["documents_held_out"]
    left_out = value["documents_held_out"] + sum(value["dropped"].values())
    assert value["documents"] + left_out == 61, "all but the null text"
    time_ns = (tmp_path / "out" / "heldout" / "fa.jsonl").stat().st_mtime_ns
    assert as_json("build", *arguments) == value
    assert (tmp_path / "out" / "heldout" / "fa.jsonl").stat().st_mtime_ns == time_ns
    found = as_json("check", "--source", corpus, *heldout)["sources"]["source"]
    assert found["held_out"] == value["documents_held_out"] and found["documents"] == value["documents"]


def test_help_imports_nothing_large() -> None:
    """What makes a command slow to start; the control is that the build imports some of it."""
    code = "import sys; from persianmind.data.commands import app\n"
    code += "try: app(['--help'])\nexcept SystemExit: print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    modules = done.stderr.split()
    assert "build" in done.stdout and "typer" in modules
    assert not {"torch", "transformers", "tokenizers", "numpy", "pyarrow", "datasets"} & set(modules)
