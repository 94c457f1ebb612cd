"""What shards and held-out text depend on, key by key of the recipe: nothing that may change in a run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from persianmind.data.build import source as module
from persianmind.data.build.source import build_fingerprints, source_job
from persianmind.recipe import Recipe
from persianmind.run.identity import FIXED
from persianmind.run.keys import KEYS
from persianmind.text import heldout
from persianmind.tokenizer import FolderTokenizer
from tests.run.test_keys import BASE, changed

Depends = Callable[[Recipe], object]
FREE = [key for key, effect in KEYS.items() if effect not in FIXED]


@pytest.fixture
def depends(bpe_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Depends:
    """(fingerprints of a source's shards, of the held-out text) of a recipe."""
    monkeypatch.setattr(module, "held_out_fingerprints", lambda folder: {"a", "b"})
    tokenizer = FolderTokenizer(bpe_dir)

    def of(recipe: Recipe) -> object:
        job = source_job(
            recipe, recipe.packing("poems"), tokenizer=bpe_dir, out=Path("out"), heldout=Path("heldout")
        )
        return build_fingerprints(job, tokenizer), heldout._built_from(recipe)

    return of


@pytest.mark.parametrize("key", FREE)
def test_a_key_that_may_change_invalidates_neither(key: str, depends: Depends) -> None:
    assert depends(changed(key)) == depends(BASE)


@pytest.mark.parametrize("key", ["sources.*.text_field", "normalise.digits", "data.seq_len", "heldout.ratio"])
def test_control_keys_of_what_is_built_do(key: str, depends: Depends) -> None:
    assert depends(changed(key)) != depends(BASE)


def test_control_a_licence_would_make_held_out_text_anew(
    depends: Depends, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("persianmind.text.spec.SHOWN", {})
    assert depends(changed("sources.*.licence")) != depends(BASE)
