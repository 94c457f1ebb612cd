"""Another engine is one folder: a package with a BACKEND beside engine/deepspeed is found by its name."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import persianmind.engine
from persianmind.common.errors import UsageError
from persianmind.engine.groups import GROUPS, group_of
from persianmind.engine.registry import DEFAULT_ENGINE, backend, known_engines
from tests.support.launch import ROOT


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package `solo` on the path of persianmind.engine, and a module, which is no engine."""
    (tmp_path / "solo").mkdir()
    (tmp_path / "solo" / "__init__.py").write_text("BACKEND = 'the one planted'\n")
    (tmp_path / "module.py").write_text("BACKEND = 'no package'\n")
    monkeypatch.setattr(persianmind.engine, "__path__", [*persianmind.engine.__path__, str(tmp_path)])
    monkeypatch.delitem(sys.modules, "persianmind.engine.solo", raising=False)
    return "solo"


def test_the_shipped_engine_is_the_default() -> None:
    assert known_engines() == [DEFAULT_ENGINE]
    assert backend() is backend("deepspeed")
    assert backend().default_config == ROOT / "ds_configs" / "zero2.json"
    assert backend().default_config.is_file()


def test_a_planted_engine_is_found(planted: str) -> None:
    assert known_engines() == [DEFAULT_ENGINE, planted]
    assert backend(planted) == "the one planted"  # type: ignore[comparison-overlap]


def test_an_unknown_engine_names_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"no engine 'deepsped' \(did you mean 'deepspeed'\?\)"):
        backend("deepsped")
    with pytest.raises(UsageError, match="no engine 'solo'"):
        backend("solo")  # nothing is planted


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("causal_lm.model.layers.0.self_attn.q_proj.lora_A.default.weight", "adapters_a"),
        ("causal_lm.model.layers.0.self_attn.q_proj.lora_B.default.weight", "adapters_b"),
        ("causal_lm.model.embed_tokens.table.new_AD", "embeddings"),
    ],
)
def test_every_trained_parameter_has_a_group(name: str, group: str) -> None:
    assert group_of(name) == group and group in GROUPS
