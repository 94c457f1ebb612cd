"""Held-out documents cut at a length: more of them within the same number of characters."""

from __future__ import annotations

from persianmind.recipe.loading import load_recipe
from persianmind.text.heldout import fingerprints_of, select_held_out

MUCH = ["heldout.ratio=0.3", "heldout.max_characters=6000"]


def test_many_beginnings_instead_of_a_few_long_texts() -> None:
    whole = select_held_out(load_recipe("tiny", [*MUCH, "heldout.max_document_characters=null"]))["en"]
    cut = select_held_out(load_recipe("tiny", [*MUCH, "heldout.max_document_characters=300"]))["en"]
    assert len(cut) > len(whole) and max(len(one.text) for one in cut) <= 300
    texts = {one.key: one.text for one in whole}
    shared = [one for one in cut if one.key in texts]
    assert shared and all(texts[one.key].startswith(one.text) for one in shared)
    assert all(len(one.text) == len(texts[one.key]) or not one.text[-1].isspace() for one in shared)


def test_the_whole_document_stays_out_of_training() -> None:
    """Its fingerprint is that of all of it, not of what is scored."""
    whole = select_held_out(load_recipe("tiny", ["heldout.max_document_characters=null"]))
    cut = select_held_out(load_recipe("tiny", ["heldout.max_document_characters=300"]))
    assert fingerprints_of(whole) <= fingerprints_of(cut)
