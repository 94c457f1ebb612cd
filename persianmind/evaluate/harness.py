"""lm-evaluation-harness 0.4 over our forward passes, by its own API: for the tasks that it has and we lack.

Its tasks are loaded by the folder that their name begins with, since a look at all of them takes seconds. A
task's data come from the Hub, if the task says so: whoever names it asks for that.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from persianmind.common.errors import DataError, MachineError, UsageError
from persianmind.evaluate.evaluated import EvaluatedModel
from persianmind.evaluate.session import Share
from persianmind.evaluate.stats import Z_95
from persianmind.evaluate.windows import rolling_windows
from persianmind.run.evaluation_records import SuiteResult

INSTALL = 'pip install "lm-eval==0.4.13"'
MAX_NEW_TOKENS = 256


def run_harness(
    model: EvaluatedModel,
    tasks: Sequence[str],
    folder: Path | None,
    *,
    limit: int | None,
    few_shot: int | None,
    share: Share,
) -> list[SuiteResult]:
    """Tasks of the harness, or of a folder with task files; on rank 0, the others get what it found.

    Raises:
        MachineError: it is not installed.
        UsageError: it knows no such task.
        DataError: a task's data cannot be loaded.
    """
    found: Any = None
    if share.rank == 0:
        try:
            found = [one.model_dump(mode="json") for one in _run(model, tasks, folder, limit, few_shot)]
        except (MachineError, UsageError, DataError) as error:
            found = error
    found = share.gather(found)[0]
    if isinstance(found, Exception):
        raise found
    return [SuiteResult.model_validate(one) for one in found]


def harness_lm(model: EvaluatedModel) -> Any:
    """Our model as an object of the harness: a subclass of its `TemplateLM`."""
    from lm_eval.api.model import TemplateLM

    from persianmind.evaluate.generate import stream_ids
    from persianmind.evaluate.likelihood import Request

    likelihood, tokenizer = model.likelihood(), model.tokenizer

    class HarnessLM(TemplateLM):  # type: ignore[misc]
        @property
        def eot_token_id(self) -> int:
            return tokenizer.eos_id

        @property
        def prefix_token_id(self) -> int:
            return tokenizer.bos_or_eos_id

        @property
        def tokenizer_name(self) -> str:
            return str(tokenizer.folder)

        def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
            lead = [] if tokenizer.bos_id is None or add_special_tokens is False else [tokenizer.bos_id]
            return [*lead, *tokenizer.encode([string], parse_special=True)[0]]

        def _loglikelihood_tokens(self, requests: Any, **_: Any) -> list[tuple[float, bool]]:
            asked = []
            for _names, context, continuation in requests:
                room = max(1, model.window + 1 - len(continuation))
                asked.append(Request(tuple(context[-room:]), tuple(continuation[: model.window])))
            return [(one.log_likelihood, one.greedy) for one in likelihood.score(asked)]

        def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = False) -> list[float]:
            values = []
            for request in requests:
                ids = tokenizer.encode([request.args[0]], parse_special=True)[0]
                windows = list(rolling_windows(ids, tokenizer.bos_or_eos_id, model.window))
                values.append(-sum(likelihood.windows(windows)))
            return values

        def generate_until(self, requests: Any, disable_tqdm: bool = False) -> list[str]:
            return [self._generate(*request.args) for request in requests]

        def _generate(self, context: str, options: dict[str, Any]) -> str:
            limit = int(options.get("max_gen_toks") or MAX_NEW_TOKENS)
            given = options.get("until") or []
            stops = [given] if isinstance(given, str) else list(given)
            ids: list[int] = []
            for token in stream_ids(
                model.causal_lm,
                self.tok_encode(context)[-max(1, model.window - limit) :],
                max_new_tokens=limit,
                stop_ids={tokenizer.eos_id},
                vocab_size=tokenizer.vocab_size,
                repetition_penalty=1.0,
            ):
                ids.append(token)
                if any(stop in tokenizer.decode(ids) for stop in stops):
                    break
            text = tokenizer.decode(ids, skip_special=True)
            for stop in stops:
                text = text.split(stop)[0]
            return text

    return HarnessLM()


def _run(
    model: EvaluatedModel, tasks: Sequence[str], folder: Path | None, limit: int | None, few_shot: int | None
) -> list[SuiteResult]:
    _require()
    import lm_eval

    manager = _manager(tasks, folder)
    started_s = time.perf_counter()
    try:
        evaluated = lm_eval.simple_evaluate(
            model=harness_lm(model),
            tasks=list(tasks),
            task_manager=manager,
            limit=limit,
            num_fewshot=few_shot,
            bootstrap_iters=1000,
            log_samples=False,
        )
    except (KeyError, ValueError, OSError, RuntimeError, ConnectionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(
            f"lm-evaluation-harness: {reason}; its data come from the Hub unless a task file says otherwise"
        ) from None
    return _results(model, evaluated, time.perf_counter() - started_s)


def _results(model: EvaluatedModel, evaluated: Any, seconds: float) -> list[SuiteResult]:
    found = []
    for task, values in evaluated["results"].items():
        n = int(evaluated.get("n-samples", {}).get(task, {}).get("effective", 0))
        for key, value in values.items():
            metric, comma, filtering = key.partition(",")
            if not comma or metric.endswith("_stderr") or not isinstance(value, int | float):
                continue
            stderr = values.get(f"{metric}_stderr,{filtering}")
            half = Z_95 * stderr if isinstance(stderr, int | float) else None
            found.append(
                SuiteResult(
                    suite="lm-eval",
                    task=task,
                    metric=metric,
                    value=float(value),
                    ci_low=None if half is None else value - half,
                    ci_high=None if half is None else value + half,
                    n=n,
                    settings={
                        "lm_eval": version("lm-eval"),
                        "filter": filtering,
                        "few_shot": evaluated.get("n-shot", {}).get(task),
                    },
                    model=model.name,
                    model_fingerprint=model.fingerprint,
                    seconds=round(seconds, 3),
                )
            )
    return found


def _require() -> None:
    try:
        installed = version("lm-eval")
    except PackageNotFoundError:
        raise MachineError(f"--harness needs lm-evaluation-harness 0.4: {INSTALL}") from None
    if not installed.startswith("0.4."):
        raise MachineError(f"--harness needs lm-evaluation-harness 0.4, {installed} is installed: {INSTALL}")


def _manager(tasks: Sequence[str], folder: Path | None) -> Any:
    """A task manager that looks into as few folders as it can.

    Raises:
        UsageError: a task is in none of them.
    """
    from lm_eval.tasks import TaskManager

    if folder is not None and not folder.is_dir():
        raise UsageError(f"--harness-tasks {folder}: no such folder")
    found = importlib.util.find_spec("lm_eval.tasks")
    assert found is not None and found.origin is not None
    root = Path(found.origin).parent
    names = sorted((path.name for path in root.iterdir() if path.is_dir()), key=len, reverse=True)
    own = [next((str(root / name) for name in names if task.startswith(name)), None) for task in tasks]
    places = [*dict.fromkeys(one for one in own if one), *([str(folder)] if folder else [])]
    manager = TaskManager(include_path=places or None, include_defaults=not places)
    known = {*manager.all_tasks}
    if missing := [task for task in tasks if task not in known]:
        raise UsageError(
            f"lm-evaluation-harness knows no task {missing[0]!r}; --harness-tasks DIR adds yours"
        )
    return manager
