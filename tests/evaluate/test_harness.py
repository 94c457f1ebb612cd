"""lm-evaluation-harness over our forward passes: the same numbers as its own model gives, on the same
items."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from persianmind.common.errors import MachineError, UsageError
from persianmind.evaluate.generate import generation_mode
from persianmind.evaluate.harness import harness_lm, run_harness
from persianmind.evaluate.session import Share
from tests.evaluate.small_model import base, small_model

TASK = """task: own_choice
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}\\nAnswer:"
doc_to_choice: candidates
doc_to_target: "{{{{answer}}}}"
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}]
"""


def test_without_the_package_one_line_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.metadata import PackageNotFoundError

    def absent(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr("persianmind.evaluate.harness.version", absent)
    with pytest.raises(MachineError, match=r"pip install \"lm-eval==0\.4\.13\""):
        run_harness(small_model(), ["x"], None, limit=None, few_shot=None, share=Share())


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "hf"))
    rows = [
        {"question": f"{a} + {b} =", "candidates": [str(a + b + k) for k in range(3)], "answer": 0}
        for a in range(3)
        for b in range(4)
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (tmp_path / "own.yaml").write_text(TASK.format(file=path), encoding="utf-8")
    return tmp_path


@pytest.mark.more  # drives lm-evaluation-harness
def test_a_task_of_one_s_own_scores_as_by_its_own_model(folder: Path) -> None:
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    model = small_model()
    with generation_mode(model.causal_lm):
        ours = run_harness(model, ["own_choice"], folder, limit=None, few_shot=None, share=Share())
    own = HFLM(pretrained=str(base()), device="cpu", dtype="float32", batch_size=4)
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    theirs = lm_eval.simple_evaluate(
        model=own, tasks=["own_choice"], task_manager=manager, bootstrap_iters=10
    )
    assert ours[0].metric == "acc" and ours[0].n == 12
    assert ours[0].value == pytest.approx(theirs["results"]["own_choice"]["acc,none"])


@pytest.mark.more
def test_likelihoods_rolling_and_generation_are_those_of_its_own_model(folder: Path) -> None:
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    own = HFLM(pretrained=str(base()), device="cpu", dtype="float32", batch_size=3, max_length=64)
    model = small_model(window=64)

    def instances(kind: str, arguments: list[tuple[Any, ...]]) -> list[Any]:
        return [Instance(kind, {}, one, i) for i, one in enumerate(arguments)]

    pairs = [("The import", " system"), ("x = ", "1"), ("", "the"), ("a " * 100, "b c"), ("سلام", " دنیا")]
    texts = ["the import statement " * 30, "سلام دنیا", "x = 1\n", "a"]
    with generation_mode(model.causal_lm):
        ours = harness_lm(model)
        found = ours.loglikelihood(instances("loglikelihood", pairs), disable_tqdm=True)
        rolled = ours.loglikelihood_rolling(instances("loglikelihood_rolling", [(one,) for one in texts]))
        asked = [
            ("The import", {"until": ["\n"], "max_gen_toks": 8}),
            ("x", {"until": [], "max_gen_toks": 4}),
        ]
        written = ours.generate_until(instances("generate_until", asked))
    expected = own.loglikelihood(instances("loglikelihood", pairs), disable_tqdm=True)
    assert [one[0] for one in found] == pytest.approx([one[0] for one in expected], rel=1e-4)
    assert [one[1] for one in found] == [one[1] for one in expected]
    theirs = own.loglikelihood_rolling(
        instances("loglikelihood_rolling", [(one,) for one in texts]), disable_tqdm=True
    )
    assert rolled == pytest.approx(theirs, rel=1e-6)
    assert written == own.generate_until(instances("generate_until", asked), disable_tqdm=True)


@pytest.mark.more
def test_bits_per_byte_are_those_of_its_rolling_likelihood() -> None:
    """Our text family on the same texts, to 1e-6."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    from persianmind.evaluate.families import FAMILIES, Numbered, TaskContext
    from persianmind.evaluate.families.text import TextOptions
    from persianmind.evaluate.items import TextItem

    texts = ["the import statement " * 40, "سلام دنیا " * 20]
    model = small_model()
    context = TaskContext(model, "en", TextOptions(window=100))
    with generation_mode(model.causal_lm):
        items = {i: TextItem(text) for i, text in enumerate(texts)}
        records = sorted(FAMILIES["text"].score(context, Numbered(items)), key=lambda one: one["item"])
    own = HFLM(pretrained=str(base()), device="cpu", dtype="float32", batch_size=1, max_length=100)
    asked = [Instance("loglikelihood_rolling", {}, (text,), i) for i, text in enumerate(texts)]
    theirs = own.loglikelihood_rolling(asked, disable_tqdm=True)
    assert [-record["nats"] for record in records] == pytest.approx(theirs, rel=1e-6)


@pytest.mark.more
def test_unknown_tasks_are_one_line(folder: Path) -> None:
    with pytest.raises(UsageError, match="knows no task 'own_choise'"):
        run_harness(small_model(), ["own_choise"], folder, limit=None, few_shot=None, share=Share())
    with pytest.raises(UsageError, match="no such folder"):
        run_harness(small_model(), ["x"], folder / "none", limit=None, few_shot=None, share=Share())


@pytest.mark.more
@pytest.mark.parametrize(
    "task",
    ["belebele_pes_Arab", "global_mmlu_full_fa", "include_base_44_persian", "multiblimp_fas",
     "toksuite_farsi", "bigbench_parsinlu_qa_multiple_choice", "global_piqa_parallel_cloze_pes_arab"],
)  # fmt: skip
def test_the_tasks_that_docs_name_are_known(task: str) -> None:
    """Their data come from the Hub, which is not asked here."""
    from persianmind.evaluate.harness import _manager

    assert task in _manager([task], None).all_tasks
