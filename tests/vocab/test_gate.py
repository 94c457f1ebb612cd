"""The gate refuses what it must refuse: each promise is broken once, on purpose."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from persianmind.common.atomic import write_json
from persianmind.common.checksum import read_checked, write_checked
from persianmind.common.errors import ExactnessError, VocabError
from persianmind.language import LanguageProfile
from persianmind.language.persian import PROFILE as PERSIAN
from persianmind.vocab import pieces as pieces_module
from persianmind.vocab.build import build_vocab
from persianmind.vocab.expansion import VocabPiece, load_expansion
from persianmind.vocab.families import open_base
from persianmind.vocab.families.byte_bpe import ByteBPE, to_token
from persianmind.vocab.families.sentencepiece import SentencePieceBPE
from persianmind.vocab.foreign import foreign_samples
from persianmind.vocab.gate import HFTokenizer, check_exactness
from tests.vocab.helpers import mistral_model, package_texts, read_tree, texts
from tests.vocab.layouts import chatml, llama_2, phi_3, read_proto

DOCUMENTS = package_texts()[:200]


class Lenient(LanguageProfile):
    """Takes any piece."""

    def is_valid_piece(self, text: str) -> bool:
        return True


def run_gate(
    base: Path,
    folder: Path,
    pieces: tuple[VocabPiece, ...],
    pad: bool = False,
    profile: LanguageProfile = PERSIAN,
    documents: Sequence[str] = DOCUMENTS,
) -> None:
    check_exactness(
        open_base(base),
        HFTokenizer(folder),
        open_base(folder),
        pieces,
        pad=pad,
        documents=documents,
        records=range(1, len(documents) + 1),
        profile=profile,
    )


def new_pieces(folder: Path) -> tuple[VocabPiece, ...]:
    return tuple(piece for piece in load_expansion(folder).pieces if piece.base_ids)


def broken(folder: Path, tmp_path: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    copy = tmp_path / "broken"
    shutil.copytree(folder, copy)
    tree = read_tree(copy)
    change(tree)
    write_json(copy / "tokenizer.json", tree)
    return copy


@pytest.mark.parametrize("name", ["smollm2", "mistral"])
def test_what_was_built_passes(name: str, bases: dict[str, Path], built: dict[str, Path]) -> None:
    run_gate(bases[name], built[name], new_pieces(built[name]), pad=name == "mistral")


def drop_last_merge(tree: dict[str, Any]) -> None:
    tree["model"]["merges"].pop()


def normalise_zwnj_away(tree: dict[str, Any]) -> None:
    tree["normalizer"] = {"type": "Replace", "pattern": {"String": "\u200c"}, "content": " "}


def new_merges_first(tree: dict[str, Any]) -> None:
    """New merges rank before the base's: Persian pieces are then built in another order."""
    merges = tree["model"]["merges"]
    tree["model"]["merges"] = merges[48_900:][::-1] + merges[:48_900]


def one_id_too_many(tree: dict[str, Any]) -> None:
    tree["model"]["vocab"]["ĠØ§Ø§Ø§Ø§Ø§"] = len(tree["model"]["vocab"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop_last_merge, "can never be produced"),
        (new_merges_first, "can never be produced"),
        (one_id_too_many, "were asked for"),
        (normalise_zwnj_away, "differs from x"),
    ],
)
def test_a_broken_byte_level_tokenizer(
    change: Callable[[dict[str, Any]], None],
    message: str,
    bases: dict[str, Path],
    built: dict[str, Path],
    tmp_path: Path,
) -> None:
    folder = broken(built["smollm2"], tmp_path, change)
    with pytest.raises(ExactnessError, match=message):
        run_gate(bases["smollm2"], folder, new_pieces(built["smollm2"]))


def test_english_that_changes(bases: dict[str, Path], built: dict[str, Path], tmp_path: Path) -> None:
    base = open_base(bases["smollm2"])
    words = {word for text in foreign_samples() for word in re.findall(r"(?<= )[a-z]{6,}(?= )", text)}
    word = next(word for word in sorted(words) if len(base.ids_of(f" {word}")) == 2)

    def merge_that_word(tree: dict[str, Any]) -> None:
        vocab, merges = tree["model"]["vocab"], tree["model"]["merges"]
        token_of = {token_id: token for token, token_id in vocab.items()}
        last = max(vocab, key=vocab.__getitem__)
        vocab[f"Ġ{word}"] = vocab.pop(last)
        merges[-1] = [token_of[token_id] for token_id in base.ids_of(f" {word}")]

    folder = broken(built["smollm2"], tmp_path, merge_that_word)
    pieces = new_pieces(built["smollm2"])
    english = (*pieces[:-1], replace(pieces[-1], text=f" {word}"))
    with pytest.raises(ExactnessError, match="spans a word boundary or is not Persian"):
        run_gate(bases["smollm2"], folder, english)
    # with the rule about pieces switched off the ids of English text still give it away
    lenient = Lenient(**{one.name: getattr(PERSIAN, one.name) for one in fields(PERSIAN)})
    with pytest.raises(ExactnessError, match="changes the ids of text that holds no Persian letter"):
        run_gate(bases["smollm2"], folder, english, profile=lenient)


@pytest.mark.parametrize("text", ["سلام دنیا", "سلام،", "۱۲", "the"])
def test_a_piece_over_a_word_boundary(text: str, bases: dict[str, Path], built: dict[str, Path]) -> None:
    pieces = new_pieces(built["smollm2"])
    with pytest.raises(ExactnessError, match="word boundary"):
        run_gate(bases["smollm2"], built["smollm2"], (replace(pieces[0], text=text), *pieces[1:]))


def test_scores_of_zero_make_tokenizer_and_reference_differ(
    bases: dict[str, Path], built: dict[str, Path], tmp_path: Path
) -> None:
    """The usual merge script appends pieces with score 0; its tokenizer.json says something else."""
    from sentencepiece import sentencepiece_model_pb2

    folder = tmp_path / "zero"
    shutil.copytree(built["mistral"], folder)
    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString((folder / "tokenizer.model").read_bytes())
    for piece in proto.pieces[32_000:-1]:
        piece.score = 0.0
    (folder / "tokenizer.model").write_bytes(proto.SerializeToString())
    with pytest.raises(ExactnessError, match=r"different ids|can never be produced"):
        run_gate(bases["mistral"], folder, new_pieces(built["mistral"]), pad=True)


@pytest.mark.parametrize(
    ("family", "name"), [(ByteBPE, "smollm2"), (SentencePieceBPE, "mistral")], ids=["byte", "sentencepiece"]
)
def test_build_saves_nothing_when_the_gate_refuses(
    family: Any, name: str, bases: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = family.files

    def careless(self: Any, learned: Any, *, pad_token: bool) -> dict[str, bytes]:
        return honest(self, replace(learned, pieces=learned.pieces[:-1]), pad_token=pad_token)  # type: ignore

    def careless_merges(self: Any, learned: Any, *, pad_token: bool) -> dict[str, bytes]:
        return honest(self, replace(learned, merges=learned.merges[:-30]), pad_token=pad_token)  # type: ignore

    monkeypatch.setattr(family, "files", careless_merges if family is ByteBPE else careless)
    out = tmp_path / "sub" / "out"
    with pytest.raises(ExactnessError):
        build_vocab(bases[name], texts, out, new_tokens=200, profile=PERSIAN)
    assert list(out.parent.iterdir()) == []


def test_without_the_rule_pieces_leave_persian_and_the_gate_sees_it(
    smollm2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training without the rule for pieces learns runs of digits and Latin with Persian."""
    monkeypatch.setattr(pieces_module, "is_valid_piece", lambda profile, token_bytes: _is_text(token_bytes))
    mixed = [f"{text} ۱۲۳۴ ۱۲۳۴ Vueها Vueها" for text in package_texts()]
    with pytest.raises(ExactnessError, match="word boundary"):
        build_vocab(smollm2, lambda: iter(mixed), tmp_path / "out", new_tokens=400, profile=PERSIAN)


def _is_text(token_bytes: bytes) -> bool:
    try:
        token_bytes.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def test_changed_files_are_noticed(built: dict[str, Path], tmp_path: Path) -> None:
    folder = broken(built["smollm2"], tmp_path, drop_last_merge)
    with pytest.raises(VocabError, match="are not those"):
        load_expansion(folder)
    path = folder / "expansion.json"
    path.write_bytes(path.read_bytes().replace(b'"added": 1200', b'"added": 1201'))
    with pytest.raises(VocabError, match=r"expansion\.json is damaged: .* and build the vocabulary again"):
        load_expansion(folder)
    path.write_text("{")
    with pytest.raises(VocabError, match="damaged"):
        load_expansion(folder)
    path.unlink()
    with pytest.raises(VocabError, match="persianmind vocab build"):
        load_expansion(folder)


def test_an_expansion_of_another_version(built: dict[str, Path], tmp_path: Path) -> None:
    folder = broken(built["smollm2"], tmp_path, lambda tree: None)
    content = read_checked(folder / "expansion.json")
    write_checked(folder / "expansion.json", {**content, "version": 1})
    with pytest.raises(VocabError, match="another version"):
        load_expansion(folder)


def test_byte_alphabet() -> None:
    assert to_token(" سلام\n".encode()) == "ĠØ³ÙĦØ§ÙħĊ"


STRUCK_OUT = "قیمت <s>۱۲۰</s> هزار تومان است"


def test_a_token_that_stands_in_a_document_is_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A struck-out price in HTML. Read as the token it would be, it differs, and the message says where."""
    base = llama_2(tmp_path / "base")
    build_vocab(base, lambda: iter(()), tmp_path / "out", new_tokens=0, profile=PERSIAN)
    documents = [*DOCUMENTS[:5], f"{DOCUMENTS[5]} {STRUCK_OUT}"]
    run_gate(base, tmp_path / "out", (), documents=documents)
    as_text = HFTokenizer.encode

    def as_tokens(self: HFTokenizer, some: Sequence[str], *, parse_special: bool = True) -> list[list[int]]:
        return as_text(self, some, parse_special=True)

    monkeypatch.setattr(HFTokenizer, "encode", as_tokens)
    with pytest.raises(ExactnessError, match=r"in record 6 of the text near '.*<s>.*"):
        run_gate(base, tmp_path / "out", (), documents=documents)


def prefix_after_special_tokens(tree: dict[str, Any]) -> None:
    tree["pre_tokenizer"]["prepend_scheme"] = "always"


def forget_flags(tree: dict[str, Any]) -> None:
    for token in tree["added_tokens"]:
        token["rstrip"] = False


def test_text_beside_special_tokens(tmp_path: Path) -> None:
    """Text alone keeps its ids, and only what chat templates write changes."""
    base = phi_3(tmp_path / "base")
    build_vocab(base, lambda: iter(()), tmp_path / "out", new_tokens=0, profile=PERSIAN)
    (tmp_path / "out" / "tokenizer_config.json").write_text("{}")  # it repeats the flags
    for change in (prefix_after_special_tokens, forget_flags):
        folder = broken(tmp_path / "out", tmp_path, change)
        samples = list(foreign_samples())
        assert HFTokenizer(folder).encode(samples) == HFTokenizer(tmp_path / "out").encode(samples)
        with pytest.raises(ExactnessError, match="beside a special token"):
            run_gate(base, folder, (), documents=DOCUMENTS[:5])
        shutil.rmtree(folder)


def test_two_tokenizers_in_one_folder(tmp_path: Path) -> None:
    base = chatml(tmp_path / "base")
    proto = read_proto(mistral_model())
    for piece in proto.pieces[300:3_000]:
        piece.score = -40_000.0 - abs(piece.score)
    (base / "tokenizer.model").write_bytes(proto.SerializeToString())
    with pytest.raises(ExactnessError, match="are two tokenizers"):
        build_vocab(base, lambda: iter(()), tmp_path / "out", new_tokens=0, profile=PERSIAN)
    assert not (tmp_path / "out").exists()
