"""Numbers that no run has are refused where they are read, in every record and by every field."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from persianmind.common import bounded
from persianmind.common.bounded import LARGEST_AMOUNT, LARGEST_COUNT, BoundedModel, whole_count
from persianmind.data.manifest import Building, Manifest
from persianmind.publish.manifest import ExportManifest
from persianmind.run import energy_records, evaluation_records, records
from persianmind.run.energy_account import EnergyAccount
from persianmind.run.record import RunRecord
from persianmind.text.heldout import HeldOutIndex
from tests.support.filled import filled, numbers, replaced

LARGER: list[Any] = [10**400, -(10**400), 1e308, -1e308, float("nan"), float("inf"), True]
# What holds a tree of any kind, or is no model: a true in it becomes 1.
OF_ANY_KIND = {"host", "settings", "callbacks", "energy", "files_left_out"}
WITHIN: list[Any] = [0, -0.0, 5e-324]


def subclasses(kind: type[BaseModel]) -> list[type[BaseModel]]:
    found = [kind] if kind.model_fields else []
    return found + [inner for one in kind.__subclasses__() for inner in subclasses(one)]


MODELS = [
    one
    for one in dict.fromkeys([*subclasses(RunRecord), Manifest, Building, ExportManifest, HeldOutIndex])
    if one.__module__.startswith("persianmind")
]


def test_all_records_are_looked_at() -> None:
    assert {records.StepRecord, energy_records.EnergySample, evaluation_records.SuiteResult} <= set(MODELS)
    assert len(MODELS) > 25 and all(issubclass(one, BoundedModel) for one in MODELS)


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_every_number_of_every_record_is_bounded(model: type[BaseModel]) -> None:
    tree = filled(model)
    model.model_validate(tree)
    for place in numbers(tree):
        if place[0] == "format":
            continue
        for value in LARGER:
            if value is True and OF_ANY_KIND & {*place}:
                continue
            with pytest.raises(ValidationError):
                model.model_validate(replaced(tree, place, value))


def test_what_a_run_writes_is_taken() -> None:
    tree = filled(records.StepRecord)
    for value in WITHIN:
        records.StepRecord.model_validate({**tree, "loss": value, "step": 0})
    for largest in (LARGEST_AMOUNT, 3.4e38, LARGEST_COUNT):
        records.StepRecord.model_validate({**tree, "grad_norm": float(largest), "tokens": LARGEST_COUNT})


@pytest.mark.parametrize("value", ["9" * 401, 1e200, [1e308], {"a": [10**400]}])
def test_numbers_within_text_and_trees(value: Any) -> None:
    with pytest.raises(ValidationError):
        evaluation_records.SuiteResult.model_validate(
            {**filled(evaluation_records.SuiteResult), "settings": {"x": value}, "n": value}
        )


def test_without_the_bound_they_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded, "is_bounded", lambda value: True)
    tree = filled(records.StepRecord)
    assert records.StepRecord.model_validate({**tree, "tokens": 10**400}).tokens == 10**400


@pytest.mark.parametrize("value", [True, -1, 1.0, "1", None, LARGEST_COUNT + 1])
def test_a_count_is_a_whole_number(value: object) -> None:
    with pytest.raises(ValueError, match="no whole number"):
        whole_count(value)
    assert whole_count(7) == 7


@pytest.mark.parametrize(
    "change",
    [{"kwh": "x"}, {"uncertainty": None}, {"pue": None}, {"intensity": None}, {"problems": "x"},
     {"per_million_tokens": {"count": "x"}}, {"kwh": 1e300}],
    ids=lambda change: next(iter(change)),
)  # fmt: skip
def test_an_account_of_another_kind_is_refused(change: dict[str, Any]) -> None:
    tree = filled(EnergyAccount)
    records.RunResults(energy=tree)
    with pytest.raises(ValidationError):
        records.RunResults(energy={**tree, **change})
