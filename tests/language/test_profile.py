"""Languages are found by being there; what none of them serves goes the way of Persian."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from persianmind import language
from persianmind.language import DEFAULT_LANGUAGE, default_profile, profile_among, profile_for
from persianmind.language.persian import PROFILE, normalise

MODULE = """
from dataclasses import replace
from persianmind.language.persian_rules import normalise
from persianmind.language.persian import PROFILE as PERSIAN

PROFILE = replace(PERSIAN, name="Planted", codes={codes})
"""


@pytest.fixture
def plant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder whose modules count as modules of the package."""
    monkeypatch.setattr(language, "__path__", [*language.__path__, str(tmp_path)])
    language._discover.cache_clear()
    yield tmp_path
    language._discover.cache_clear()


def test_persian_is_served_and_the_default() -> None:
    assert profile_for("fa") is PROFILE is default_profile()
    assert (PROFILE.name, PROFILE.code, PROFILE.direction, DEFAULT_LANGUAGE) == ("Persian", "fa", "rtl", "fa")
    assert PROFILE.normalise is normalise


@pytest.mark.parametrize("code", ["en", "ar", "xx", ""])
def test_a_code_that_no_profile_serves_goes_the_way_of_persian(code: str) -> None:
    assert profile_for(code) is PROFILE


def test_near_languages_count_for_the_language_itself_alone() -> None:
    """English goes through the Persian profile too, and Mazanderani is no sibling of English."""
    assert profile_for("fa").siblings_of("fa") == ("mzn", "glk")
    assert profile_for("en").siblings_of("en") == ()
    assert profile_for("mzn").siblings_of("mzn") == ()


def test_a_new_language_is_one_new_file(plant: Path) -> None:
    (plant / "planted.py").write_text(MODULE.format(codes=("zz", "zy")), encoding="utf-8")
    assert profile_for("zz").name == profile_for("zy").name == "Planted"
    assert profile_for("fa") is PROFILE


def test_of_several_languages_the_first_with_a_profile_counts(plant: Path) -> None:
    (plant / "planted.py").write_text(MODULE.format(codes=("zz",)), encoding="utf-8")
    assert profile_among(["en", "zz", "fa"]).name == "Planted"
    assert profile_among(["fa", "zz"]) is profile_among(["en"]) is profile_among([]) is PROFILE


def test_two_languages_of_one_code_are_refused(plant: Path) -> None:
    (plant / "planted_twice.py").write_text(MODULE.format(codes=("fa",)), encoding="utf-8")
    with pytest.raises(ValueError, match="'fa' is served by both"):
        profile_for("fa")


def test_prompt_is_the_papers() -> None:
    assert PROFILE.prompt.user_turn == "You: "
    assert PROFILE.prompt.assistant_turn == "PersianMind: "
    assert PROFILE.prompt.context.startswith("This is a conversation with PersianMind")
