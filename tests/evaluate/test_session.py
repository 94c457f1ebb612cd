"""Suites over a real model: what is read, shared among ranks, taken up again, refused and left out."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
import yaml

from persianmind.common.errors import DataError, RecipeError
from persianmind.evaluate.generate import generation_mode
from persianmind.evaluate.session import Outcomes, Share, Wanted, compare_outcomes, run_suites
from persianmind.evaluate.suite import Suite, known_suites, load_suite, options_of, places_of
from tests.evaluate.small_model import small_model

ROWS = [
    {"question": f"{a} + {b} =", "candidates": [str(a + b), str(a + b + 1), str(a + b + 2)], "answer": 1}
    for a in range(4)
    for b in range(3)
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, rows in (("test.jsonl", ROWS), ("dev.jsonl", [ROWS[0], {**ROWS[1], "question": "9 + 1 ="}])):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return tmp_path


def write_suite(folder: Path, *tasks: dict[str, Any]) -> Suite:
    default = {"name": "sums", "layout": "choice", "file": "test.jsonl", "dev": "dev.jsonl", "language": "en"}
    tree = {"name": "own", "tasks": [default | task for task in tasks or ({},)]}
    (folder / "own.yaml").write_text(yaml.safe_dump(tree, allow_unicode=True), encoding="utf-8")
    return load_suite(str(folder / "own.yaml"))


def evaluate(suite: Suite, share: Share = Share(), **wanted: Any) -> Outcomes:
    model = small_model()
    with generation_mode(model.causal_lm):
        return run_suites(model, [suite], Wanted(**{"data": Path("none"), **wanted}), share, lambda: 5.0)


def test_a_result_says_what_it_depends_on(folder: Path) -> None:
    found = evaluate(write_suite(folder), out=folder / "out")
    first = found.results[0]
    assert (first.suite, first.task, first.metric, first.n) == ("own", "sums", "accuracy_letter", 12)
    assert first.chance == pytest.approx(1 / 3) and first.ci_low is not None and first.joules == 0.0
    assert len(first.data_sha256) == 64 and first.prompt_hash and first.model_fingerprint == "small"
    assert first.settings["methods"] == ["letters", "text"] and first.seconds > 0
    lines = (folder / "out" / "items" / "own" / "sums.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 13 and all("crc" in json.loads(line) for line in lines)


def test_what_was_scored_is_not_scored_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    suite = write_suite(folder)
    whole = evaluate(suite, out=folder / "out")
    path = folder / "out" / "items" / "own" / "sums.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    # A kill while it was written by a rank: a part, its last line cut.
    part = path.with_name("sums.jsonl.part-0")
    part.write_text("".join(lines[:6]) + lines[6][:20], encoding="utf-8")
    path.unlink()
    scored: list[int] = []
    from persianmind.evaluate.families.choice import MultipleChoice

    ordinary = MultipleChoice.score

    def counted(self: MultipleChoice, context: Any, numbered: Any) -> Any:
        for record in ordinary(self, context, numbered):
            scored.append(record["item"])
            yield record

    monkeypatch.setattr(MultipleChoice, "score", counted)
    again = evaluate(suite, out=folder / "out")
    known = [json.loads(line)["item"] for line in lines[1:6]]
    assert sorted(scored + known) == list(range(12)) and len(scored) == 7
    assert [one.value for one in again.results] == [one.value for one in whole.results]
    assert not part.exists() and path.is_file()
    scored.clear()
    evaluate(write_suite(folder, {"options": {"answer_word": "A:"}}), out=folder / "out")
    assert len(scored) == 12  # another prompt: other records


def test_ranks_share_the_items_and_agree(folder: Path) -> None:
    """Two ranks as two threads of this process: what each gathers is what both gave."""
    suite = write_suite(folder)
    alone = evaluate(suite)
    barrier, given, results = threading.Barrier(2), [{}, {}], [None, None]  # type: ignore[var-annotated]
    # Loaded one after the other: `from_pretrained` switches tying off for the whole process while it loads,
    # and two threads within it leave it off for every test after this one.
    models = [small_model() for _ in range(2)]

    def rank(number: int) -> None:
        count = [0]

        def gather(value: Any) -> list[Any]:
            count[0] += 1
            given[number][count[0]] = value
            barrier.wait()
            return [given[0][count[0]], given[1][count[0]]]

        wanted = Wanted(data=Path("none"))
        with generation_mode(models[number].causal_lm):
            results[number] = run_suites(models[number], [suite], wanted, Share(number, 2, gather))

    threads = [threading.Thread(target=rank, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    for found in results:
        assert found is not None
        assert [one.value for one in found.results] == [one.value for one in alone.results]
    scored = [part for part in given[0].values() if isinstance(part, dict) and part]
    assert any(0 < len(one) < 12 for one in scored)


def test_examples_are_never_test_items(folder: Path) -> None:
    """The dev file repeats a test item: it is left out, and one more than the rest is refused."""
    suite = write_suite(folder)
    assert evaluate(suite, few_shot=1).results[0].settings["few_shot"] == 1
    with pytest.raises(RecipeError, match=r"2 examples are asked for and 1 are to be had"):
        evaluate(suite, few_shot=2)


def test_a_task_without_data_says_which_where_and_under_what(tmp_path: Path) -> None:
    found = evaluate(load_suite("belebele"), data=tmp_path)
    assert not found.results and [one.task for one in found.not_run] == ["fa", "en"]
    assert "belebele/pes_Arab.jsonl" in found.not_run[0].reason
    assert "facebook/belebele" in found.not_run[0].reason and "CC BY-SA 4.0" in found.not_run[0].reason


def test_a_broken_file_is_an_error_not_a_gap(folder: Path) -> None:
    suite = write_suite(folder)
    (folder / "test.jsonl").write_text('{"question": 1}\n', encoding="utf-8")
    with pytest.raises(DataError, match="not of the layout choice"):
        evaluate(suite)


def test_limit_and_perturbations(folder: Path) -> None:
    rows = [{"question": "کتاب‌های علی", "candidates": ["یک", "دو"], "answer": 1}] * 3
    (folder / "fa.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    task = {
        "file": "fa.jsonl",
        "dev": None,
        "language": "fa",
        "perturbations": ["arabic_keyboard", "romanised"],
    }
    found = evaluate(write_suite(folder, task), limit=2, out=folder / "out")
    changed = [one.settings["perturbation"] for one in found.results if one.metric == "accuracy_letter"]
    assert changed == [None, "arabic_keyboard", "romanised"]
    assert {one.n for one in found.results} == {2}
    assert (folder / "out" / "items" / "own" / "sums.romanised.jsonl").is_file()
    with pytest.raises(RecipeError, match=r"'romanized' in Persian \(did you mean 'romanised'"):
        evaluate(write_suite(folder, {**task, "perturbations": ["romanized"]}))


def test_two_models_on_the_same_items(folder: Path) -> None:
    suite = write_suite(folder)
    first, second = evaluate(suite), evaluate(suite)
    compare_outcomes(first, second, "other")
    against = first.results[0].against
    assert against is not None and against.model == "other"
    assert (against.difference, against.p_value, against.test) == (0.0, 1.0, "mcnemar")
    orders = next(one for one in first.results if one.metric == "accuracy_letter_orders")
    assert orders.against is not None and orders.against.test == "paired permutation"


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ({"layout": "belebel"}, "no layout 'belebel' .*did you mean 'belebele'"),
        ({"options": {"method": ["letters"]}}, "options.method: .*did you mean 'methods'"),
        ({"options": {"methods": ["guess"]}}, "options.methods"),
        ({"file": 3}, "tasks.0.file"),
        ({"nothing": 1}, "tasks.0.nothing"),
    ],
)
def test_mistakes_in_a_suite_are_one_line(folder: Path, task: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message) as error:
        write_suite(folder, task)
    assert "\n" not in str(error.value)


def test_files_stay_in_their_folder(folder: Path) -> None:
    from persianmind.common.errors import PersianMindError

    for file in ("../test.jsonl", "/etc/hostname"):
        suite = write_suite(folder, {"file": file})
        with pytest.raises(PersianMindError, match="not inside the folder"):
            evaluate(suite)


def test_unknown_suites_name_the_known_ones() -> None:
    with pytest.raises(RecipeError, match=r"no suite 'belebel' \(did you mean 'belebele'\?\); give one of: "):
        load_suite("belebel")


@pytest.mark.parametrize("name", known_suites())
def test_shipped_suites_are_sound(name: str) -> None:
    suite = load_suite(name)
    for task in suite.tasks:
        assert options_of(task) is not None and task.licence != "unstated"
        assert places_of(suite, task.file, Path("data"))


def test_a_jsonl_file_is_a_suite(folder: Path) -> None:
    found = evaluate(load_suite(str(folder / "test.jsonl")))
    assert found.results[0].suite == found.results[0].task == "test" and found.results[0].n == 12
