"""`persianmind config`: every value with where it comes from, and a schema that knows each key."""

from __future__ import annotations

import json

import pytest

from persianmind.cli import app
from persianmind.common.console import invoke
from persianmind.recipe import Recipe


def origins(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, tuple[object, str]]:
    invoke(app, ["config", "show", "tiny", *words, "--json"], "persianmind")
    values = json.loads(capsys.readouterr().out)["values"]
    return {one["key"]: (one["value"], one["from"]) for one in values}


def test_where_values_come_from(capsys: pytest.CaptureFixture[str]) -> None:
    found = origins(capsys, "train.learning_rate=1e-3", "heldout={ratio: 0.1}")
    assert found["train.learning_rate"] == (1e-3, "command line")
    assert found["train.micro_batch_size"] == (1, "recipe")
    assert found["train.max_grad_norm"] == (1.0, "default")
    assert found["heldout.ratio"] == (0.1, "command line")
    assert found["stages.0.tokens"] == (16384, "recipe")
    assert found["stages.0.plateau_steps"] == (None, "default")


def test_a_line_per_value(capsys: pytest.CaptureFixture[str]) -> None:
    invoke(app, ["config", "show", "tiny", "seed=8"], "persianmind")
    lines = capsys.readouterr().out.splitlines()
    assert any(line.split() == ["seed", "8", "#", "command", "line"] for line in lines)


def test_the_schema_knows_every_section(capsys: pytest.CaptureFixture[str]) -> None:
    invoke(app, ["config", "schema"], "persianmind")
    schema = json.loads(capsys.readouterr().out)
    assert {*Recipe.model_fields} == {*schema["properties"]}
    assert schema["additionalProperties"] is False
