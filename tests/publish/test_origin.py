"""Where a base comes from: its name on the Hub, its licence, and the files that have to go with it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from persianmind.common.errors import UsageError
from persianmind.publish.origin import Licence, base_origin, copy_notices
from tests.support.log import logged

APACHE = "\n                      Apache License\n                Version 2.0, January 2004\n"
LLAMA = "LLAMA 2 COMMUNITY LICENSE AGREEMENT\t\nLlama 2 Version Release Date: July 18, 2023\n"
TITLE = "the title of"
CARD = "---\nlicense: llama2\nlanguage: en\n---\n# Llama 2\n"


def make(folder: Path, *, card: str | None = None, named: str | None = None, **files: str) -> Path:
    """A base's folder; `named` is its config's _name_or_path. `LICENSE_txt` becomes LICENSE.txt."""
    folder.mkdir(parents=True)
    config = {} if named is None else {"_name_or_path": named}
    (folder / "config.json").write_text(json.dumps(config))
    if card is not None:
        (folder / "README.md").write_text(card, encoding="utf-8")
    for name, text in files.items():
        (folder / name.replace("_txt", ".txt").replace("_md", ".md")).write_text(text, encoding="utf-8")
    return folder


def cached(root: Path, **options: str) -> Path:
    """A folder as the Hub's cache holds it: links into the repository's blobs."""
    home = root / "models--meta-llama--Llama-2-7b-chat-hf"
    folder = make(home / "snapshots" / ("a" * 40), **options)
    (home / "blobs").mkdir()
    for path in list(folder.iterdir()):
        blob = home / "blobs" / f"blob-of-{path.name}"
        path.rename(blob)
        path.symlink_to(blob)
    return folder


def test_the_hubs_cache_names_its_repository(tmp_path: Path) -> None:
    folder = cached(tmp_path, card=CARD, LICENSE_txt=LLAMA, USE_POLICY_md="# Policy", named="else/where")
    origin = base_origin("meta-llama/Llama-2-7b-chat-hf", folder)
    assert origin.hub_id == "meta-llama/Llama-2-7b-chat-hf"
    assert origin.licence == Licence("llama2", said_by="the base's card")
    assert [path.name for path in origin.notices] == ["LICENSE.txt", "USE_POLICY.md"]


def test_a_downloaded_folder_is_named_by_its_configuration(tmp_path: Path) -> None:
    folder = make(tmp_path / "Llama-2-7b-chat-hf", card=CARD, named="meta-llama/Llama-2-7b-chat-hf")
    assert base_origin(str(folder), folder).hub_id == "meta-llama/Llama-2-7b-chat-hf"


@pytest.mark.parametrize(
    ("name", "named", "card"),
    [
        ("OpenHermes", "mistralai/Mistral-7B-v0.1", CARD),  # another model: what it was trained from
        ("zephyr-7b-beta", "data/zephyr-7b-dpo", CARD),  # a path that looks like owner/name
        ("llama", "models/llama", None),  # saved here, never on the Hub
        ("llama", "/home/ana/llama", CARD),
        ("llama", "llama", CARD),
        ("llama", "a/b/llama", CARD),
    ],
)
def test_a_name_that_may_be_another_models_is_not_believed(
    tmp_path: Path, name: str, named: str, card: str | None
) -> None:
    folder = make(tmp_path / name, card=card, named=named)
    assert base_origin(str(folder), folder).hub_id is None


def test_a_folder_that_is_there_is_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make(tmp_path / "models" / "llama", card=CARD, named="models/llama")
    monkeypatch.chdir(tmp_path)
    assert base_origin("models/llama", folder).hub_id is None


def test_the_user_may_state_the_name(tmp_path: Path) -> None:
    folder = make(tmp_path / "llama")
    assert base_origin(str(folder), folder, "meta-llama/Llama-2-7b-hf").hub_id == "meta-llama/Llama-2-7b-hf"
    for wrong in ("llama", "/home/ana/llama", "a/b/c", "a b/c", "owner/na..me", ""):
        with pytest.raises(UsageError, match="give owner/name"):
            base_origin(str(folder), folder, wrong)


@pytest.mark.parametrize(
    ("card", "files", "expected"),
    [
        (None, {}, Licence()),
        ("no front matter", {}, Licence()),
        ("---\nlicense: unknown\n---\n", {}, Licence()),
        ("---\n- a list\n---\n", {}, Licence()),
        ("---\nlicense: {a: [}\n---\n", {}, Licence()),
        (None, {"LICENSE": APACHE}, Licence("apache-2.0", said_by="the title of LICENSE")),
        (None, {"license_txt": "MIT License\n\nC"}, Licence("mit", said_by=f"{TITLE} license.txt")),
        (
            None, {"LICENSE_txt": LLAMA, "NOTICE": "n"},
            Licence("other", "llama-2-community-license-agreement", "LICENSE.txt", f"{TITLE} LICENSE.txt"),
        ),
        (
            "---\nlicense: other\nlicense_name: My Terms\nlicense_link: https://ai.google.dev/x\n---\n", {},
            Licence("other", "my-terms", "https://ai.google.dev/x", "the base's card"),
        ),
        (
            "---\nlicense: other\nlicense_link: LICENSE\n---\n", {"LICENSE": "x"},
            Licence("other", None, "LICENSE", "the base's card"),
        ),
        (
            "---\nlicense: other\nlicense_link: ../../etc/passwd\n---\n", {},
            Licence("other", None, None, "the base's card"),
        ),
        (
            "---\nlicense: [mit, apache-2.0]\n---\n", {},
            Licence("other", "mit-or-apache-2.0", None, "the base's card"),
        ),
        ("---\nlicense: 'My Own!'\n---\n", {}, Licence("other", "my-own", None, "the base's card")),
    ],
)  # fmt: skip
def test_the_licence_is_what_the_folder_says(
    tmp_path: Path, card: str | None, files: dict[str, str], expected: Licence
) -> None:
    folder = make(tmp_path / "base", card=card, **files)
    licence = base_origin(str(folder), folder).licence
    assert licence == expected and licence.known == bool(expected.said_by)


def test_a_link_into_the_repository_leads_to_the_hub(tmp_path: Path) -> None:
    folder = cached(tmp_path, card="---\nlicense: other\nlicense_link: TERMS.md\n---\n")
    link = base_origin("meta-llama/Llama-2-7b-chat-hf", folder).licence.link
    assert link == "https://huggingface.co/meta-llama/Llama-2-7b-chat-hf/blob/main/TERMS.md"


def test_licences_and_notices_are_copied_byte_for_byte_and_nothing_else(tmp_path: Path) -> None:
    folder = make(tmp_path / "base", card=CARD, LICENSE_txt=LLAMA)
    (folder / "NOTICE").write_bytes(b"\xff\x00\r\n")
    (folder / "Licence-extra.md").write_bytes(b"e")
    (folder / "licensed.py").write_bytes(b"import os")
    out = tmp_path / "export"
    out.mkdir()
    names = copy_notices(base_origin(str(folder), folder), out)
    assert names == ["LICENSE.txt", "Licence-extra.md", "NOTICE"]
    assert sorted(path.name for path in out.iterdir()) == names
    assert all((out / name).read_bytes() == (folder / name).read_bytes() for name in names)


def test_links_of_the_hubs_cache_are_copied_as_files(tmp_path: Path) -> None:
    folder = cached(tmp_path, LICENSE_txt=LLAMA)
    out = tmp_path / "export"
    out.mkdir()
    assert copy_notices(base_origin("meta-llama/Llama-2-7b-chat-hf", folder), out) == ["LICENSE.txt"]
    assert (out / "LICENSE.txt").read_text() == LLAMA and not (out / "LICENSE.txt").is_symlink()


def test_a_link_out_of_the_folder_is_not_copied(tmp_path: Path) -> None:
    """It could publish any file of the machine under a harmless name."""
    (tmp_path / "id_key").write_text("private")
    for folder in (make(tmp_path / "plain"), cached(tmp_path)):
        (folder / "LICENSE").symlink_to(tmp_path / "id_key")
        with logged() as lines:
            assert base_origin(str(folder), folder).notices == ()
        assert len(lines) == 1 and "links to another folder" in lines[0]


def test_a_file_too_large_for_a_licence_is_not_copied(tmp_path: Path) -> None:
    folder = make(tmp_path / "base")
    (folder / "LICENSE").write_bytes(b"x" * ((1 << 20) + 1))
    with logged() as lines:
        assert base_origin(str(folder), folder).notices == ()
    assert "larger than 1 MiB" in lines[0]


def test_the_hubs_library_takes_every_licence(tmp_path: Path) -> None:
    folder = make(tmp_path / "base", LICENSE=LLAMA)
    licence = base_origin(str(folder), folder).licence
    card = ModelCard(f"---\nlicense: {licence.id}\nlicense_name: {licence.name}\n---\n")
    assert card.data.license_name == "llama-2-community-license-agreement"
